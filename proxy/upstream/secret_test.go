package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestSecretsStayOutOfErrors lets a registry, its token host and the host that
// it redirects to send back what they were sent, in every part of an answer.
func TestSecretsStayOutOfErrors(t *testing.T) {
	const password, identity, issued, signature = "pass-canary", "identity-canary", "token-canary", "signature-canary"
	secrets := []string{password, identity, issued, signature, "bot:pass-canary", base64.StdEncoding.EncodeToString([]byte("bot:" + password))}

	// Each echo answers with text, which holds what the host was sent.
	echoes := map[string]func(rw http.ResponseWriter, text string){
		"error body": func(rw http.ResponseWriter, text string) {
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(rw, `{"errors":[{"code":%q,"message":%q}]}`, text, text)
		},
		"plain body":       func(rw http.ResponseWriter, text string) { fmt.Fprint(rw, text) },
		"location's query": func(rw http.ResponseWriter, text string) { to(rw, "http://nobody.test/?x="+text) },
		"location's path":  func(rw http.ResponseWriter, text string) { to(rw, "https://169.254.169.254/"+text) },
		"location's user":  func(rw http.ResponseWriter, text string) { to(rw, "https://"+text+"@cdn.test/") },
		"location's scheme": func(rw http.ResponseWriter, text string) {
			to(rw, strings.ReplaceAll(text, " ", "")+"://cdn.test/")
		},
		"broken location": func(rw http.ResponseWriter, text string) { to(rw, "https://[::1"+text) },
		"challenge": func(rw http.ResponseWriter, text string) {
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q,scope=%q,error=%q", text, text, text, text))
			rw.WriteHeader(http.StatusUnauthorized)
		},
		"challenge's user": func(rw http.ResponseWriter, text string) {
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", "https://"+text+"@evil.test/"+text+"?"+text))
			rw.WriteHeader(http.StatusUnauthorized)
		},
		"broken challenge": func(rw http.ResponseWriter, text string) {
			rw.Header().Set("WWW-Authenticate", text)
			rw.WriteHeader(http.StatusUnauthorized)
		},
		"headers": func(rw http.ResponseWriter, text string) {
			for _, name := range []string{"Content-Encoding", "Content-Type", "Link", "Content-Range", "Retry-After", "Docker-Content-Digest"} {
				rw.Header().Set(name, text)
			}
			fmt.Fprint(rw, text)
		},
		"link": func(rw http.ResponseWriter, text string) {
			rw.Header().Set("Link", "<https://"+text+"@evil.test/"+text+"?"+text+`>; rel="next"`)
		},
		"status":    func(rw http.ResponseWriter, text string) { raw(rw, "HTTP/1.1 403 "+text+"\r\n\r\n") },
		"no status": func(rw http.ResponseWriter, text string) { raw(rw, "HTTP/1.1 "+text+"\r\n\r\n") },
		"no HTTP":   func(rw http.ResponseWriter, text string) { raw(rw, text+"\r\n\r\n") },
		"no header": func(rw http.ResponseWriter, text string) { raw(rw, "HTTP/1.1 200 OK\r\n"+text+"\r\n\r\n") },
		"bad length": func(rw http.ResponseWriter, text string) {
			raw(rw, "HTTP/1.1 200 OK\r\nContent-Length: "+text+"\r\n\r\n")
		},
		"bad coding": func(rw http.ResponseWriter, text string) {
			raw(rw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+text+"\r\n\r\n")
		},
		"bad chunk": func(rw http.ResponseWriter, text string) {
			raw(rw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+text+"\r\n")
		},
	}
	credentials := map[string]Credential{
		"a password":        {Username: "bot", Password: password},
		"an identity token": {IdentityToken: identity},
		"a registry token":  {RegistryToken: issued},
	}
	for place, where := range map[string]int{"the registry": 0, "the token host": 1, "a redirect's host": 2} {
		for echoName, echo := range echoes {
			for credentialName, credential := range credentials {
				if where != 1 && credential.IdentityToken != "" || where != 0 && credential.RegistryToken != "" {
					continue // it does not get there
				}
				t.Run(fmt.Sprintf("%s sends %s back in its %s", place, credentialName, echoName), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					back := func(rw http.ResponseWriter, r *http.Request) {
						_ = r.ParseForm()
						echo(rw, strings.Join([]string{r.Header.Get("Authorization"), password, identity, issued, signature, r.Form.Encode()}, " "))
					}
					var auth, cdn *host
					registry := w.serve("http", "registry.example", func(rw http.ResponseWriter, r *http.Request) {
						switch {
						case r.URL.Path == "/token":
							if where == 1 {
								back(rw, r)
								return
							}
							fmt.Fprintf(rw, `{"token": %q}`, issued)
						case r.Header.Get("Authorization") != "Bearer "+issued:
							rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", auth.url()+"/token"))
							rw.WriteHeader(http.StatusUnauthorized)
						case where == 2:
							to(rw, cdn.url()+"/?X-Amz-Signature="+signature)
						default:
							back(rw, r)
						}
					})
					auth = registry
					cdn = w.serve("http", "cdn.test", back)
					c := w.client(registry, func(config *Config) {
						config.Credentials = func(context.Context, string) (Credential, error) { return credential, nil }
					})
					failed := 0
					for _, call := range []func() error{
						func() error { _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); return err },
						func() error { _, err := c.Exists(t.Context(), "acme/web", digestOf(t, "x")); return err },
						func() error { _, _, err := c.Tags(t.Context(), "acme/web", 0, ""); return err },
						func() error { _, err := c.Referrers(t.Context(), "acme/web", digestOf(t, "x"), ""); return err },
						func() error {
							body, _, err := c.Blob(t.Context(), "acme/web", digestOf(t, "x"), 5)
							if err == nil {
								_, err = io.Copy(io.Discard, body)
								body.Close()
							}
							return err
						},
					} {
						err := call()
						if err == nil {
							continue
						}
						failed++
						for e := err; e != nil; e = errors.Unwrap(e) {
							text := fmt.Sprintf("%v %+v %#v %s", e, e, e, url.QueryEscape(e.Error()))
							for _, secret := range secrets {
								if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
									t.Errorf("%q holds %q", text, secret)
								}
							}
						}
					}
					if failed == 0 {
						t.Error("nothing went wrong")
					}
				})
			}
		}
	}
}

func to(rw http.ResponseWriter, location string) {
	rw.Header().Set("Location", location)
	rw.WriteHeader(http.StatusFound)
}

// raw answers with bytes that net/http would not write.
func raw(rw http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
}

func TestCredentialsErrorIsNotShown(t *testing.T) {
	w := newWorld(t)
	registry := w.serve("https", "registry.example", (&tokenRegistry{realm: "https://registry.example/token"}).serve)
	c := w.client(registry, func(config *Config) {
		config.Credentials = func(context.Context, string) (Credential, error) {
			return Credential{}, errors.New("helper said pass-canary")
		}
	})
	_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
	wantKind(t, err, KindUnavailable)
	if strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
}
