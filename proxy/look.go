package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
)

// looking is a view as a decision reads evidence from it: it implements
// verifier.Registry, so that evidence is read, kept and hashed exactly as
// everything else is. It belongs to one decision.
//
// A signature's tag, and what refers to a manifest, is asked of the upstream every
// time, because signatures are added. When the upstream cannot be asked, the
// signatures that it last confirmed serve, however old: one that was good does not
// become bad by age. That there are no others is then not known, so that what they do
// not allow is not denied but undecided. The same signatures serve while the upstream
// is only spared; but what they do not allow is worth a request.
type looking struct {
	*view
	insist  bool // the upstream is not spared
	mu      sync.Mutex
	unasked error // why signatures from before had to do; nil when none did

	about    *manifest    // what is decided about
	expected *expectation // what it references, on its way
	over     bool         // the decision has been reached
}

// CandidateFound implements verifier.Expectant: what there may be a signature for
// will probably be pulled.
func (l *looking) CandidateFound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.expected = l.expect(context.Background(), l.about)
	}
}

// end ends the decision, after which nothing more is expected. It returns why
// signatures from before had to do.
func (l *looking) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	return l.unasked
}

// Manifest implements verifier.Registry for evidence about manifests of this
// repository.
func (l *looking) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	if digest, err := parseDigest(reference); err == nil {
		m, err := l.byDigest(ctx, digest)
		if err != nil {
			return nil, err
		}
		return m.bytes, nil
	}
	m, err := l.resolveTag(ctx, reference, demand{maxStale: math.MaxInt64, insist: l.insist})
	if err == nil {
		l.had(m.unasked)
		return m.bytes, nil
	}
	if f, ok := errors.AsType[Fault](err); ok && (f.Kind() == KindUnauthorized || f.Kind() == KindForbidden) {
		if absent := l.refusedBecauseAbsent(ctx, reference); absent {
			return nil, fmt.Errorf("%s: %w", reference, fs.ErrNotExist)
		}
	}
	return nil, err
}

// Referrers implements verifier.Registry for manifests of this repository. What the
// upstream last listed serves as the signatures of a tag do.
func (l *looking) Referrers(ctx context.Context, _ string, digest v1.Hash) ([]v1.Descriptor, error) {
	known := l.lastListed(ctx, digest)
	ask := func(ctx context.Context) (listing, error) { return l.askReferrers(ctx, digest) }
	var found listing
	var err error
	if len(known) == 0 {
		found, err = ask(ctx)
	} else {
		found, err = briefly(ctx, l.view, listingName(digest), l.insist, ask)
		if err != nil && mayServeStale(err) {
			l.had(err)
			return known, nil
		}
	}
	if err == nil && found.cut {
		err = verifier.ErrMore
	}
	return found.referrers, err
}

func (l *looking) had(unasked error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unasked = errors.Join(l.unasked, unasked)
}

// evaluate asks the gate, and makes of a denial that rests on signatures from
// before the undecided thing that it is. It returns too what is on its way
// because m may be served, if anything.
func (v *view) evaluate(ctx context.Context, m *manifest, subject policy.Subject) (policy.Decision, *expectation, error) {
	l := &looking{view: v, about: m}
	d, unasked, err := l.evaluate(ctx, subject)
	if errors.Is(unasked, errSpared) {
		l = &looking{view: v, about: m, insist: true}
		d, unasked, err = l.evaluate(ctx, subject)
	}
	if unasked == nil {
		return d, l.expected, err
	}
	d.Explained = "the signatures known from before do not suffice, and the upstream cannot be asked for others now; with those alone: " + d.Explained
	d.Reason = policy.ReasonInconclusive
	d.Hint = "try again; when it stays, look for this id in the log"
	d.Remedies = []policy.Remedy{{Do: d.Hint}}
	return d, l.expected, unasked
}

// evaluate asks the gate once. unasked is set when more signatures might lead to
// another decision than this denial, and why they were not asked for.
func (l *looking) evaluate(ctx context.Context, subject policy.Subject) (d policy.Decision, unasked, err error) {
	d, err = l.Gate.Evaluate(ctx, l, subject)
	unasked = l.end()
	if err != nil || !d.Served() {
		l.expected.dropped()
	}
	if err != nil || d.Allowed {
		return d, nil, err
	}
	switch d.Reason {
	case policy.ReasonRevoked, policy.ReasonPolicyDeny, policy.ReasonNoPolicy:
		return d, nil, nil // whatever signatures there are
	}
	return d, unasked, nil
}
