package proxy_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vidimus/e2e/lying"
)

// pull fetches an image as a client does that has none of it: config and layers
// after the manifest.
func pull(t *testing.T, w *world, repository, reference string, image lying.Content) {
	t.Helper()
	served(t, w.get(manifestPath(repository, reference)), image)
	for _, blob := range image.Blobs {
		servedBlob(t, w.get(blobPath(repository, lying.Digest(blob))), blob)
	}
}

// kept waits until the store has what was pulled: a client has it before.
func kept(t *testing.T, w *world, blobs ...[]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, blob := range blobs {
		for {
			held, _, err := w.store.Open(ctx, lying.Digest(blob))
			if err == nil {
				held.Close()
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s is not kept: %v", lying.Digest(blob), err)
			}
			runtime.Gosched()
		}
	}
}

func TestExactRequests(t *testing.T) {
	layer := noiseBytes(8, 300<<10)
	image := imageOf(layer)
	const v2 = " /v2/acme/web/"
	manifest := "GET" + v2 + "manifests/"
	blob := func(method string, content []byte) string {
		return method + v2 + "blobs/" + lying.Digest(content).String()
	}
	cold := func(reference string) []string {
		return []string{manifest + reference, manifest + tag(image.Digest()), blob("GET", image.Blobs[0]), blob("GET", layer)}
	}
	begin := func(t *testing.T) *world {
		w := newWorld(t, onDisk)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		return w
	}
	referrers := "GET" + v2 + "referrers/" + image.Digest().String()
	t.Run("a cold verified manifest makes 3, two of them at once", func(t *testing.T) {
		w := begin(t)
		sig := lying.Manifest("acme/web", tag(image.Digest()))
		listed := lying.Referrers("acme/web", image.Digest())
		held := make(chan struct{})
		w.up.Lie(sig, lying.Hang(held))
		together(t, 1, func() { served(t, w.get(manifestPath(web, "v1")), image) }, func() {
			for _, match := range []lying.Match{sig, listed} {
				if _, err := w.up.Await(t.Context(), match, 1); err != nil {
					t.Error(err)
				}
			}
			close(held)
		})
		if n := len(w.up.Requests()); n != 3 {
			t.Errorf("%d requests: %v", n, w.up.Log())
		}
		asked(t, w.up, manifest+"v1", manifest+tag(image.Digest()), referrers)
	})
	t.Run("a payload that cannot be predicted makes one more", func(t *testing.T) {
		w := begin(t)
		signature := w.up.SignAs("acme/web", image.Digest(), "", map[string]any{"env": "prod"}, w.key)
		served(t, w.get(manifestPath(web, "v1")), image)
		asked(t, w.up, manifest+"v1", manifest+tag(image.Digest()), blob("GET", signature.Blobs[1]))
	})
	t.Run("a payload under any name of the repository makes none more", func(t *testing.T) {
		for _, name := range []string{"", "ghcr.io/acme/web", "HOST/acme/web", "ghcr.io/acme/web:v1"} {
			w := begin(t)
			w.up.SignAs("acme/web", image.Digest(), strings.Replace(name, "HOST", w.up.Host, 1), nil, w.key)
			served(t, w.get(manifestPath(web, "v1")), image)
			asked(t, w.up, manifest+"v1", manifest+tag(image.Digest()))
		}
	})
	t.Run("the rest of a cold pull makes one for each blob", func(t *testing.T) {
		for _, reference := range []string{"v1", image.Digest().String()} {
			w := begin(t)
			pull(t, w, web, reference, image)
			asked(t, w.up, cold(reference)...)
		}
	})
	t.Run("containerd's HEAD, HEAD by digest and GET make what one GET makes", func(t *testing.T) {
		w := begin(t)
		if a := w.head(manifestPath(web, "v1")); a.status != 200 {
			t.Fatalf("HEAD: %d", a.status)
		}
		if a := w.head(byDigest(web, image)); a.status != 200 {
			t.Fatalf("HEAD: %d", a.status)
		}
		pull(t, w, web, image.Digest().String(), image)
		asked(t, w.up, cold("v1")...)
		if got := w.records.list(); len(got) != 1 {
			t.Errorf("%d records of one pull", len(got))
		}
	})
	t.Run("a warm pull by digest makes none", func(t *testing.T) {
		w := begin(t)
		pull(t, w, web, "v1", image)
		w.up.Forget()
		pull(t, w, web, image.Digest().String(), image)
		asked(t, w.up)
	})
	t.Run("a warm pull by tag makes none within the tag's time, and one after it", func(t *testing.T) {
		w := begin(t)
		pull(t, w, web, "v1", image)
		w.up.Forget()
		w.clock.pass(29 * time.Second)
		pull(t, w, web, "v1", image)
		asked(t, w.up)
		w.clock.pass(2 * time.Second)
		pull(t, w, web, "v1", image)
		asked(t, w.up, manifest+"v1")
	})
	t.Run("a warm pull by digest after a restart asks for the signature alone", func(t *testing.T) {
		w := begin(t)
		pull(t, w, web, "v1", image)
		w.restart()
		w.up.Forget()
		pull(t, w, web, image.Digest().String(), image)
		asked(t, w.up, manifest+tag(image.Digest()))
	})
	t.Run("an unsigned image makes 5", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", image, "v1")
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		asked(t, w.up, manifest+"v1", manifest+tag(image.Digest()), manifest+lying.LegacyTag(image.Digest()), referrers, manifest+lying.FallbackTag(image.Digest()))
		if got := w.records.list(); len(got) != 1 {
			t.Errorf("%d records", len(got))
		}
	})
	t.Run("an image that nobody verifies makes 3", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", image, "v1")
		pull(t, w, "ghcr.io/open/web", "v1", image)
		asked(t, w.up, "GET /v2/open/web/manifests/v1", "GET /v2/open/web/blobs/"+lying.Digest(image.Blobs[0]).String(),
			"GET /v2/open/web/blobs/"+lying.Digest(layer).String())
	})
	t.Run("a child of a signed index makes one more than its own 3", func(t *testing.T) {
		w := newWorld(t)
		index := lying.Index(image)
		w.up.Push("acme/web", index, "v1")
		w.up.Sign("acme/web", index.Digest(), w.key)
		served(t, w.get(manifestPath(web, "v1")), index)
		pull(t, w, web, image.Digest().String(), image)
		asked(t, w.up, manifest+"v1", manifest+tag(index.Digest()),
			manifest+image.Digest().String(), blob("GET", image.Blobs[0]), blob("GET", layer))
	})
	t.Run("a warm pull through nested indexes makes none", func(t *testing.T) {
		w := newWorld(t)
		inner := lying.Index(image)
		middle := lying.Index(inner)
		top := lying.Index(middle)
		w.up.PushSigned("acme/web", top, w.key, "v1")
		down := func() {
			for _, content := range []lying.Content{top, middle, inner} {
				served(t, w.get(byDigest(web, content)), content)
			}
			pull(t, w, web, image.Digest().String(), image)
		}
		down()
		for _, line := range w.up.Log() {
			if strings.HasSuffix(line, lying.FallbackTag(top.Digest())) {
				t.Errorf("asked for a list of referrers: %s", line)
			}
		}
		w.up.Forget()
		down()
		asked(t, w.up)
	})
	t.Run("a second repository that has the same blobs makes a HEAD for each", func(t *testing.T) {
		w := begin(t)
		pull(t, w, web, "v1", image)
		kept(t, w, image.Blobs...) // else the second may come while the first is written
		w.up.PushSigned("acme/two", image, w.key, "v1")
		w.up.Forget()
		pull(t, w, "ghcr.io/acme/two", "v1", image)
		const two = " /v2/acme/two/"
		asked(t, w.up, "GET"+two+"manifests/v1", "GET"+two+"manifests/"+tag(image.Digest()),
			"HEAD"+two+"blobs/"+lying.Digest(image.Blobs[0]).String(), "HEAD"+two+"blobs/"+lying.Digest(layer).String())
		w.up.Forget()
		pull(t, w, "ghcr.io/acme/two", "v1", image)
		asked(t, w.up)
	})
	t.Run("a second repository whose upstream has not the blob does not get it", func(t *testing.T) {
		w := begin(t)
		pull(t, w, web, "v1", image)
		w.up.PushSigned("acme/two", image, w.key, "v1")
		w.up.Delete("acme/two", lying.Digest(layer))
		path := blobPath("ghcr.io/acme/two", lying.Digest(layer))
		served(t, w.get(manifestPath("ghcr.io/acme/two", "v1")), image)
		refused(t, w.get(path), 404, "BLOB_UNKNOWN", "")
		refused(t, w.get(path, "Range", "bytes=0-0"), 404, "BLOB_UNKNOWN", "")
		refused(t, w.get(path, "If-None-Match", `"`+lying.Digest(layer).String()+`"`), 404, "BLOB_UNKNOWN", "")
		if a := w.head(path); a.status != 404 {
			t.Errorf("HEAD: %d", a.status)
		}
	})
}

func TestManyClientsOfOneColdPull(t *testing.T) {
	for place, where := range places {
		t.Run(place, func(t *testing.T) {
			w := newWorld(t, where)
			layer := noiseBytes(9, 2<<20)
			image := imageOf(layer)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			held := make(chan struct{})
			w.up.Lie(lying.Manifest("acme/web", "v1"), lying.Hang(held))
			together(t, 30, func() {
				if a := w.get(manifestPath(web, "v1")); a.status != 200 {
					t.Errorf("manifest: %d", a.status)
				}
			}, func() {
				if _, err := w.up.Await(t.Context(), lying.Manifest("acme/web", "v1"), 1); err != nil {
					t.Error(err)
				}
				close(held)
			})
			asked(t, w.up, "GET /v2/acme/web/manifests/v1", "GET /v2/acme/web/manifests/"+tag(image.Digest()))
			if got := w.records.list(); len(got) != 1 {
				t.Errorf("%d records", len(got))
			}
			// 30 clients follow one transfer, and one that leaves stops nobody
			more := make(chan struct{})
			w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lying.HangAfter(1<<20, more))
			ctx, leave := context.WithCancel(t.Context())
			leaves := w.begin(ctx, blobPath(web, lying.Digest(layer)))
			leaves.read(t, 100<<10)
			leave()
			together(t, 30, func() {
				servedBlob(t, w.get(blobPath(web, lying.Digest(layer))), layer)
			}, func() { close(more) })
			if got := w.up.Log(lying.Blob("acme/web", lying.Digest(layer))); len(got) != 1 {
				t.Errorf("%d requests for the blob", len(got))
			}
		})
	}
}

// together runs n clients at once, and then what they wait for.
func together(t *testing.T, n int, client, release func()) {
	t.Helper()
	var clients sync.WaitGroup
	for range n {
		clients.Go(client)
	}
	release()
	clients.Wait()
}

// The first bytes go out before the last have come.
func TestBytesArePassedOnAsTheyCome(t *testing.T) {
	for _, header := range []string{"", "bytes=1000-"} {
		t.Run(fmt.Sprintf("Range %q", header), func(t *testing.T) {
			w := newWorld(t)
			layer := noiseBytes(10, 4<<20)
			image := imageOf(layer)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			more := make(chan struct{})
			w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lying.HangAfter(3<<20, more))
			client := w.begin(t.Context(), blobPath(web, lying.Digest(layer)), "Range", header)
			client.read(t, 1<<20)
			close(more)
			want := len(layer)
			if header != "" {
				want -= 1000
			}
			client.read(t, want-1<<20)
		})
	}
}

// One upstream that stalls holds up nobody who pulls the same content from
// another.
func TestAStalledUpstreamHoldsUpNoOther(t *testing.T) {
	layer := noiseBytes(11, 1<<20)
	image := imageOf(layer)
	for _, lie := range []struct {
		name  string
		fault func(<-chan struct{}) lying.Fault
	}{
		{"before its answer", func(more <-chan struct{}) lying.Fault { return lying.Hang(more) }},
		{"in the middle", func(more <-chan struct{}) lying.Fault { return lying.HangAfter(100<<10, more) }},
	} {
		t.Run(lie.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			w.hub.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			served(t, w.get(manifestPath("docker.io/acme/web", "v1")), image)
			more := make(chan struct{})
			w.hub.Lie(lying.Blob("acme/web", lying.Digest(layer)), lie.fault(more))
			var stalled sync.WaitGroup
			stalled.Go(func() { servedBlob(t, w.get(blobPath("docker.io/acme/web", lying.Digest(layer))), layer) })
			if _, err := w.hub.Await(t.Context(), lying.Blob("acme/web", lying.Digest(layer)), 1); err != nil {
				t.Fatal(err)
			}
			servedBlob(t, w.get(blobPath(web, lying.Digest(layer))), layer)
			close(more)
			stalled.Wait()
		})
	}
}
