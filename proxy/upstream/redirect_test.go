package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digestOf(t *testing.T, content string) v1.Hash {
	t.Helper()
	digest, _, err := v1.SHA256(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func text(body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, body) }
}

// redirectWorld is a registry with tokens that redirects to where target says
// once the token is good, and a host beside it.
func redirectWorld(t *testing.T, elsewhere http.HandlerFunc) (w *world, registry, other *host, target *string) {
	w = newWorld(t)
	target = new(string)
	r := &tokenRegistry{content: func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Location", *target)
		rw.WriteHeader(http.StatusTemporaryRedirect)
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", r.issue)
	mux.HandleFunc("/v2/", r.serve)
	mux.HandleFunc("/own", text("own content"))
	registry = w.serve("https", "registry.example", mux.ServeHTTP)
	r.realm = registry.url() + "/token"
	other = w.serve("https", "cdn.test", elsewhere)
	*target = other.url() + "/blob?X-Amz-Signature=s3cret"
	return w, registry, other, target
}

func withPassword(config *Config) { config.Credentials = Static("robot", "hunter2") }

func TestRedirects(t *testing.T) {
	t.Run("another host gets the request without the token", func(t *testing.T) {
		w, registry, other, _ := redirectWorld(t, text("content"))
		body, _, err := manifestOf(t.Context(), w.client(registry, withPassword), "acme/web", "v1")
		if err != nil || string(body) != "content" {
			t.Fatalf("got %q, %v", body, err)
		}
		if got := other.authorizations(); len(got) != 0 {
			t.Errorf("the other host was shown %q", got)
		}
		for _, name := range []string{"Cookie", "Referer"} {
			if got := other.last().header.Get(name); got != "" {
				t.Errorf("%s: %s", name, got)
			}
		}
		if got := other.last().header.Get("Accept"); got != manifestTypes {
			t.Errorf("Accept: %s", got)
		}
	})

	t.Run("a 401 of another host is final, and gets nothing", func(t *testing.T) {
		for _, challenge := range []string{`Bearer realm="https://cdn.test/token"`, `Basic realm="x"`} {
			w, registry, other, _ := redirectWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("WWW-Authenticate", challenge)
				rw.WriteHeader(http.StatusUnauthorized)
			})
			_, _, err := manifestOf(t.Context(), w.client(registry, withPassword), "acme/web", "v1")
			wantKind(t, err, KindUnauthorized)
			if len(other.lines()) != 1 || len(other.authorizations()) != 0 {
				t.Errorf("the other host was asked %q with %q", other.lines(), other.authorizations())
			}
		}
	})

	t.Run("the registry's own redirect to itself keeps the token", func(t *testing.T) {
		w, registry, _, target := redirectWorld(t, text("content"))
		*target = "/own"
		body, _, err := manifestOf(t.Context(), w.client(registry, withPassword), "acme/web", "v1")
		if err != nil || string(body) != "own content" || registry.last().header.Get("Authorization") == "" {
			t.Errorf("got %q, %v, with %q", body, err, registry.last().header.Get("Authorization"))
		}
	})

	t.Run("back from another host the registry gets no token either", func(t *testing.T) {
		var back string
		w, registry, _, _ := redirectWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, back, http.StatusFound)
		})
		back = registry.url() + "/own"
		body, _, err := manifestOf(t.Context(), w.client(registry, withPassword), "acme/web", "v1")
		if err != nil || string(body) != "own content" {
			t.Fatalf("got %q, %v", body, err)
		}
		if got := registry.last().header.Get("Authorization"); got != "" {
			t.Errorf("shown %q", got)
		}
	})

	t.Run("five hops are followed, six are not", func(t *testing.T) {
		for hops, kind := range map[int]string{maxRedirects: "none", maxRedirects + 1: KindRefused} {
			w := newWorld(t)
			registry := w.serve("https", "registry.example", func(rw http.ResponseWriter, r *http.Request) {
				n, _ := strconv.Atoi(r.URL.Query().Get("hop"))
				if n == hops {
					fmt.Fprint(rw, "content")
					return
				}
				http.Redirect(rw, r, "?hop="+strconv.Itoa(n+1), http.StatusSeeOther)
			})
			_, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1")
			wantKind(t, err, kind)
		}
	})
}

func TestRedirectsThatAreRefused(t *testing.T) {
	plain := func(w *world) string { return w.serve("http", "cdn.example", text("content")).url() }
	at := func(url string) func(*world) string { return func(*world) string { return url } }
	resolving := func(address string) func(*world) string {
		return func(w *world) string {
			other := w.serve("https", "cdn.example", text("content"))
			w.resolve("cdn.example", address)
			return other.url()
		}
	}
	for _, tt := range []struct {
		name   string
		target func(*world) string
		kind   string
		says   string
	}{
		{"from https to http", plain, KindRefused, "https to"},
		{"to a file", at("file:///etc/passwd"), KindRefused, "scheme"},
		{"to a user name", at("https://user:pass@cdn.test/x"), KindRefused, "user name"},
		{"to nowhere", at(""), KindMismatch, "nowhere"},
		{"to no URL", at("https://[::1"), KindMismatch, "URL"},
		{"to the metadata service", at("https://169.254.169.254/latest"), KindRefused, "never dialled"},
		{"to the metadata service, mapped", at("https://[::ffff:169.254.169.254]/latest"), KindRefused, "never dialled"},
		{"to the metadata service, translated", at("https://[64:ff9b::a9fe:a9fe]/latest"), KindRefused, "never dialled"},
		{"to the metadata service, decimal", at("https://2852039166/latest"), KindRefused, "unusual"},
		{"to the metadata service, hexadecimal", at("https://0xa9.0xfe.0xa9.0xfe/latest"), KindRefused, "unusual"},
		{"to the metadata service, octal", at("https://0251.0376.0251.0376/latest"), KindRefused, "unusual"},
		{"to the metadata service, short", at("https://169.16689662/latest"), KindRefused, "unusual"},
		{"to any address", at("https://0.0.0.0/x"), KindRefused, "never dialled"},
		{"to loopback", at("https://127.0.0.1/x"), KindRefused, "egress.allow"},
		{"to loopback of IPv6", at("https://[::1]/x"), KindRefused, "egress.allow"},
		{"to localhost", at("https://localhost/x"), KindRefused, "egress.allow"},
		{"to a private address", at("https://10.0.0.1/x"), KindRefused, "egress.allow"},
		{"to a zone", at("https://[fe80::1%25lo]/x"), KindRefused, "zone"},
		{"to a name in loopback", resolving("127.0.0.1"), KindRefused, "egress.allow"},
		{"to a name in loopback of IPv6", resolving("::1"), KindRefused, "egress.allow"},
		{"to a name in a private network", resolving("10.0.0.1"), KindRefused, "egress.allow"},
		{"to a name in a unique local network", resolving("fd00:ec2::254"), KindRefused, "egress.allow"},
		{"to a name in a carrier's network", resolving("100.100.100.200"), KindRefused, "egress.allow"},
		{"to a name of Azure's host", resolving("168.63.129.16"), KindRefused, "egress.allow"},
		{"to a name of the metadata service", resolving("169.254.169.254"), KindRefused, "never dialled"},
		{"to a name of the metadata service by 6to4", resolving("2002:a9fe:a9fe::1"), KindRefused, "never dialled"},
		{"to a name of any address", resolving("0.0.0.0"), KindRefused, "never dialled"},
		{"to a name that nobody has", at("https://nobody.test/x"), KindUnavailable, "no such host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, registry, _, target := redirectWorld(t, text("content"))
			*target = tt.target(w)
			c := w.client(registry, func(config *Config) { withPassword(config); config.Egress = nil })
			for _, call := range []func() error{
				func() error { _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); return err },
				func() error { _, _, err := c.Blob(t.Context(), "acme/web", digestOf(t, "content"), 0); return err },
				func() error { _, err := c.Exists(t.Context(), "acme/web", digestOf(t, "content")); return err },
			} {
				err := call()
				wantKind(t, err, tt.kind)
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%q does not say %q", err, tt.says)
				}
				advice := adviceOf(err)
				if dialled := tt.says == "egress.allow" || tt.says == "never dialled"; dialled != strings.Contains(advice, tt.says) || strings.ContainsAny(advice, "0123456789") {
					t.Errorf("advice is %q", advice)
				}
			}
		})
	}
}

// adviceOf is what may mend err, which names no host.
func adviceOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Advice()
	}
	return ""
}

func settingOf(err error) (where, config string) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Setting()
	}
	return "", ""
}

func TestRedirectToAPrivateHost(t *testing.T) {
	t.Run("is followed when egress.allow lists it", func(t *testing.T) {
		w, registry, _, _ := redirectWorld(t, text("content"))
		c := w.client(registry, func(config *Config) { config.Egress = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("is followed when the registry itself is written as a private address", func(t *testing.T) {
		w := newWorld(t)
		other := w.serve("https", "cdn.test", text("content"))
		registry := w.serve("https", "127.0.0.1", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, other.url(), http.StatusFound)
		})
		c := w.client(registry, func(config *Config) { config.Egress = nil })
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("is refused when only the registry's name resolves to a private address, also on another port of it", func(t *testing.T) {
		w := newWorld(t)
		other := w.serve("https", "registry.example", text("content"))
		registry := w.serve("https", "registry.example", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, other.url(), http.StatusFound)
		})
		c := w.client(registry, func(config *Config) { config.Egress = nil })
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		wantKind(t, err, KindRefused)
	})
	t.Run("a name is checked at each dial", func(t *testing.T) {
		w, registry, other, _ := redirectWorld(t, text("content"))
		c := w.client(registry, nil)
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Fatal(err)
		}
		w.resolve("cdn.test", "169.254.169.254")
		c.Close()
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		wantKind(t, err, KindRefused)
		if got := len(other.lines()); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
	})
}
