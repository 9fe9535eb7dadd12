package store

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// counted is hints that tell how often one was set, and let others run then.
type counted struct {
	hints
	sets  atomic.Int64
	first func()
}

func (c *counted) set(t table, name string, value []byte) {
	if c.sets.Add(1) == 1 {
		c.first()
	}
	runtime.Gosched()
	c.hints.set(t, name, value)
}

// TestAManifestOfManyLetsOthersInBetween: it may reference tens of thousands of blobs,
// whoever made it, and every request asks the index.
func TestAManifestOfManyLetsOthersInBetween(t *testing.T) {
	edges := make([]v1.Hash, 20_000)
	for i := range edges {
		edges[i] = numberedKey(i).digest()
	}
	c := &counted{hints: newHintMemory()}
	x := &index{hints: c}
	answered := make(chan int64, 1)
	c.first = func() {
		go func() {
			if _, _, err := x.Known(t.Context(), "ghcr.io/other/web", edges[0]); err != nil {
				t.Error(err)
			}
			answered <- c.sets.Load()
		}()
	}
	if err := x.Delivered(context.Background(), "ghcr.io/acme/web", numberedKey(-1).digest(), edges...); err != nil {
		t.Fatal(err)
	}
	if after := <-answered; after > int64(len(edges))/2 {
		t.Errorf("who asked when it began was answered after %d of %d", after, len(edges))
	}
	for _, edge := range []v1.Hash{edges[0], edges[len(edges)-1]} {
		if _, parents, err := x.Known(t.Context(), "ghcr.io/acme/web", edge); err != nil || len(parents) != 1 {
			t.Errorf("%s has the parents %v, %v", edge, parents, err)
		}
	}
}
