package proxy

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// waiting is a store in which nothing that is fetched ahead arrives.
type waiting struct {
	Store
	now atomic.Int64 // how much is awaited
}

func (s *waiting) Prefetch(ctx context.Context, _ string, _ v1.Hash, _ int64, _ func(context.Context, int64) (io.ReadCloser, int64, error)) error {
	s.now.Add(1)
	defer s.now.Add(-1)
	<-ctx.Done()
	return context.Cause(ctx)
}

// trusting is a gate that knows of nothing that is never served.
type trusting struct{ idle }

func (trusting) Revoked(v1.Hash) bool { return false }

func TestWhatIsExpectedIsBoundedInNumberAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := &waiting{}
		p, err := New(Config{Store: held, Index: &tags{}, Recorder: NewDecisionLog(nil), Prefetch: true}, &Revision{Gate: trusting{}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		v := p.current.Load().view(placeOf("ghcr.io/acme/web"))
		expect := func(i int) *expectation {
			config := v1.Descriptor{Digest: digestOf(fmt.Append(nil, i)), Size: 10}
			return v.expect(t.Context(), &manifest{config: config})
		}
		first := expect(0)
		for i := range maxExpectations - 1 {
			if expect(i+1) == nil {
				t.Fatalf("manifest %d is not expected", i+1)
			}
		}
		if expect(maxExpectations) != nil {
			t.Error("more are expected than may be")
		}
		synctest.Wait()
		if n := held.now.Load(); n != maxPrefetching {
			t.Errorf("%d are being fetched", n)
		}
		first.dropped()
		synctest.Wait()
		if expect(maxExpectations) == nil {
			t.Error("there is no place for another one")
		}
		if expect(maxExpectations+1) != nil {
			t.Error("there is a place for two")
		}
		time.Sleep(expectationKept)
		synctest.Wait()
		if n := held.now.Load(); n != 0 {
			t.Errorf("%d are still being fetched", n)
		}
		if p.prefetches.bytes != 0 || len(p.prefetches.cancels) != 0 {
			t.Errorf("%d bytes of %d manifests are still expected", p.prefetches.bytes, len(p.prefetches.cancels))
		}
		if expect(maxExpectations+2) == nil {
			t.Error("nothing is expected any more")
		}
	})
}
