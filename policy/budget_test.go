package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// reader is a Source that reads as much as it can before it finds anything.
type reader struct {
	verifier.Source
	size int64
	err  error
}

func (r *reader) Find(ctx context.Context, registry verifier.Registry, s verifier.Subject, yield func(verifier.Candidate) bool) error {
	for r.err == nil {
		if r.size == 0 {
			_, r.err = registry.Manifest(ctx, s.Repository, "endless")
		} else {
			_, r.err = registry.Blob(ctx, s.Repository, v1.Descriptor{Size: r.size})
		}
	}
	return r.err
}

// endless answers every read.
type endless struct {
	manifest, blob []byte
	requests       int
	bytes          int64
}

func (e *endless) Manifest(context.Context, string, string) ([]byte, error) {
	e.requests++
	e.bytes += int64(len(e.manifest))
	return e.manifest, nil
}

func (e *endless) Referrers(context.Context, string, v1.Hash) ([]v1.Descriptor, error) {
	e.requests++
	return nil, nil
}

func (e *endless) Blob(_ context.Context, _ string, desc v1.Descriptor) ([]byte, error) {
	e.requests++
	e.bytes += desc.Size
	return e.blob, nil
}

func TestTheBudgetOfADecision(t *testing.T) {
	for _, test := range []struct {
		name                string
		manifest            []byte
		size                int64
		requests            int
		leastByte, mostByte int64
	}{
		{"requests", []byte("{}"), 0, verifier.DecisionRequests, 0, 1000},
		{"bytes of manifests", make([]byte, verifier.MaxManifestSize), 0, 16, verifier.DecisionBytes, verifier.DecisionBytes},
		{"bytes of blobs", nil, 1_000_000, 67, 67_000_000, verifier.DecisionBytes},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			set, err := New(Config{Authorities: w.authorities(), Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}})
			if err != nil {
				t.Fatal(err)
			}
			source := &reader{Source: verifier.Tags()[0], size: test.size}
			registry := &endless{manifest: test.manifest}
			d, err := NewEvaluator(set, []verifier.Source{source}, Options{}).Evaluate(t.Context(), registry, subject())
			if err != nil || d.Reason != ReasonTooManySignatures {
				t.Errorf("got %q, %v", d.Sentence("x"), err)
			}
			if registry.requests != test.requests || registry.bytes < test.leastByte || registry.bytes > test.mostByte {
				t.Errorf("%d requests, %d bytes", registry.requests, registry.bytes)
			}
		})
	}
}

func TestADoubtBesidesTheBudgetStaysADoubt(t *testing.T) {
	w := newWorld(t)
	b := newBudget(w)
	b.requests = 1
	w.failWith(func(string) error { return errors.New("503") })
	_, doubt := b.Manifest(t.Context(), web, "a")
	_, spent := b.Manifest(t.Context(), web, "b")
	if !errors.Is(spent, errBudget) {
		t.Fatal(spent)
	}
	if b.caused(verifier.SourceFailure{Err: fmt.Errorf("%w; %w", doubt, spent)}) {
		t.Error("a failure that is also a doubt is taken for the budget's")
	}

	b = newBudget(w)
	b.requests = 1
	w.failWith(nil)
	if _, err := b.Manifest(t.Context(), web, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	_, spent = b.Manifest(t.Context(), web, "b")
	if !b.caused(verifier.SourceFailure{Err: spent}) {
		t.Error("what is the budget's doing is not taken for that")
	}
}

// expectant is a registry that is told of the first candidate.
type expectant struct {
	*world
	told int
}

func (e *expectant) CandidateFound() { e.told++ }

func TestTheRegistryOfADecisionIsToldOfTheFirstCandidate(t *testing.T) {
	w := newWorld(t)
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
	told := func() int {
		registry := &expectant{world: w}
		if _, err := e.Evaluate(t.Context(), registry, subject()); err != nil {
			t.Error(err)
		}
		return registry.told
	}
	if n := told(); n != 0 {
		t.Errorf("told %d times of what is not signed", n)
	}
	w.sign(web, "stranger", "stranger", "release")
	if n := told(); n != 1 {
		t.Errorf("told %d times", n)
	}
	allow(t, e, w, subject()) // one that does not care
}
