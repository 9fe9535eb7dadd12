package upstream

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestManifestUnlessHeld(t *testing.T) {
	held := digestOf(t, "bytes")
	etag := `"` + held.String() + `"`
	for _, tt := range []struct {
		name      string
		held      v1.Hash
		answer    http.HandlerFunc
		body      string
		unchanged bool
		kind      string
	}{
		{"304", held, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(304) }, "", true, "none"},
		{"304 that tells another digest", held, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Etag", `"sha256:0"`)
			rw.Header().Set("Docker-Content-Digest", "sha256:0")
			rw.WriteHeader(304)
		}, "", true, "none"},
		{"304 with the header of a body", held, func(rw http.ResponseWriter, _ *http.Request) {
			raw(rw, "HTTP/1.1 304 x\r\nContent-Length: 5000000\r\nContent-Encoding: gzip\r\n\r\n")
		}, "", true, "none"},
		{"200 with the same", held, text("bytes"), "bytes", false, "none"},
		{"200 with others", held, text("others"), "others", false, "none"},
		{"200 with nothing", held, text(""), "", false, "none"},
		{"206", held, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(206) }, "", false, KindMismatch},
		{"412", held, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(412) }, "", false, KindMismatch},
		{"404", held, http.NotFound, "", false, ""},
		{"304 to who holds nothing", v1.Hash{}, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(304) }, "", false, KindMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, c := plainRegistry(t, tt.answer, nil)
			body, _, unchanged, err := c.Manifest(t.Context(), "acme/web", "v1", tt.held)
			wantKind(t, err, tt.kind)
			if string(body) != tt.body || unchanged != tt.unchanged || errors.Is(err, fs.ErrNotExist) != (tt.name == "404") {
				t.Errorf("%q, %v, %v", body, unchanged, err)
			}
			want := etag
			if tt.held == (v1.Hash{}) {
				want = ""
			}
			if got := h.first().header.Values("If-None-Match"); strings.Join(got, "|") != want || len(h.lines()) != 1 {
				t.Errorf("If-None-Match %q in %v", got, h.lines())
			}
		})
	}

	t.Run("the condition is kept through a challenge and a redirect", func(t *testing.T) {
		w, registry, other, _ := redirectWorld(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(304) })
		_, _, unchanged, err := w.client(registry, nil).Manifest(t.Context(), "acme/web", "v1", held)
		if err != nil || !unchanged || other.last().header.Get("If-None-Match") != etag {
			t.Errorf("%v, %v, asked %q", unchanged, err, other.last().header)
		}
	})

	t.Run("what is no digest is not sent", func(t *testing.T) {
		h, c := plainRegistry(t, text(""), nil)
		_, _, _, err := c.Manifest(t.Context(), "acme/web", "v1", v1.Hash{Algorithm: "sha256", Hex: "0\"\r\nX: y"})
		if !errors.Is(err, fs.ErrInvalid) || len(h.lines()) != 0 {
			t.Errorf("%v after %v", err, h.lines())
		}
	})

	t.Run("a body after 304 is nobody's answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := scripted(t, Config{}, func(n int, _ *http.Request, conn net.Conn) {
				if n == 1 {
					fmt.Fprint(conn, "HTTP/1.1 304 Not Modified\r\nContent-Length: 60\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
					return
				}
				answer(conn, "200 OK", "", "honest")
			})
			if _, _, unchanged, err := c.Manifest(t.Context(), "acme/web", "v1", held); !unchanged || err != nil {
				t.Errorf("%v, %v", unchanged, err)
			}
			synctest.Wait()
			if body, _, err := manifestOf(t.Context(), c, "acme/web", "v2"); string(body) != "honest" || err != nil {
				t.Errorf("%q, %v", body, err)
			}
		})
	})
}
