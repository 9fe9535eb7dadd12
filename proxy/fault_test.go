package proxy_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/proxy/store"
)

var errFaulty = errors.New("input/output error")

// faulty stands before a store and its index, in which trouble happens.
type faulty struct {
	*store.Store
	*trouble
}

// trouble is what goes wrong in one store after the other: what broken names
// fails, before anything is done, or after it all the same.
type trouble struct {
	mu     sync.Mutex
	broken string
	after  bool
}

func (f *trouble) fails(operation string) (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.broken != operation:
		return nil, nil
	case f.after:
		return nil, errFaulty
	}
	return errFaulty, nil
}

func (f *trouble) set(operation string, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken, f.after = operation, after
}

func (f *faulty) Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error) {
	if before, after := f.fails("Open"); before != nil || after != nil {
		return nil, 0, errFaulty
	}
	return f.Store.Open(ctx, digest)
}

func (f *faulty) Fetch(ctx context.Context, owner string, digest v1.Hash, size, first, end int64, from func(context.Context, int64) (io.ReadCloser, int64, error)) (io.ReadCloser, int64, error) {
	if before, after := f.fails("Fetch"); before != nil || after != nil {
		return nil, 0, errFaulty
	}
	return f.Store.Fetch(ctx, owner, digest, size, first, end, from)
}

func (f *faulty) Put(ctx context.Context, digest v1.Hash, content []byte) error {
	before, after := f.fails("Put")
	if before != nil {
		return before
	}
	return errors.Join(f.Store.Put(ctx, digest, content), after)
}

func (f *faulty) Tag(ctx context.Context, repository, tag string) (v1.Hash, time.Time, error) {
	if before, after := f.fails("Tag"); before != nil || after != nil {
		return v1.Hash{}, time.Time{}, errFaulty
	}
	return f.Store.Tag(ctx, repository, tag)
}

func (f *faulty) SetTag(ctx context.Context, repository, tag string, digest v1.Hash, confirmed time.Time) error {
	before, after := f.fails("SetTag")
	if before != nil {
		return before
	}
	return errors.Join(f.Store.SetTag(ctx, repository, tag, digest, confirmed), after)
}

func (f *faulty) Delivered(ctx context.Context, repository string, digest v1.Hash, edges ...v1.Hash) error {
	before, after := f.fails("Delivered")
	if before != nil {
		return before
	}
	return errors.Join(f.Store.Delivered(ctx, repository, digest, edges...), after)
}

func (f *faulty) Known(ctx context.Context, repository string, digest v1.Hash) (bool, []v1.Hash, error) {
	if before, after := f.fails("Known"); before != nil || after != nil {
		return false, nil, errFaulty
	}
	return f.Store.Known(ctx, repository, digest)
}

func (f *faulty) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	if before, after := f.fails("Repositories"); before != nil || after != nil {
		return nil, errFaulty
	}
	return f.Store.Repositories(ctx, n, last)
}

// F3: a store or index that fails, before the act or after it, costs answers or
// time, and never changes one.
func TestF3AStoreThatFailsChangesNoAnswer(t *testing.T) {
	child, unsigned := lying.Image("child"), lying.Image("unsigned")
	index := lying.Index(child)
	layer := child.Blobs[1]
	for _, operation := range []string{"Open", "Fetch", "Put", "Tag", "SetTag", "Delivered", "Known", "Repositories"} {
		for _, after := range []bool{false, true} {
			t.Run(operation, func(t *testing.T) {
				f := new(trouble)
				w := newWorld(t, onDisk, func(_ *world, s *settings) {
					s.store = func(held *store.Store) proxy.Store { return &faulty{held, f} }
					s.index = func(held *store.Store) proxy.Index { return &faulty{held, f} }
				})
				w.up.PushSigned("acme/web", index, w.key, "v1")
				w.up.Push("acme/web", unsigned, "v2")
				w.up.PushSigned("acme/two", index, w.key, "v1")
				w.up.Delete("acme/two", lying.Digest(layer))
				steps := func() {
					t.Helper()
					sound := func(a answer, want []byte, statuses ...int) {
						t.Helper()
						if !slices.Contains(statuses, a.status) || a.status == 200 && (a.broken != nil || string(a.body) != string(want)) {
							t.Errorf("status %d, %v, want one of %v\n%.300s", a.status, a.broken, statuses, a.body)
						}
					}
					sound(w.get(manifestPath(web, "v1")), index.Body, 200, 503)
					lost := 200
					if operation == "Delivered" { // nobody remembers the index
						lost = 403
					}
					sound(w.get(byDigest(web, child)), child.Body, 200, lost, 503)
					sound(w.get(manifestPath(web, "v2")), nil, 403, 503)
					sound(w.get(byDigest(web, unsigned)), nil, 403, 503)
					sound(w.get(blobPath(web, lying.Digest(layer))), layer, 200, 404, 503)
					sound(w.get(blobPath(web, lying.Digest(unsigned.Blobs[0]))), nil, 404, 503)
					sound(w.get(manifestPath("ghcr.io/acme/two", "v1")), index.Body, 200, 503)
					sound(w.get(byDigest("ghcr.io/acme/two", child)), child.Body, 200, lost, 503)
					sound(w.get(blobPath("ghcr.io/acme/two", lying.Digest(layer))), nil, 404, 503)
					if a := w.get("/v2/_catalog"); a.status != 200 && a.status != 503 {
						t.Errorf("catalog: %d", a.status)
					}
				}
				f.set(operation, after)
				steps() // cold
				f.set("", false)
				steps()
				f.set(operation, after)
				steps() // warm
				f.set("", false)
				w.restart()
				served(t, w.get(manifestPath(web, "v1")), index)
				pull(t, w, web, child.Digest().String(), child)
			})
		}
	}
}
