package proxy

import (
	"context"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Bounds of what is fetched before anybody asks for it.
const (
	// maxPrefetchBlobs and maxPrefetchBytes bound it for one manifest.
	maxPrefetchBlobs = 16
	maxPrefetchBytes = 256 << 20
	// maxPrefetchTotal bounds it in all, in bytes that are still on their way
	// or wait to be.
	maxPrefetchTotal = 1 << 30
	// maxPrefetching is how many transfers run at once. It leaves an upstream's
	// connections and the store's transfers for what clients ask for, which
	// waits for none of these.
	maxPrefetching = 16
	// maxExpectations is for how many manifests at once, and expectationKept how
	// long at most for one: an upstream that drips must not keep the slots.
	maxExpectations = 64
	expectationKept = 5 * time.Minute
)

// prefetcher brings what manifests reference to the store while clients are on
// their way to ask for it. It is safe for concurrent use.
type prefetcher struct {
	slots chan struct{} // one for each running transfer

	mu      sync.Mutex
	bytes   int64 // on their way
	ended   bool
	running sync.WaitGroup
	cancels map[*expectation]context.CancelFunc
}

// expectation is one manifest's content that is being fetched. Its zero value is
// none.
type expectation struct{ drop func() }

// dropped ends what is on its way for a manifest that will not be served.
func (e *expectation) dropped() {
	if e != nil {
		e.drop()
	}
}

func newPrefetcher() *prefetcher {
	return &prefetcher{slots: make(chan struct{}, maxPrefetching), cancels: make(map[*expectation]context.CancelFunc)}
}

// close ends all and waits for that.
func (p *prefetcher) close() {
	p.mu.Lock()
	p.ended = true
	for _, cancel := range p.cancels {
		cancel()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// expect begins to fetch what an image manifest references, the config first,
// within the bounds. Nothing of it can be served before the manifest is allowed.
// It does not wait, and returns nil when there is nothing to fetch.
func (v *view) expect(ctx context.Context, m *manifest) *expectation {
	p := v.proxy.prefetches
	if p == nil || m.index {
		return nil
	}
	wanted := v.worthFetching(m)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), expectationKept)
	e := &expectation{drop: cancel}
	wanted = p.admit(e, cancel, wanted)
	if len(wanted) == 0 {
		cancel()
		return nil
	}
	go func() {
		defer p.running.Done()
		defer p.forget(e)
		defer cancel()
		p.fetchAll(ctx, v, wanted)
	}()
	return e
}

// worthFetching returns the descriptors of what a pull of m will ask for.
func (v *view) worthFetching(m *manifest) []v1.Descriptor {
	var wanted []v1.Descriptor
	var bytes int64
	seen := make(map[v1.Hash]bool)
	for desc := range m.descriptors {
		// What has another place to be fetched from is often not at the upstream.
		if seen[desc.Digest] || len(desc.URLs) > 0 || v.Gate.Revoked(desc.Digest) || desc.Digest.Algorithm != "sha256" {
			continue
		}
		if desc.Size > maxPrefetchBytes-bytes {
			continue
		}
		seen[desc.Digest] = true
		bytes += desc.Size
		if wanted = append(wanted, desc); len(wanted) == maxPrefetchBlobs {
			break
		}
	}
	return wanted
}

// admit takes on as much of wanted as there is room for.
func (p *prefetcher) admit(e *expectation, cancel context.CancelFunc, wanted []v1.Descriptor) []v1.Descriptor {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.cancels) >= maxExpectations {
		return nil
	}
	for i, desc := range wanted {
		if desc.Size > maxPrefetchTotal-p.bytes {
			wanted = wanted[:i]
			break
		}
		p.bytes += desc.Size
	}
	if len(wanted) > 0 {
		p.cancels[e] = cancel
		p.running.Add(1)
	}
	return wanted
}

func (p *prefetcher) forget(e *expectation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.cancels, e)
}

// fetchAll starts a transfer for each blob as a slot becomes free, in their
// order, and returns when all have ended.
func (p *prefetcher) fetchAll(ctx context.Context, v *view, wanted []v1.Descriptor) {
	var running sync.WaitGroup
	defer running.Wait()
	for i, desc := range wanted {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			p.done(wanted[i:]...)
			return
		}
		running.Go(func() {
			defer func() { <-p.slots }()
			defer p.done(desc)
			v.prefetch(ctx, desc)
		})
	}
}

// done gives back the room of blobs that are not on their way any more.
func (p *prefetcher) done(blobs ...v1.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, desc := range blobs {
		p.bytes -= desc.Size
	}
}

// prefetch brings one blob to the store, or has this repository's upstream
// confirm what the store holds already. Whoever asks for it then sees what is
// wrong with it.
func (v *view) prefetch(ctx context.Context, desc v1.Descriptor) {
	defer func() {
		if r := recover(); r != nil {
			v.proxy.logger.Error("panic while fetching ahead", "panic", r, "stack", stack())
		}
	}()
	err := v.proxy.store.Prefetch(ctx, v.name, desc.Digest, desc.Size, v.origin(desc.Digest))
	if err == nil {
		err = v.ensureDelivered(ctx, desc.Digest)
	}
	if err != nil && ctx.Err() == nil {
		v.proxy.logger.Debug("not fetched ahead", "repository", v.name, "digest", desc.Digest.String(), "err", err)
	}
}
