package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// plainRegistry starts a registry that asks for no credentials.
func plainRegistry(t *testing.T, handler http.HandlerFunc, change func(*Config)) (*host, *Client) {
	t.Helper()
	w := newWorld(t)
	h := w.serve("https", "registry.example", handler)
	return h, w.client(h, change)
}

func TestManifest(t *testing.T) {
	t.Run("is asked for as OCI and docker have it, uncompressed, whoever asks", func(t *testing.T) {
		h, c := plainRegistry(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
			fmt.Fprint(rw, "bytes")
		}, func(config *Config) { config.UserAgent = "vidimus/1.2" })
		digest := digestOf(t, "bytes").String()
		for _, reference := range []string{"v1", digest} {
			body, contentType, err := manifestOf(t.Context(), c, "acme/web", reference)
			if err != nil || string(body) != "bytes" || contentType != "application/vnd.oci.image.index.v1+json; charset=utf-8" {
				t.Errorf("got %q, %q, %v", body, contentType, err)
			}
			got := h.last()
			if got.line != "GET /v2/acme/web/manifests/"+reference {
				t.Errorf("asked %s", got.line)
			}
			for name, want := range map[string]string{
				"Accept":          "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json",
				"Accept-Encoding": "identity",
				"User-Agent":      "vidimus/1.2",
				"Cookie":          "",
			} {
				if got := got.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		}
	})

	t.Run("cookies are not kept", func(t *testing.T) {
		h, c := plainRegistry(t, func(rw http.ResponseWriter, _ *http.Request) {
			http.SetCookie(rw, &http.Cookie{Name: "a", Value: "b"})
		}, nil)
		for range 2 {
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.last().header.Get("Cookie"); got != "" {
			t.Errorf("sent %q", got)
		}
	})

	t.Run("a forged digest header changes nothing", func(t *testing.T) {
		_, c := plainRegistry(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Add("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			rw.Header().Add("Docker-Content-Digest", "nonsense")
			fmt.Fprint(rw, "bytes")
		}, nil)
		body, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		if err != nil || string(body) != "bytes" {
			t.Errorf("got %q, %v", body, err)
		}
	})
}

func TestManifestAnswers(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		kind   string
		says   string
		asked  int
	}{
		{"401 without a challenge", status(401), KindUnauthorized, "401", 1},
		{"403", status(403), KindForbidden, "403 Forbidden", 1},
		{"451", status(451), KindForbidden, "451", 1},
		{"400", status(400), KindMismatch, "400", 1},
		{"429", status(429), KindRateLimited, "429", 3},
		{"500", status(500), KindUnavailable, "500", 1},
		{"502", status(502), KindUnavailable, "502", 3},
		{"503", status(503), KindUnavailable, "503", 3},
		{"504", status(504), KindUnavailable, "504", 3},
		{"206 that nobody asked for", status(206), KindMismatch, "206", 1},
		{"204", status(204), KindMismatch, "204", 1},
		{"304 that nobody asked for", status(304), KindMismatch, "304", 1},
		{"a status that does not exist", status(799), KindUnavailable, "799", 1},
		{"a known error code", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(403)
			fmt.Fprint(rw, `{"errors":[{"code":"DENIED","message":"hunter2"}]}`)
		}, KindForbidden, "403 Forbidden (DENIED)", 1},
		{"an unknown error code", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(403)
			fmt.Fprint(rw, `{"errors":[{"code":"HUNTER2"}]}`)
		}, KindForbidden, "403 Forbidden", 1},
		{"4 MiB and a byte, announced", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(4<<20+1))
			rw.Write(make([]byte, 4<<20+1))
		}, KindMismatch, "larger than 4194304 bytes", 1},
		{"without an end", endless, KindMismatch, "larger than 4194304 bytes", 1},
		{"gzip", encoded("gzip"), KindMismatch, "Content-Encoding", 1},
		{"identity and zstd", encoded("identity, zstd"), KindMismatch, "Content-Encoding", 1},
		{"identity", encoded("Identity"), "none", "", 1},
		{"shorter than announced", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "10")
			fmt.Fprint(rw, "short")
		}, KindUnavailable, "broke", 3},
		{"a connection that is cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, KindUnavailable, "broke", 3},
		{"a header of 100 KB", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-Bomb", strings.Repeat("x", 100<<10))
		}, KindMismatch, "oversized", 1},
		{"a Content-Length that is no number", unparsed("Content-Length: x\r\n\r\n"), KindMismatch, "malformed", 1},
		{"two Content-Lengths", unparsed("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), KindMismatch, "malformed", 1},
		{"an unknown Transfer-Encoding", unparsed("Transfer-Encoding: x\r\n\r\n"), KindMismatch, "malformed", 1},
		{"a chunk that is none", unparsed("Transfer-Encoding: chunked\r\n\r\nx\r\n"), KindMismatch, "malformed", 1},
		{"a header that is none", unparsed("x\r\n\r\n"), KindMismatch, "malformed", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, c := plainRegistry(t, tt.answer, nil)
			body, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
			wantKind(t, err, tt.kind)
			if err != nil && (body != nil || !strings.Contains(err.Error(), "upstream reg: GET /v2/acme/web/manifests/v1: ") || !strings.Contains(err.Error(), tt.says) || strings.Contains(strings.ToLower(err.Error()), "hunter2")) {
				t.Errorf("%d bytes and %q, which should say %q", len(body), err, tt.says)
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v says that there is no such thing", err)
			}
			if got := len(h.lines()); got != tt.asked {
				t.Errorf("asked %d times, want %d", got, tt.asked)
			}
		})
	}
	t.Run("404 is no such thing", func(t *testing.T) {
		h, c := plainRegistry(t, http.NotFound, nil)
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		if !errors.Is(err, fs.ErrNotExist) || kindOf(err) != "" || len(h.lines()) != 1 {
			t.Errorf("got %v after %d requests", err, len(h.lines()))
		}
	})
}

func endless(rw http.ResponseWriter, r *http.Request) {
	chunk := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := rw.Write(chunk); err != nil {
			return
		}
	}
}

// unparsed answers with a header and body that net/http would not write.
func unparsed(rest string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { raw(rw, "HTTP/1.1 200 OK\r\n"+rest) }
}

func encoded(coding string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", coding)
		fmt.Fprint(rw, "bytes")
	}
}

func TestEndlessAnswersTakeBoundedMemory(t *testing.T) {
	_, c := plainRegistry(t, endless, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
	wantKind(t, err, KindMismatch)
	_, _, err = c.Tags(t.Context(), "acme/web", 0, "")
	wantKind(t, err, KindMismatch)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
}

func TestBlob(t *testing.T) {
	const content = "0123456789abcdef"
	digest := digestOf(t, content)
	ranged := func(contentRange, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Range", contentRange)
			rw.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(rw, body)
		}
	}
	announced := func(length int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(length))
			fmt.Fprint(rw, body)
		}
	}
	chunked := func(status int, header, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			if header != "" {
				rw.Header().Set("Content-Range", header)
			}
			rw.WriteHeader(status)
			rw.(http.Flusher).Flush()
			fmt.Fprint(rw, body)
		}
	}
	for _, tt := range []struct {
		name     string
		answer   http.HandlerFunc
		offset   int64
		body     string
		size     int64
		openKind string // of Blob's error
		readKind string // of the last Read's error; "none" is io.EOF
	}{
		{"whole", announced(16, content), 0, content, 16, "none", "none"},
		{"of unknown size", chunked(200, "", content), 0, content, -1, "none", "none"},
		{"shorter than announced", announced(16, content[:10]), 0, content[:10], 16, "none", KindUnavailable},
		{"compressed", encoded("gzip"), 0, "", 0, KindMismatch, ""},
		{"a part that nobody asked for", ranged("bytes 0-15/16", content), 0, "", 0, KindMismatch, ""},
		{"from an offset", ranged("bytes 10-15/16", content[10:]), 10, content[10:], 16, "none", "none"},
		{"from an offset, of unknown size", ranged("bytes 10-15/*", content[10:]), 10, content[10:], -1, "none", "none"},
		{"from an offset, a part of the rest", ranged("bytes 10-12/16", content[10:13]), 10, content[10:13], 16, "none", KindUnavailable},
		{"from an offset, longer than announced", chunked(206, "bytes 10-15/16", content[10:]+"more"), 10, content[10:], 16, "none", KindMismatch},
		{"from an offset, shorter than announced", chunked(206, "bytes 10-15/16", content[10:14]), 10, content[10:14], 16, "none", KindUnavailable},
		{"from another offset", ranged("bytes 9-15/16", content[9:]), 10, "", 0, KindMismatch, ""},
		{"from an offset without telling", ranged("", content[10:]), 10, "", 0, KindMismatch, ""},
		{"from an offset that it does not end after", ranged("bytes 10-9/16", content[10:]), 10, "", 0, KindMismatch, ""},
		{"from an offset, with a size below its end", ranged("bytes 10-15/15", content[10:]), 10, "", 0, KindMismatch, ""},
		{"from an offset, with a length that is not the range's", ranged("bytes 10-15/16", content[10:]+"more"), 10, "", 0, KindMismatch, ""},
		{"from an offset in overflowing numbers", ranged("bytes 10-18446744073709551615/18446744073709551616", "x"), 10, "", 0, KindMismatch, ""},
		{"whole in answer to an offset", announced(16, content), 10, content[10:], 16, "none", "none"},
		{"whole, of unknown size, in answer to an offset", chunked(200, "", content), 10, content[10:], -1, "none", "none"},
		{"whole, below the offset", announced(5, content[:5]), 10, "", 0, KindMismatch, ""},
		{"whole, cut below the offset", chunked(200, "", content[:5]), 10, "", -1, "none", KindUnavailable},
		{"416 for ever", chunked(416, "bytes */16", ""), 10, "", 0, KindMismatch, ""},
		{"whole, after 416", func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				rw.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			announced(16, content)(rw, r)
		}, 10, content[10:], 16, "none", "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, c := plainRegistry(t, tt.answer, nil)
			body, size, err := c.Blob(t.Context(), "acme/web", digest, tt.offset)
			wantKind(t, err, tt.openKind)
			wantRange := ""
			if tt.offset > 0 {
				wantRange = "bytes=10-"
			}
			if got := h.first().header.Get("Range"); got != wantRange {
				t.Errorf("Range: %q, want %q", got, wantRange)
			}
			if err != nil {
				return
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if string(got) != tt.body || size != tt.size {
				t.Errorf("got %q of %d, want %q of %d", got, size, tt.body, tt.size)
			}
			wantKind(t, err, tt.readKind)
			if tt.readKind == KindUnavailable && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v does not match io.ErrUnexpectedEOF", err)
			}
			if _, again := body.Read(make([]byte, 1)); again == nil || err != nil && again != err {
				t.Errorf("then %v", again)
			}
		})
	}

	t.Run("404 is no such thing, also at a host that it redirects to", func(t *testing.T) {
		w := newWorld(t)
		other := w.serve("https", "cdn.test", http.NotFound)
		registry := w.serve("https", "registry.example", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, other.url(), http.StatusTemporaryRedirect)
		})
		if _, _, err := w.client(registry, nil).Blob(t.Context(), "acme/web", digest, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a range is asked for after a redirect as well", func(t *testing.T) {
		w, registry, other, _ := redirectWorld(t, ranged("bytes 10-15/16", content[10:]))
		body, _, err := w.client(registry, nil).Blob(t.Context(), "acme/web", digest, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if got, err := io.ReadAll(body); string(got) != content[10:] || err != nil || other.last().header.Get("Range") != "bytes=10-" {
			t.Errorf("got %q, %v", got, err)
		}
	})

	t.Run("closing early ends the transfer", func(t *testing.T) {
		ended := make(chan struct{})
		_, c := plainRegistry(t, func(rw http.ResponseWriter, r *http.Request) {
			defer close(ended)
			endless(rw, r)
		}, nil)
		body, _, err := c.Blob(t.Context(), "acme/web", digest, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := body.Read(make([]byte, 10)); err != nil {
			t.Error(err)
		}
		body.Close()
		<-ended
	})

	t.Run("the context ends the transfer", func(t *testing.T) {
		_, c := plainRegistry(t, endless, nil)
		ctx, cancel := context.WithCancel(t.Context())
		body, _, err := c.Blob(ctx, "acme/web", digest, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		cancel()
		if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestExists(t *testing.T) {
	for status, want := range map[int]string{200: "none", 404: "", 403: KindForbidden, 500: KindUnavailable, 202: KindMismatch, 206: KindMismatch} {
		h, c := plainRegistry(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "123456789012")
			rw.Header().Set("Content-Encoding", "gzip")
			rw.WriteHeader(status)
		}, nil)
		digest := digestOf(t, "x")
		size, err := c.Exists(t.Context(), "acme/web", digest)
		wantKind(t, err, want)
		if err == nil && size != 123456789012 {
			t.Errorf("its size is %d", size)
		}
		if errors.Is(err, fs.ErrNotExist) != (status == 404) || h.last().line != "HEAD /v2/acme/web/blobs/"+digest.String() {
			t.Errorf("%d: %v after %s", status, err, h.last().line)
		}
	}
}
