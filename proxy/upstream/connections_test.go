package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// counted is a handler that counts the connections that reach it.
type counted struct {
	http.HandlerFunc
	mu    sync.Mutex
	peers map[string]bool
}

func (c *counted) serve(rw http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if c.peers == nil {
		c.peers = map[string]bool{}
	}
	c.peers[r.RemoteAddr] = true
	c.mu.Unlock()
	c.HandlerFunc(rw, r)
}

func (c *counted) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.peers)
}

// chunkedAnswer answers without saying how long the body is.
func chunkedAnswer(status int, body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		_ = http.NewResponseController(rw).Flush()
		_, _ = io.WriteString(rw, body)
	}
}

// What a pull asks for, one after the other, takes one connection: whatever the
// answers are, a round trip for the next one would be the price.
func TestConnectionsAreUsedAgain(t *testing.T) {
	const absent = `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`
	digest := digestOf(t, "content")
	for name, answers := range map[string]struct {
		handler http.HandlerFunc
		kind    string
	}{
		"200":                             {text("content"), "none"},
		"200, chunked":                    {chunkedAnswer(200, "content"), "none"},
		"404":                             {func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, absent, 404) }, ""},
		"404, chunked":                    {chunkedAnswer(404, absent), ""},
		"404, chunked and empty":          {chunkedAnswer(404, ""), ""},
		"404 with more than is looked at": {chunkedAnswer(404, strings.Repeat(" ", 64<<10+100)), ""},
		"403, chunked":                    {chunkedAnswer(403, absent), KindForbidden},
		"500, chunked":                    {chunkedAnswer(500, absent), KindUnavailable},
		"gzip, chunked": {func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			chunkedAnswer(200, "content")(rw, r)
		}, KindMismatch},
		"206, chunked": {chunkedAnswer(206, "content"), KindMismatch},
		"304":          {chunkedAnswer(304, ""), "none"},
	} {
		t.Run("after "+name, func(t *testing.T) {
			t.Parallel()
			server := &counted{HandlerFunc: answers.handler}
			_, c := plainRegistry(t, server.serve, nil)
			for range 5 {
				ctx, cancel := context.WithCancel(t.Context())
				_, _, _, err := c.Manifest(ctx, "acme/web", "v1", digest)
				cancel() // after the answer it cuts nothing
				wantKind(t, err, answers.kind)
			}
			if got := server.connections(); got != 1 {
				t.Errorf("%d connections", got)
			}
		})
	}

	t.Run("of blobs, also of unknown size", func(t *testing.T) {
		for name, handler := range map[string]http.HandlerFunc{"said": text("content"), "chunked": chunkedAnswer(200, "content")} {
			server := &counted{HandlerFunc: handler}
			_, c := plainRegistry(t, server.serve, nil)
			for range 5 {
				if got, err := read(t, c, "acme/web", digest, 0); got != "content" || err != nil {
					t.Fatalf("%q, %v", got, err)
				}
				if _, err := c.Exists(t.Context(), "acme/web", digest); err != nil {
					t.Fatal(err)
				}
			}
			if got := server.connections(); got != 1 {
				t.Errorf("%s: %d connections", name, got)
			}
		}
	})

	t.Run("through challenges and redirects with bodies of unknown length", func(t *testing.T) {
		w := newWorld(t)
		r := &tokenRegistry{}
		registry := &counted{HandlerFunc: func(rw http.ResponseWriter, request *http.Request) {
			if request.URL.Path == "/token" {
				r.issue(rw, request)
				return
			}
			r.serve(chunking{rw}, request)
		}}
		cdn := &counted{HandlerFunc: chunkedAnswer(200, "content")}
		other := w.serve("https", "cdn.test", cdn.serve)
		r.content = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", other.url()+"/blob")
			rw.WriteHeader(http.StatusTemporaryRedirect)
			fmt.Fprint(rw, "<a href=there>there</a>")
		}
		host := w.serve("https", "registry.example", registry.serve)
		r.realm = host.url() + "/token"
		c := w.client(host, nil)
		for i := range 5 { // each repository has a challenge of its own
			if got, err := read(t, c, fmt.Sprint("acme/web", i), digest, 0); got != "content" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if registry.connections() != 1 || cdn.connections() != 1 {
			t.Errorf("%d connections, %d to the other host", registry.connections(), cdn.connections())
		}
	})

	t.Run("but not behind a body that is long", func(t *testing.T) {
		server := &counted{HandlerFunc: func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(404)
			endless(rw, r)
		}}
		_, c := plainRegistry(t, server.serve, nil)
		for range 2 {
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if got := server.connections(); got != 2 {
			t.Errorf("%d connections", got)
		}
	})
}

// chunking answers without saying how long the body is.
type chunking struct{ http.ResponseWriter }

func (c chunking) WriteHeader(status int) {
	c.ResponseWriter.WriteHeader(status)
	_ = http.NewResponseController(c.ResponseWriter).Flush()
}

// As many as a pull uses at once stay open for the next one.
func TestConnectionsOfAPullAreKept(t *testing.T) {
	const atOnce = 16 + 3 + 3 // prefetched, a client's own, signatures
	var waiting sync.WaitGroup
	server := &counted{HandlerFunc: func(rw http.ResponseWriter, _ *http.Request) {
		waiting.Done()
		waiting.Wait() // all are there at the same time
		fmt.Fprint(rw, "content")
	}}
	_, c := plainRegistry(t, server.serve, nil)
	for range 3 {
		waiting.Add(atOnce)
		var all sync.WaitGroup
		for i := range atOnce {
			all.Go(func() {
				if _, err := read(t, c, "acme/web", digestOf(t, fmt.Sprint(i)), 0); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if got := server.connections(); got != atOnce {
		t.Errorf("%d connections for %d at once", got, atOnce)
	}
}
