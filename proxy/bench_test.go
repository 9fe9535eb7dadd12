package proxy_test

import (
	"net/http"
	"net/http/httptest"
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

// BenchmarkWarm measures answers from memory or disk, without the network.
func BenchmarkWarm(b *testing.B) {
	small, large := noiseBytes(11, 1<<10), noiseBytes(12, 1<<20)
	for place, where := range places {
		w := newWorld(b, where, func(_ *world, s *settings) { s.quiet = true })
		image := lying.ImageWith("web", lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: small}, lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: large})
		w.up.PushSigned("acme/web", image, w.key, "v1")
		for name, path := range map[string]string{
			"manifest by tag": manifestPath(web, "v1"), "manifest by digest": byDigest(web, image),
			"blob of 1 KiB": blobPath(web, lying.Digest(small)), "blob of 1 MiB": blobPath(web, lying.Digest(large)),
		} {
			if name[0] == 'b' {
				w.get(manifestPath(web, "v1"))
			}
			if a := w.get(path); a.status != 200 || a.broken != nil {
				b.Fatal(a)
			}
			b.Run(name+" "+place, func(b *testing.B) {
				b.ReportAllocs()
				r := httptest.NewRequest(http.MethodGet, path, nil)
				client := &sink{header: make(http.Header)}
				for b.Loop() {
					clear(client.header)
					client.bytes = 0
					w.proxy.ServeHTTP(client, r)
				}
				b.SetBytes(int64(client.bytes))
				if client.status != http.StatusOK {
					b.Fatal(client.status)
				}
			})
		}
	}
}
