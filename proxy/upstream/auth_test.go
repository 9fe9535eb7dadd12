package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tokenWorld is a registry at registry.example that wants tokens of
// auth.example.
func tokenWorld(t *testing.T) (w *world, registry, auth *host, r *tokenRegistry) {
	w = newWorld(t)
	r = &tokenRegistry{}
	registry = w.serve("https", "registry.corp.example", r.serve)
	auth = w.serve("https", "auth.corp.example", r.issue)
	r.realm = auth.url() + "/token"
	return w, registry, auth, r
}

func TestTokens(t *testing.T) {
	t.Run("a first request learns the challenge, the next repository brings its token along", func(t *testing.T) {
		w, registry, auth, _ := tokenWorld(t)
		c := w.client(registry, func(config *Config) { config.Credentials = Static("robot", "hunter2") })
		for _, repository := range []string{"acme/web", "acme/web", "acme/db"} {
			body, _, err := manifestOf(t.Context(), c, repository, "v1")
			if err != nil || string(body) != "content of "+repository {
				t.Fatalf("got %q, %v", body, err)
			}
		}
		if diff := cmp.Diff([]string{
			"GET /v2/acme/web/manifests/v1", "GET /v2/acme/web/manifests/v1", "GET /v2/acme/web/manifests/v1", "GET /v2/acme/db/manifests/v1",
		}, registry.lines()); diff != "" {
			t.Errorf("requests to the registry (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{
			"GET /token?scope=repository%3Aacme%2Fweb%3Apull&service=svc", "GET /token?scope=repository%3Aacme%2Fdb%3Apull&service=svc",
		}, auth.lines()); diff != "" {
			t.Errorf("requests to the token host (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{
			"Bearer repository:acme/web:pull#1", "Bearer repository:acme/web:pull#1", "Bearer repository:acme/db:pull#2",
		}, registry.authorizations()); diff != "" {
			t.Errorf("what the registry was shown (-want +got):\n%s", diff)
		}
		want := basic(Credential{Username: "robot", Password: "hunter2"})
		if diff := cmp.Diff([]string{want, want}, auth.authorizations()); diff != "" {
			t.Errorf("what the token host was shown (-want +got):\n%s", diff)
		}
	})

	t.Run("without credentials an anonymous token is asked for", func(t *testing.T) {
		w, registry, auth, _ := tokenWorld(t)
		if _, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1"); err != nil {
			t.Fatal(err)
		}
		if got := auth.authorizations(); len(got) != 0 {
			t.Errorf("the token host was shown %q", got)
		}
	})

	t.Run("an identity token is posted, and nothing else", func(t *testing.T) {
		w, registry, auth, r := tokenWorld(t)
		r.scope = func(string) string { return "posted" }
		c := w.client(registry, func(config *Config) {
			config.Credentials = func(context.Context, string) (Credential, error) {
				return Credential{Username: "<token>", IdentityToken: "refresh-me"}, nil
			}
		})
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Fatal(err)
		}
		form, err := url.ParseQuery(auth.last().body)
		if err != nil {
			t.Fatal(err)
		}
		want := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"refresh-me"}, "client_id": {"vidimus"}, "service": {"svc"}, "scope": {"posted"}}
		if diff := cmp.Diff(want, form); diff != "" {
			t.Errorf("form (-want +got):\n%s", diff)
		}
		if got := auth.authorizations(); auth.last().line != "POST /token" || len(got) != 0 {
			t.Errorf("%s with %q", auth.last().line, got)
		}
	})

	t.Run("a registry token is used as it is", func(t *testing.T) {
		w, registry, auth, _ := tokenWorld(t)
		c := w.client(registry, func(config *Config) {
			config.Credentials = func(context.Context, string) (Credential, error) {
				return Credential{RegistryToken: "repository:acme/web:pull#own"}, nil
			}
		})
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Fatal(err)
		}
		if len(auth.lines()) != 0 {
			t.Errorf("the token host was asked %q", auth.lines())
		}
	})

	t.Run("a revoked token is fetched anew once, and the request is sent again once", func(t *testing.T) {
		w, registry, auth, r := tokenWorld(t)
		c := w.client(registry, nil)
		for range 2 {
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Fatal(err)
			}
			r.revoke("repository:acme/web:pull#1")
		}
		if got := len(auth.lines()); got != 2 {
			t.Errorf("%d tokens fetched, want 2", got)
		}
		if got := len(registry.lines()); got != 4 {
			t.Errorf("%d requests to the registry, want 4", got)
		}
	})

	t.Run("a new token that is refused is not tried again", func(t *testing.T) {
		w, registry, auth, r := tokenWorld(t)
		r.revoke("repository:acme/web:pull#1")
		c := w.client(registry, func(config *Config) { config.Credentials = Static("robot", "hunter2") })
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		wantKind(t, err, KindUnauthorized)
		if len(auth.lines()) != 1 || len(registry.lines()) != 2 {
			t.Errorf("%d tokens and %d requests, want 1 and 2", len(auth.lines()), len(registry.lines()))
		}
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Errorf("the refused token was kept: %v", err)
		}
	})

	t.Run("a challenge that changes each time ends", func(t *testing.T) {
		w, registry, _, r := tokenWorld(t)
		var n int
		r.scope = func(string) string { n++; return fmt.Sprint("scope", n) }
		_, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1")
		wantKind(t, err, KindUnauthorized)
		if got := len(registry.lines()); got != maxSends {
			t.Errorf("%d requests, want %d", got, maxSends)
		}
	})

	t.Run("a scope of the registry's own is used, and cached", func(t *testing.T) {
		w, registry, auth, r := tokenWorld(t)
		r.scope = func(string) string { return "aws" }
		c := w.client(registry, nil)
		for range 3 {
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(auth.lines()); got != 1 {
			t.Errorf("%d tokens fetched, want 1", got)
		}
	})

	t.Run("other credentials get another token", func(t *testing.T) {
		w, registry, auth, _ := tokenWorld(t)
		password := "one"
		c := w.client(registry, func(config *Config) {
			config.Credentials = func(context.Context, string) (Credential, error) {
				return Credential{Username: "robot", Password: password}, nil
			}
		})
		for _, password = range []string{"one", "one", "two"} {
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(auth.lines()); got != 2 {
			t.Errorf("%d tokens fetched, want 2", got)
		}
	})
}

func TestTokenFlight(t *testing.T) {
	t.Run("twenty at once fetch one token", func(t *testing.T) {
		w := newWorld(t)
		r := &tokenRegistry{}
		registry := w.serve("https", "registry.corp.example", r.serve)
		auth := w.serve("https", "auth.corp.example", r.issue)
		r.realm = auth.url() + "/token"
		c := w.client(registry, func(config *Config) { config.Limits.Connections = 20 })
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := len(auth.lines()); got != 1 {
			t.Errorf("%d tokens fetched, want 1", got)
		}
	})

	t.Run("who leaves stops nobody else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var g flights[string, int]
			release := make(chan struct{})
			runs := 0
			work := func(ctx context.Context) (int, error) {
				runs++
				select {
				case <-release:
					return 7, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
			leaving, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				_, err := g.do(leaving, "k", time.Hour, work)
				left <- err
			}()
			synctest.Wait()
			var others sync.WaitGroup
			for range 100 {
				others.Go(func() {
					if n, err := g.do(t.Context(), "k", time.Hour, work); n != 7 || err != nil {
						t.Errorf("got %d, %v", n, err)
					}
				})
			}
			synctest.Wait()
			leave()
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
			synctest.Wait()
			close(release)
			others.Wait()
			if runs != 1 {
				t.Errorf("%d runs, want 1", runs)
			}
		})
	})

	t.Run("when everybody has left the work is stopped, and the next begins anew", func(t *testing.T) {
		var g flights[string, int]
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		_, err := g.do(ctx, "k", time.Hour, func(ctx context.Context) (int, error) {
			cancel()
			<-ctx.Done()
			close(stopped)
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		<-stopped
		if n, err := g.do(t.Context(), "k", time.Hour, func(context.Context) (int, error) { return 7, nil }); n != 7 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	})
}

func TestBasic(t *testing.T) {
	serve := func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "robot" || password != "hunter2" {
			rw.Header().Add("WWW-Authenticate", `Negotiate`)
			rw.Header().Add("WWW-Authenticate", `Basic realm="here"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(rw, "content")
	}
	for _, tt := range []struct {
		name        string
		credentials Credentials
		kind        string
		requests    int // for two manifests
	}{
		{"the right password is asked for once", Static("robot", "hunter2"), "none", 3},
		{"a wrong password is sent once for each request", Static("robot", "wrong"), KindUnauthorized, 3},
		{"without a password nothing is sent but the question", nil, KindUnauthorized, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			registry := w.serve("https", "registry.example", serve)
			c := w.client(registry, func(config *Config) { config.Credentials = tt.credentials })
			for range 2 {
				_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
				if kindOf(err) != tt.kind {
					t.Fatalf("got %v, want kind %s", err, tt.kind)
				}
			}
			if got := len(registry.lines()); got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}
		})
	}
}

func TestARepositoryThatIsOpen(t *testing.T) {
	t.Run("beside one that we have a token for, to which the token host adds none", func(t *testing.T) {
		w := newWorld(t)
		r := &tokenRegistry{}
		registry := w.serve("https", "registry.example", func(rw http.ResponseWriter, request *http.Request) {
			switch {
			case request.URL.Path == "/token" && request.URL.Query().Get("scope") != "repository:acme/mine:pull":
				rw.WriteHeader(http.StatusForbidden)
			case request.URL.Path == "/token":
				r.issue(rw, request)
			case repositoryOf(request.URL.Path) == "acme/mine":
				r.serve(rw, request)
			default:
				fmt.Fprint(rw, "content")
			}
		})
		r.realm = registry.url() + "/token"
		c := w.client(registry, withPassword)
		for _, repository := range []string{"acme/mine", "acme/open", "acme/mine"} {
			if _, _, err := manifestOf(t.Context(), c, repository, "v1"); err != nil {
				t.Errorf("%s: %v", repository, err)
			}
		}
		if got := registry.authorizations(); got[len(got)-1] != "Bearer repository:acme/mine:pull#1" {
			t.Errorf("the last request carried %q", got[len(got)-1])
		}
	})

	// One repository asks for what we do not have, the other for nothing; the
	// token host knows nobody.
	for scheme, challenge := range map[string]string{
		"basic": `Basic realm="x"`, "bearer": `Bearer realm="https://%s/token"`, "refused": `Bearer realm="https://evil.test/token"`,
	} {
		t.Run("beside one that asks for "+scheme, func(t *testing.T) {
			w := newWorld(t)
			closed := true
			registry := w.serve("https", "registry.example", func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					rw.WriteHeader(http.StatusForbidden)
				case closed && repositoryOf(r.URL.Path) == "acme/closed":
					rw.Header().Set("WWW-Authenticate", strings.ReplaceAll(challenge, "%s", r.Host))
					rw.WriteHeader(http.StatusUnauthorized)
				default:
					fmt.Fprint(rw, "content")
				}
			})
			c := w.client(registry, nil)
			for range 2 {
				if _, _, err := manifestOf(t.Context(), c, "acme/closed", "v1"); err == nil {
					t.Error("the closed one was read")
				}
				if _, _, err := manifestOf(t.Context(), c, "acme/open", "v1"); err != nil {
					t.Errorf("the open one: %v", err)
				}
			}
			closed = false
			for range 2 {
				if _, _, err := manifestOf(t.Context(), c, "acme/closed", "v1"); err != nil {
					t.Errorf("once it is open: %v", err)
				}
			}
		})
	}
}
