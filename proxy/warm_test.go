package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/verifier"
)

// questions counts what a gate is asked. The short path asks nothing.
type questions struct {
	proxy.Gate
	*atomic.Int64
}

func (q questions) Evaluate(ctx context.Context, r verifier.Registry, s policy.Subject) (policy.Decision, error) {
	q.Add(1)
	return q.Gate.Evaluate(ctx, r, s)
}

func (q questions) Scope(repository string) policy.Scope {
	q.Add(1)
	return q.Gate.Scope(repository)
}

func (q questions) Revoked(digest v1.Hash) bool {
	q.Add(1)
	return q.Gate.Revoked(digest)
}

// warmWorld is a world that tells which path an answer came by.
type warmWorld struct {
	*world
	asked atomic.Int64
}

func newWarmWorld(t testing.TB, change ...func(w *world, s *settings)) *warmWorld {
	t.Helper()
	w := &warmWorld{}
	w.world = newWorld(t, append(change, func(_ *world, s *settings) {
		s.gate = func(g proxy.Gate) proxy.Gate { return questions{g, &w.asked} }
	})...)
	return w
}

// byShort is the answer to a request that must come by the short path, or by
// the long one.
func (w *warmWorld) by(short bool, method, path string, headers ...string) answer {
	w.t.Helper()
	before := w.asked.Load()
	a := w.do(method, path, headers...)
	if got := w.asked.Load() == before; got != short {
		w.t.Fatalf("%s %s: by the short path: %v, want %v", method, path, got, short)
	}
	return a
}

func (w *warmWorld) short(path string, headers ...string) answer {
	w.t.Helper()
	return w.by(true, http.MethodGet, path, headers...)
}

func (w *warmWorld) long(path string, headers ...string) answer {
	w.t.Helper()
	return w.by(false, http.MethodGet, path, headers...)
}

// The short path gives the answer of the long one, to the last header.
func TestTheShortPathAnswersAsTheLongOne(t *testing.T) {
	image := lying.Image("web")
	etag := `"` + image.Digest().String() + `"`
	for name, s := range map[string]func(w *world, s *settings){
		"signed": func(*world, *settings) {},
		"unverified": func(_ *world, s *settings) {
			s.policies = []policy.Policy{{Match: match(t, "**"), AllowUnverified: true}}
		},
		"warn": enforcing(policy.Warn),
		"excepted": func(w *world, s *settings) {
			s.authorities, s.policies = nil, nil
			s.exceptions = []policy.Exception{{Match: match(t, "**"), Digests: []v1.Hash{image.Digest()}, Until: w.clock.now().AddDate(0, 0, 20), Reason: "INC-1"}}
		},
		"observe, when records are required": func(_ *world, s *settings) { s.ceiling, s.requireRecord = policy.Observe, true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, func(w *world, s *settings) {
				s.revision = func(r *proxy.Revision) {
					ghcr := r.Upstreams["ghcr.io"]
					ghcr.Hosts = []string{"mirror.example"}
					r.Upstreams["ghcr.io"], r.DefaultUpstream = ghcr, "ghcr.io"
				}
			}, s)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			for _, reference := range []string{"v1", image.Digest().String()} {
				first := w.long(manifestPath(web, reference))
				served(t, first, image)
				want := first.header.Clone()
				want.Del("Date")
				for path, host := range map[string]string{
					manifestPath(web, reference):                             "v",
					manifestPath("acme/web", reference):                      "mirror.example",
					manifestPath("acme/web", reference) + "?x=y":             "v",
					manifestPath("acme/web", reference) + "?ns=":             "", // see below
					manifestPath(web, reference) + "?ns=ghcr.io":             "mirror.example",
					manifestPath("acme/web", reference) + "?ns=" + "ghcr.io": "v",
				} {
					if host == "" {
						refused(t, w.get(path), 400, "NAME_INVALID", "")
						continue
					}
					for _, header := range [][]string{nil, {"Accept", "text/plain"}, {"Accept", "application/vnd.oci.image.index.v1+json"}, {"Authorization", "Basic eDp5"}, {"If-None-Match", `"x"`}} {
						a := w.short(path, append(header, "Host", host)...)
						served(t, a, image)
						a.header.Del("Date")
						if strings.Contains(path, "ns=") {
							checkHeaders(t, a.header, map[string]string{"Oci-Namespace": "ghcr.io"})
							a.header.Del("Oci-Namespace")
						}
						if diff := cmp.Diff(want, a.header); diff != "" {
							t.Fatalf("%s %v (-long +short):\n%s", path, header, diff)
						}
					}
					head := w.by(true, http.MethodHead, path, "Host", host)
					if head.header.Get("Content-Length") != want.Get("Content-Length") || head.status != 200 || len(head.body) > 0 {
						t.Errorf("HEAD: %d %v", head.status, head.header)
					}
					for _, known := range []string{etag, "W/" + etag, "*", `"x", ` + etag} {
						a := w.short(path, "Host", host, "If-None-Match", known)
						if a.status != 304 || len(a.body) > 0 || a.header.Get("X-Request-Id") != want.Get("X-Request-Id") || a.header.Get("Etag") != etag {
							t.Errorf("If-None-Match %s: %d %v", known, a.status, a.header)
						}
					}
				}
			}
			w.server.Close()
			for _, line := range w.logged("request") {
				if line["status"].(float64) != 400 && (line["repository"] != web || line["id"] == "" || line["reference"] == "") {
					t.Errorf("log %v", line)
				}
			}
			if got := w.records.list(); len(got) != 1 {
				t.Errorf("%d records", len(got))
			}
			if got, want := w.metric("vidimus_requests_total", "route", "manifest", "code", "304"), 40.0; got != want {
				t.Errorf("%v answers with 304 counted, want %v", got, want)
			}
		})
	}
}

// What is served although it is not allowed, or for another's sake, goes the
// long way every time; so does what is refused.
func TestWhatIsNotPlainlyAllowedGoesTheLongWay(t *testing.T) {
	image := lying.Image("web")
	for _, test := range []struct {
		name    string
		ceiling policy.Enforcement
		status  int
	}{{"enforce", policy.Enforce, 403}, {"warn", policy.Warn, 200}, {"observe", policy.Observe, 200}} {
		t.Run(test.name, func(t *testing.T) {
			w := newWarmWorld(t, enforcing(test.ceiling))
			w.up.Push("acme/web", image, "v1")
			for range 3 {
				for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
					if a := w.long(path); a.status != test.status {
						t.Fatalf("%s: %d", path, a.status)
					}
				}
				w.proxy.Close()
			}
			if test.status == 200 {
				w.long(blobPath(web, lying.Digest(image.Blobs[1])))
				w.proxy.Close()
				w.long(blobPath(web, lying.Digest(image.Blobs[1])))
				w.proxy.Close()
			}
		})
	}
	t.Run("evidence", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.Push("acme/web", image, "v1")
		signature := w.up.Sign("acme/web", image.Digest(), w.key)
		for range 3 {
			for _, path := range []string{manifestPath(web, tag(image.Digest())), byDigest(web, signature)} {
				served(t, w.long(path), signature)
			}
		}
	})
	t.Run("a stale tag", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.long(manifestPath(web, "v1")), image)
		w.clock.pass(time.Minute)
		w.up.Lie(lying.Manifest("acme/web", "v1"), lying.Status(500), lying.Status(500), lying.Status(500), lying.Status(500), lying.Status(500), lying.Status(500), lying.Status(500), lying.Status(500))
		for range 2 {
			a := w.long(manifestPath(web, "v1"))
			served(t, a, image)
			checkHeaders(t, a.header, map[string]string{"Age": "60"})
		}
	})
}

func TestTheShortPathKeepsToTheRecord(t *testing.T) {
	image := lying.Image("web")
	w := newWarmWorld(t, func(_ *world, s *settings) { s.requireRecord = true })
	w.up.PushSigned("acme/web", image, w.key, "v1", "v2")
	id := w.long(manifestPath(web, "v1")).header.Get("X-Request-Id")
	w.records.breakWith(errors.New("disk full"))
	if got := w.short(manifestPath(web, "v1")).header.Get("X-Request-Id"); got != id {
		t.Errorf("id %s, at first %s", got, id)
	}
	refused(t, w.long(manifestPath(web, "v2")), 503, "UNAVAILABLE", "inconclusive")
	refused(t, w.long(manifestPath(web, "v2")), 503, "UNAVAILABLE", "inconclusive")
	w.records.breakWith(nil)
	served(t, w.long(manifestPath(web, "v2")), image)
	served(t, w.short(manifestPath(web, "v2")), image)
	if diff := cmp.Diff([]string{"v1", "v2"}, w.references(id)); diff != "" {
		t.Error(diff)
	}
}

// Answers of every size come whole and with their length, in both versions of
// HTTP.
func TestAnswersOfEverySizeTellTheirLength(t *testing.T) {
	w := newWorld(t)
	second := httptest.NewUnstartedServer(w.proxy)
	second.EnableHTTP2 = true
	second.StartTLS()
	defer second.Close()
	for size := 1 << 10; size <= 6<<10; size += 31 {
		image := lying.ImageWith("web", lying.Layer{MediaType: types.MediaType("application/vnd.oci.image.layer.v1.tar+" + strings.Repeat("x", size)), Data: []byte("x")})
		w.up.Push("open/web", image, "v1")
		path := byDigest("ghcr.io/open/web", image)
		for version, client := range map[int]*http.Client{1: w.web, 2: second.Client()} {
			server := map[int]string{1: w.server.URL, 2: second.URL}[version]
			response, err := client.Get(server + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || string(body) != string(image.Body) || response.ProtoMajor != version || response.Header.Get("Content-Length") != fmt.Sprint(len(body)) {
				t.Fatalf("HTTP/%d, %d bytes: %v, %d bytes, %v", version, len(image.Body), err, len(body), response.Header)
			}
		}
	}
}

// What a client sends beside the name does not stay when the request is over.
func TestNothingKeepsALongRequestAlive(t *testing.T) {
	w := newWorld(t, func(_ *world, s *settings) { s.quiet = true })
	image := lying.Image("web")
	const requests, size = 400, 60 << 10
	tags := make([]string, requests)
	for i := range tags {
		tags[i] = "v" + strings.Repeat("1", i%100) + strings.Repeat("2", i/100)
	}
	w.up.Push("open/web", image, tags...)
	served(t, w.get(manifestPath("ghcr.io/open/web", tags[0])), image)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, tag := range tags {
		padding := strings.Repeat("x", size)
		r := httptest.NewRequest(http.MethodGet, manifestPath("open/web", tag)+"?ns=ghcr.io&x="+padding, nil)
		client := &sink{header: make(http.Header)}
		if w.proxy.ServeHTTP(client, r); client.status != http.StatusOK {
			t.Fatalf("%s: %d", tag, client.status)
		}
	}
	if got := len(w.records.list()); got != requests {
		t.Fatalf("%d records", got)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int(after.HeapAlloc) - int(before.HeapAlloc); grown > requests*size/4 {
		t.Errorf("%d bytes are held after %d requests of %d bytes", grown, requests, size)
	}
}

// The number of allocations of a warm answer is the handler's own: net/http has
// its own for each request.
func TestAWarmAnswerAllocatesLittle(t *testing.T) {
	w := newWorld(t, func(_ *world, s *settings) { s.quiet = true })
	image := imageOf(noiseBytes(1, 1<<10))
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.get(manifestPath(web, "v1"))
	for name, r := range warmRequests(image, image.Blobs[1], image.Blobs[1]) {
		most, ok := map[string]float64{
			"manifest by tag": 2, "manifest by digest": 2, "manifest by HEAD": 2, "manifest that is had": 2, "manifest by namespace": 8, "blob by HEAD": 24,
		}[name]
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			client := &sink{header: make(http.Header)}
			got := testing.AllocsPerRun(200, func() {
				clear(client.header)
				w.proxy.ServeHTTP(client, r)
			})
			if got > most {
				t.Errorf("%v allocations, at most %v are wanted", got, most)
			}
		})
	}
}
