package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vidimus/signer"
)

// filled returns an origin with one image, signed or not.
func filled(t *testing.T, signed bool, layers ...int64) (*origin, image) {
	t.Helper()
	o := newOrigin(newLibrary(1 << 20))
	key, err := signer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	images, err := o.fill(t.Context(), key, []spec{{Repository: "bench/web", Layers: layers, Signed: signed}})
	if err != nil {
		t.Fatal(err)
	}
	return o, images[0]
}

func ask(o http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, r)
	return w.Result()
}

func read(t *testing.T, r *http.Response) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(digest[:])
}

func TestTheOriginServesWhatItSaysItMade(t *testing.T) {
	o, i := filled(t, false, 100_000, ownSize)
	body := read(t, ask(o, "GET", "/v2/bench/web/manifests/v1"))
	if sum(body) != i.Manifest.Digest || int64(len(body)) != i.Manifest.Size {
		t.Errorf("the tag names %s of %d bytes, want %+v", sum(body), len(body), i.Manifest)
	}
	var manifest struct {
		Config part
		Layers []part
	}
	if err := json.Unmarshal(body, &manifest); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]part{i.Config}, i.Layers...), append([]part{manifest.Config}, manifest.Layers...)); diff != "" {
		t.Errorf("what the manifest lists (-announced +listed):\n%s", diff)
	}
	for _, p := range append(i.Layers, i.Config) {
		data := read(t, ask(o, "GET", "/v2/bench/web/blobs/"+p.Digest))
		if sum(data) != p.Digest || int64(len(data)) != p.Size {
			t.Errorf("%s is served as %s of %d bytes, want %d", p.Digest, sum(data), len(data), p.Size)
		}
	}
}

func TestBlobsDifferByNameAndAreTheSameInEveryRun(t *testing.T) {
	a, b := newLibrary(1<<16).blob("a", 5000), newLibrary(1<<16).blob("b", 5000)
	if a.digest == b.digest {
		t.Error("two names have the same blob")
	}
	if again := newLibrary(1<<17).blob("a", 5000); again.digest != a.digest {
		t.Errorf("the same name has %s and %s", a.digest, again.digest)
	}
}

func TestTheOriginAnswersAsARegistry(t *testing.T) {
	o, i := filled(t, false, 1000)
	blob, manifest := "/v2/bench/web/blobs/"+i.Layers[0].Digest, "/v2/bench/web/manifests/"
	whole := read(t, ask(o, "GET", blob))
	etag := `"` + i.Manifest.Digest + `"`
	for name, c := range map[string]struct {
		method, path string
		header       []string
		status       int
		body         string // "error" for one of the API's
		want         map[string]string
	}{
		"the API":              {"GET", "/v2/", nil, 200, "", nil},
		"manifest by digest":   {"HEAD", manifest + i.Manifest.Digest, nil, 200, "", map[string]string{"Etag": etag, "Docker-Content-Digest": i.Manifest.Digest, "Content-Type": "application/vnd.oci.image.manifest.v1+json"}},
		"manifest unchanged":   {"GET", manifest + tag, []string{"If-None-Match", `"x", W/` + etag}, 304, "", map[string]string{"Etag": etag}},
		"manifest changed":     {"HEAD", manifest + tag, []string{"If-None-Match", `"x"`}, 200, "", nil},
		"no such tag":          {"GET", manifest + "v2", nil, 404, "error", nil},
		"no such repository":   {"GET", "/v2/bench/none/manifests/v1", nil, 404, "error", nil},
		"no such blob":         {"GET", "/v2/bench/web/blobs/" + i.Manifest.Digest, nil, 404, "error", nil},
		"no referrers API":     {"GET", "/v2/bench/web/referrers/" + i.Manifest.Digest, nil, 404, "error", nil},
		"no such path":         {"GET", "/", nil, 404, "error", nil},
		"nothing is pushed":    {"PUT", manifest + tag, nil, 405, "error", nil},
		"head of a blob":       {"HEAD", blob, nil, 200, "", map[string]string{"Content-Length": "1000", "Accept-Ranges": "bytes"}},
		"the middle":           {"GET", blob, []string{"Range", "bytes=10-19"}, 206, string(whole[10:20]), map[string]string{"Content-Range": "bytes 10-19/1000", "Content-Length": "10"}},
		"across the seam":      {"GET", blob, []string{"Range", "bytes=960-975"}, 206, string(whole[960:976]), nil},
		"from somewhere":       {"GET", blob, []string{"Range", "bytes=990-"}, 206, string(whole[990:]), map[string]string{"Content-Range": "bytes 990-999/1000"}},
		"beyond the end":       {"GET", blob, []string{"Range", "bytes=990-5000"}, 206, string(whole[990:]), map[string]string{"Content-Range": "bytes 990-999/1000"}},
		"the end":              {"GET", blob, []string{"Range", "bytes=-5"}, 206, string(whole[995:]), nil},
		"outside":              {"GET", blob, []string{"Range", "bytes=1000-"}, 416, "error", map[string]string{"Content-Range": "bytes */1000"}},
		"several ranges":       {"GET", blob, []string{"Range", "bytes=0-1,5-6"}, 200, string(whole), nil},
		"a range of nonsense":  {"GET", blob, []string{"Range", "bytes=5-1"}, 200, string(whole), nil},
		"a range of something": {"GET", blob, []string{"Range", "lines=1-2"}, 200, string(whole), nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(o, c.method, c.path, c.header...)
			body := string(read(t, r))
			if c.body == "error" {
				var said struct{ Errors []struct{ Code string } }
				if json.Unmarshal([]byte(body), &said) != nil || len(said.Errors) != 1 || said.Errors[0].Code == "" {
					t.Errorf("not an error of the API: %q", body)
				}
				body = "error"
			}
			if r.StatusCode != c.status || body != c.body {
				t.Errorf("%d %.60q, want %d %.60q", r.StatusCode, body, c.status, c.body)
			}
			for key, value := range c.want {
				if got := r.Header.Get(key); got != value {
					t.Errorf("%s: %q, want %q", key, got, value)
				}
			}
		})
	}
}

func TestTheOriginCountsByKindAndRepository(t *testing.T) {
	o, i := filled(t, true, 1000, 2000)
	hex := strings.TrimPrefix(i.Manifest.Digest, "sha256:")
	signature := read(t, ask(o, "GET", "/v2/bench/web/manifests/sha256-"+hex+".sig"))
	var manifest struct{ Layers []part }
	if err := json.Unmarshal(signature, &manifest); err != nil || len(manifest.Layers) != 1 {
		t.Fatalf("the signature image is %s", signature)
	}
	for _, path := range []string{
		"manifests/v1", "manifests/" + i.Manifest.Digest, "manifests/sha256-" + hex + ".cosign", "manifests/sha256-" + hex,
		"referrers/" + i.Manifest.Digest, "blobs/" + manifest.Layers[0].Digest, "blobs/" + i.Config.Digest, "blobs/" + i.Layers[0].Digest, "tags/list",
	} {
		ask(o, "GET", "/v2/bench/web/"+path)
	}
	ask(o, "HEAD", "/v2/bench/web/manifests/v1")
	ask(o, "GET", "/v2/")
	before := o.tally.read("bench/web")
	ask(o, "GET", "/v2/bench/web/blobs/"+i.Layers[1].Digest, "Range", "bytes=0-99")
	ask(o, "GET", "/v2/bench/other/manifests/v1")

	want := counters{
		Requests: map[string]int{
			kindManifest: 2, "HEAD " + kindManifest: 1, kindSignature: 1, kindLegacy: 1, kindReferrers: 2,
			kindPayload: 1, kindBlob: 2, kindOther: 1, kindPing: 1,
		},
		Bytes: map[string]int64{
			manifest.Layers[0].Digest: manifest.Layers[0].Size, i.Config.Digest: i.Config.Size, i.Layers[0].Digest: 1000,
		},
	}
	if diff := cmp.Diff(want, before); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if got := before.total(kindBlob, kindOther); got != 9 {
		t.Errorf("%d requests besides those of two kinds, want 9", got)
	}
	later := o.tally.read("bench/web").since(before)
	if later.total() != 1 || later.Requests[kindBlob] != 1 || later.Bytes[i.Layers[1].Digest] != 100 {
		t.Errorf("one request later: %+v", later)
	}
}

func TestTheFirstAnswerOfAConnectionTakesTwoLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(newLibrary(1 << 10))
		o.pace.Store(&pace{Latency: 20 * time.Millisecond})
		ctx := o.server().ConnContext(t.Context(), nil)
		for i, want := range []time.Duration{40, 20, 20} {
			begun := time.Now()
			o.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/v2/", nil))
			if took := time.Since(begun); took != want*time.Millisecond {
				t.Errorf("answer %d took %v, want %dms", i, took, want)
			}
		}
		if n := o.tally.read("").Connections; n != 1 {
			t.Errorf("%d connections were counted, want 1", n)
		}
	})
}

// timed notes when bytes arrive, and holds the n-th write up.
type timed struct {
	httptest.ResponseRecorder
	begun   time.Time
	arrived []arrival
	holdAt  int
	hold    time.Duration
}

type arrival struct {
	bytes int
	after time.Duration
}

func (w *timed) Write(p []byte) (int, error) {
	if len(w.arrived) == w.holdAt {
		time.Sleep(w.hold)
	}
	w.arrived = append(w.arrived, arrival{len(p), time.Since(w.begun)})
	return w.ResponseRecorder.Write(p)
}

func send(p pace, b blob, w *timed) error {
	w.Body, w.begun = new(bytes.Buffer), time.Now()
	return p.send(w, b, 0, b.size(), func(int64) {})
}

func TestABodyComesAtItsRate(t *testing.T) {
	b := newLibrary(1<<20).blob("layer", 1_000_000)
	synctest.Test(t, func(t *testing.T) {
		w := &timed{holdAt: -1}
		if err := send(pace{Rate: 100_000_000}, b, w); err != nil {
			t.Fatal(err)
		}
		if sum(w.Body.Bytes()) != b.digest {
			t.Error("other bytes came")
		}
		at := 0
		for _, a := range w.arrived {
			at += a.bytes
			if want := time.Duration(at) * 10 * time.Nanosecond; (a.after - want).Abs() > time.Microsecond {
				t.Errorf("byte %d came after %v, want %v", at, a.after, want)
			}
		}
		if first := w.arrived[0]; first.bytes != firstPiece {
			t.Errorf("the first piece has %d bytes, want %d", first.bytes, firstPiece)
		}
	})
}

func TestABodyThatWasHeldUpCatchesUpALittleOnly(t *testing.T) {
	b := newLibrary(1<<20).blob("layer", 1_000_000)
	synctest.Test(t, func(t *testing.T) {
		w := &timed{holdAt: 1, hold: time.Second}
		if err := send(pace{Rate: 100_000_000}, b, w); err != nil {
			t.Fatal(err)
		}
		// The second piece was due within the 10 ms that the whole takes.
		last := w.arrived[len(w.arrived)-1].after
		if least, most := time.Second, time.Second+10*time.Millisecond; last < least || last > most {
			t.Errorf("the body ended after %v, want between %v and %v", last, least, most)
		}
		if second := w.arrived[2].after; second-w.arrived[1].after > time.Millisecond {
			t.Errorf("nothing was caught up with: %+v", w.arrived)
		}
	})
}

func TestABodyWithoutARateComesAtOnce(t *testing.T) {
	b := newLibrary(1<<20).blob("layer", 1_000_000)
	synctest.Test(t, func(t *testing.T) {
		w := &timed{holdAt: -1}
		if err := send(pace{}, b, w); err != nil || sum(w.Body.Bytes()) != b.digest {
			t.Fatalf("%d bytes came, with %v", w.Body.Len(), err)
		}
		if took := time.Since(w.begun); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}
