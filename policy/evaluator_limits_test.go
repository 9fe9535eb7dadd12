package policy

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// stuck is a registry that answers when it is told to, or the context ends.
type stuck struct {
	entered chan struct{} // by each decision
	release chan struct{}
}

func (s *stuck) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	if reference == sigTag {
		s.entered <- struct{}{}
	}
	select {
	case <-s.release:
		return nil, fs.ErrNotExist
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *stuck) Referrers(context.Context, string, v1.Hash) ([]v1.Descriptor, error) {
	return nil, fs.ErrNotExist
}

func (s *stuck) Blob(context.Context, string, v1.Descriptor) ([]byte, error) {
	return nil, fs.ErrNotExist
}

func TestADecisionTakesNoLongerThanItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
		begun := time.Now()
		d, err := e.Evaluate(t.Context(), &stuck{entered: make(chan struct{}, 10)}, subject())
		if !errors.Is(err, context.DeadlineExceeded) || d.Allowed || d.Reason != ReasonInconclusive {
			t.Errorf("got %+v, %v", d, err)
		}
		if took := time.Since(begun); took != verifier.DecisionTime {
			t.Errorf("took %v", took)
		}
		if d.Explained != "could not look for signatures: no answer in time from upstream ghcr.io" {
			t.Errorf("explained: %s", d.Explained)
		}
	})
}

func TestOnlySoManyDecisionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(Config{Policies: []Policy{
			{Match: mustMatch(t, "docker.io/**"), AllowUnverified: true},
			{Match: mustMatch(t, "**"), Require: one("release")},
		}}, Options{})
		registry := &stuck{entered: make(chan struct{}, 2*verifier.MaxDecisions), release: make(chan struct{})}
		var running sync.WaitGroup
		for i := range verifier.MaxDecisions {
			s := subject()
			if i >= verifier.MaxDecisionsOfOne {
				s.Repository = "quay.io/acme/web"
			}
			running.Go(func() { _, _ = e.Evaluate(t.Context(), registry, s) })
		}
		synctest.Wait()
		if n := len(registry.entered); n != verifier.MaxDecisions {
			t.Fatalf("%d decisions are under way", n)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := subject()
		other.Repository = "gcr.io/acme/web"
		d, err := e.Evaluate(ctx, registry, other)
		if !errors.Is(err, context.DeadlineExceeded) || d.Reason != ReasonInconclusive || d.Allowed {
			t.Errorf("one more: %+v, %v", d, err)
		}
		if d.Explained != "could not look for signatures: too many decisions are under way" {
			t.Errorf("explained: %s", d.Explained)
		}
		if n := len(registry.entered); n != verifier.MaxDecisions {
			t.Errorf("one more read evidence")
		}
		allow(t, e, w, Subject{Repository: "docker.io/library/nginx", Digest: image}) // it needs no place

		close(registry.release)
		running.Wait()
		w.sign(web, "release")
		allow(t, e, w, subject())
	})
}

// TestAnUpstreamThatHangsLeavesPlacesToOthers: decisions about what one upstream holds,
// however many, and however long it takes to say what evidence there is.
func TestAnUpstreamThatHangsLeavesPlacesToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), SignedAs: Ignore}}}, Options{})
		registry := &stuck{entered: make(chan struct{}, 4*verifier.MaxDecisions), release: make(chan struct{})}
		var running sync.WaitGroup
		for range 2 * verifier.MaxDecisions {
			running.Go(func() { _, _ = e.Evaluate(t.Context(), registry, subject()) })
		}
		synctest.Wait()
		elsewhere := subject()
		elsewhere.Repository = "quay.io/acme/web"
		w.sign(elsewhere.Repository, "release")
		begun := time.Now()
		allow(t, e, w, elsewhere)
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("it waited %v for another upstream", waited)
		}
		close(registry.release)
		running.Wait()
	})
}

func TestAPanicDenies(t *testing.T) {
	w := newWorld(t)
	var observed Decision
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}},
		Options{Observe: func(d Decision, _ time.Duration) { observed = d }})
	w.failWith(func(string) error { panic("oh\nno") })
	d, err := cannotTell(t, e, w, subject())
	p, ok := errors.AsType[*PanicError](err)
	if !ok || p.Value != "oh\nno" || !strings.Contains(string(p.Stack), "world_test.go") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if d.Policy != "**" || d.Enforcement != Enforce || d.Served() || observed.ID != d.ID || observed.Reason != ReasonInconclusive {
		t.Errorf("got %+v, observed %+v", d, observed)
	}
	w.failWith(nil)
	w.sign(web, "release")
	for range verifier.MaxDecisions + 1 {
		allow(t, e, w, subject()) // no place was lost
	}
}

func TestAClientThatLeavesGetsNoDecision(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := e.Evaluate(ctx, w, subject()); !errors.Is(err, context.Canceled) || d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	} else if d.Explained != "could not look for signatures: who asked has left" {
		t.Errorf("explained: %s", d.Explained)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	w := newWorld(b)
	w.sign(web, "release")
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(b, "**"), Require: one("release")}}}, Options{})
	b.ReportAllocs()
	for b.Loop() {
		if d, err := e.Evaluate(b.Context(), w, subject()); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}
