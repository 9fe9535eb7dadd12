package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"vidimus/e2e/lying"
)

// sink is a client that takes everything and keeps nothing.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { s.bytes += len(p); return len(p), nil }

// warmRequests are requests that are answered from what is known.
func warmRequests(image lying.Content, small, large []byte) map[string]*http.Request {
	etag := `"` + image.Digest().String() + `"`
	known := httptest.NewRequest(http.MethodGet, manifestPath(web, "v1"), nil)
	known.Header.Set("If-None-Match", etag)
	return map[string]*http.Request{
		"manifest by tag":       httptest.NewRequest(http.MethodGet, manifestPath(web, "v1"), nil),
		"manifest by digest":    httptest.NewRequest(http.MethodGet, byDigest(web, image), nil),
		"manifest by namespace": httptest.NewRequest(http.MethodGet, "/v2/acme/web/manifests/v1?ns=ghcr.io", nil),
		"manifest by HEAD":      httptest.NewRequest(http.MethodHead, manifestPath(web, "v1"), nil),
		"manifest that is had":  known,
		"blob by HEAD":          httptest.NewRequest(http.MethodHead, blobPath(web, lying.Digest(small)), nil),
		"blob of 1 KiB":         httptest.NewRequest(http.MethodGet, blobPath(web, lying.Digest(small)), nil),
		"blob of 1 MiB":         httptest.NewRequest(http.MethodGet, blobPath(web, lying.Digest(large)), nil),
	}
}

// BenchmarkWarm measures answers from memory or disk, without the network.
func BenchmarkWarm(b *testing.B) {
	small, large := noiseBytes(11, 1<<10), noiseBytes(12, 1<<20)
	for place, where := range places {
		w := newWorld(b, where, func(_ *world, s *settings) { s.quiet = true })
		image := lying.ImageWith("web", lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: small}, lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: large})
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.get(manifestPath(web, "v1"))
		for name, r := range warmRequests(image, small, large) {
			b.Run(name+" "+place, func(b *testing.B) {
				b.ReportAllocs()
				client := &sink{header: make(http.Header)}
				for b.Loop() {
					clear(client.header)
					client.bytes = 0
					w.proxy.ServeHTTP(client, r)
				}
				b.SetBytes(int64(client.bytes))
				if client.status != http.StatusOK && client.status != http.StatusNotModified {
					b.Fatal(client.status)
				}
			})
		}
	}
}

// BenchmarkWarmAsUser measures what it costs to ask who a caller is and what he
// may do.
func BenchmarkWarmAsUser(b *testing.B) {
	w := newWorld(b, guarded("anonymous | docker.io/** | pull", "other | ghcr.io/** | pull", "ci | ghcr.io/acme/** !ghcr.io/acme/secret | pull push"),
		func(_ *world, s *settings) { s.quiet = true })
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.get(manifestPath(web, "v1"), as("ci")...)
	r := httptest.NewRequest(http.MethodGet, manifestPath(web, "v1"), nil)
	r.Header.Set(as("ci")[0], as("ci")[1])
	client := &sink{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(client.header)
		w.proxy.ServeHTTP(client, r)
	}
	if client.status != http.StatusOK {
		b.Fatal(client.status)
	}
}

// BenchmarkWarmConnections measures answers of a whole server to 32 connections
// on loopback, clients included. Their requests are bytes, so that clients cost
// little.
func BenchmarkWarmConnections(b *testing.B) {
	w := newWorld(b, onDisk, func(_ *world, s *settings) { s.quiet = true })
	image := imageOf(noiseBytes(11, 1<<10))
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.get(manifestPath(web, "v1"))
	for name, path := range map[string]string{"manifest by tag": manifestPath(web, "v1"), "manifest by digest": byDigest(web, image)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: vidimus\r\n\r\n", path)
			b.RunParallel(func(pb *testing.PB) {
				c, err := net.Dial("tcp", strings.TrimPrefix(w.server.URL, "http://"))
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				from := bufio.NewReader(c)
				for pb.Next() {
					if _, err := io.WriteString(c, request); err != nil {
						b.Error(err)
						return
					}
					if err := takeAnswer(from); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// takeAnswer reads one answer with a Content-Length, and little of it.
func takeAnswer(from *bufio.Reader) error {
	length := -1
	for {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			if _, err := fmt.Sscan(value, &length); err != nil {
				return err
			}
		}
	}
	if length <= 0 {
		return fmt.Errorf("an answer of %d bytes", length)
	}
	_, err := from.Discard(length)
	return err
}
