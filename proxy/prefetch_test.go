package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
)

func ahead(_ *world, s *settings) { s.prefetch = true }

// awaitBlobs waits until the upstream was asked for each of these blobs.
func (w *world) awaitBlobs(repository string, digests ...v1.Hash) {
	w.t.Helper()
	for _, digest := range digests {
		if _, err := w.up.Await(w.t.Context(), lying.Blob(repository, digest).GET(), 1); err != nil {
			w.t.Fatal(err)
		}
	}
}

func blobsOf(content lying.Content) (digests []v1.Hash) {
	for _, blob := range content.Blobs {
		digests = append(digests, lying.Digest(blob))
	}
	return digests
}

func TestWhatASignedImageReferencesIsFetchedBeforeAClientAsks(t *testing.T) {
	for place, where := range places {
		t.Run(place, func(t *testing.T) {
			w := newWorld(t, where, ahead)
			image := lying.Image("web")
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			w.awaitBlobs("acme/web", blobsOf(image)...)
			for i, digest := range blobsOf(image) {
				servedBlob(t, w.get(blobPath(web, digest)), image.Blobs[i])
				if n := len(w.up.Requests(lying.Blob("acme/web", digest))); n != 1 {
					t.Errorf("the upstream was asked for blob %d %d times", i, n)
				}
			}
		})
	}
}

func TestWhatIsNotSignedIsNotFetchedAhead(t *testing.T) {
	w := newWorld(t, ahead)
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	refused(t, w.get(manifestPath(web, "v1")), http.StatusForbidden, "DENIED", policy.ReasonUnsigned)
	w.proxy.Close() // nothing is on its way any more
	for _, digest := range blobsOf(image) {
		if n := len(w.up.Requests(lying.Blob("acme/web", digest))); n != 0 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestWhatIsDeniedAfterAllIsDroppedAndNeverServed(t *testing.T) {
	w := newWorld(t, ahead)
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	w.up.SignAs("acme/web", image.Digest(), "", map[string]any{"env": "test"}, w.foreign)
	hang := make(chan struct{})
	defer close(hang)
	for _, digest := range blobsOf(image) {
		w.up.Lie(lying.Blob("acme/web", digest), lying.HangAfter(1, hang))
	}
	// The signature's payload is delivered only when both blobs are on their way.
	w.up.Lie(lying.Any().Where(func(q lying.Request) bool {
		return q.Kind == lying.KindBlob && !slices.ContainsFunc(blobsOf(image), func(d v1.Hash) bool { return d.String() == q.Reference })
	}), lying.Before(func(ctx context.Context) {
		for _, digest := range blobsOf(image) {
			w.up.Await(ctx, lying.Blob("acme/web", digest).GET(), 1)
		}
	}))
	refused(t, w.get(manifestPath(web, "v1")), http.StatusForbidden, "DENIED", policy.ReasonUntrusted)
	for _, digest := range blobsOf(image) {
		refused(t, w.get(blobPath(web, digest)), http.StatusNotFound, "BLOB_UNKNOWN", "")
	}
	w.proxy.Close() // returns, though the upstream hangs
	if n := w.store.Stats().Contents; n > 3 {
		t.Errorf("%d contents are held", n)
	}
}

// hanging is an upstream that never delivers some blobs, and the others only when
// it was asked for those.
type hanging struct {
	proxy.Upstream
	blobs        []v1.Hash
	asked, ended chan v1.Hash // for each of the blobs
	all          func()       // waits until all are asked for, once
}

func newHanging(under proxy.Upstream, blobs []v1.Hash) *hanging {
	u := &hanging{Upstream: under, blobs: blobs, asked: make(chan v1.Hash, len(blobs)), ended: make(chan v1.Hash, len(blobs))}
	u.all = sync.OnceFunc(func() {
		for range blobs {
			<-u.asked
		}
	})
	return u
}

func (u *hanging) Blob(ctx context.Context, repository string, digest v1.Hash, offset int64) (io.ReadCloser, int64, error) {
	if !slices.Contains(u.blobs, digest) {
		u.all()
		return u.Upstream.Blob(ctx, repository, digest, offset)
	}
	u.asked <- digest
	<-ctx.Done()
	u.ended <- digest
	return nil, 0, context.Cause(ctx)
}

func TestWhatWillNotBeServedIsDropped(t *testing.T) {
	image := lying.Image("web")
	for name, row := range map[string]struct {
		foreign bool // who signs it
		record  error
		answer  func(t *testing.T, a answer)
	}{
		"since the decision cannot be recorded": {false, errors.New("disk full"), func(t *testing.T, a answer) {
			refused(t, a, http.StatusServiceUnavailable, "UNAVAILABLE", "inconclusive")
		}},
		"since it is denied after all": {true, nil, func(t *testing.T, a answer) {
			refused(t, a, http.StatusForbidden, "DENIED", policy.ReasonUntrusted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var up *hanging
			w := newWorld(t, ahead, func(_ *world, s *settings) {
				s.requireRecord = true
				s.origin = func(name string, u proxy.Upstream) proxy.Upstream {
					if name == "ghcr.io" {
						up = newHanging(u, blobsOf(image))
						return up
					}
					return u
				}
			})
			key := w.key
			if row.foreign {
				key = w.foreign
			}
			w.up.Push("acme/web", image, "v1")
			// The payload is one that has to be fetched, and comes when all are on their way.
			w.up.SignAs("acme/web", image.Digest(), "", map[string]any{"env": "test"}, key)
			w.records.breakWith(row.record)
			row.answer(t, w.get(manifestPath(web, "v1")))
			for range blobsOf(image) {
				select {
				case <-up.ended:
				case <-time.After(10 * time.Second):
					t.Fatal("it is still being fetched")
				}
			}
		})
	}
}

func TestAChildOfASignedIndexHasItsContentFetchedAhead(t *testing.T) {
	w := newWorld(t, ahead)
	child := lying.ImageFor("web", "amd64")
	index := lying.Index(child, lying.ImageFor("web", "arm64"))
	w.up.PushSigned("acme/web", index, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), index)
	served(t, w.get(manifestPath(web, child.Digest().String())), child)
	w.awaitBlobs("acme/web", blobsOf(child)...)
}

func TestWhatIsFetchedAheadIsBounded(t *testing.T) {
	var layers []lying.Layer
	for i := range 30 {
		layers = append(layers, lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: fmt.Appendf(nil, "layer %d", i)})
	}
	w := newWorld(t, ahead)
	image := lying.ImageWith("web", layers...)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image)
	w.awaitBlobs("acme/web", blobsOf(image)[:16]...)
	w.proxy.Close()
	for i, digest := range blobsOf(image) {
		n := len(w.up.Requests(lying.Blob("acme/web", digest)))
		if want := min(1, max(0, 16-i)); n != want {
			t.Errorf("blob %d was asked for %d times, want %d", i, n, want)
		}
	}
}

// While as much is on its way as may be, a client does not wait for that.
func TestADemandOvertakesWhatWaitsToBeFetchedAhead(t *testing.T) {
	var layers []lying.Layer
	for i := range 13 { // with the config and two more as much as is fetched at once
		layers = append(layers, lying.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar", Data: fmt.Appendf(nil, "slow %d", i)})
	}
	w := newWorld(t, ahead)
	slow, image := lying.ImageWith("slow", layers...), lying.Image("web")
	w.up.PushSigned("acme/slow", slow, w.key, "v1")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	hang := make(chan struct{})
	defer close(hang)
	for _, digest := range blobsOf(slow) {
		w.up.Lie(lying.Blob("acme/slow", digest), lying.Hang(hang))
	}
	served(t, w.get(manifestPath("ghcr.io/acme/slow", "v1")), slow)
	w.awaitBlobs("acme/slow", blobsOf(slow)...)
	served(t, w.get(manifestPath(web, "v1")), image)
	for i, digest := range blobsOf(image) {
		if n := len(w.up.Requests(lying.Blob("acme/web", digest))); n != 0 {
			t.Errorf("blob %d is on its way", i)
		}
		servedBlob(t, w.get(blobPath(web, digest)), image.Blobs[i])
	}
}

// A client that asks while its blob is on its way reads that transfer.
func TestAClientJoinsWhatIsFetchedAhead(t *testing.T) {
	layer := noiseBytes(5, 1<<20)
	image := imageOf(layer)
	w := newWorld(t, ahead)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	pace := make(chan int)
	w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lying.Drip(pace))
	served(t, w.get(manifestPath(web, "v1")), image)
	w.awaitBlobs("acme/web", lying.Digest(layer))
	pace <- 200 << 10
	f := w.begin(t.Context(), blobPath(web, lying.Digest(layer)))
	f.read(t, 1000)
	close(pace)
	if n := len(w.up.Requests(lying.Blob("acme/web", lying.Digest(layer)))); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}
