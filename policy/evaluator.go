package policy

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// Options are what an Evaluator may be given besides a Set and sources.
type Options struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Everything says that attestations are looked for where no policy asks for them,
	// too, for one who explains: they stand in Decision.Evidence then and change nothing.
	// Where a policy observes that is always so.
	Everything bool
	// Observe is called with every decision, also inconclusive ones, and how
	// long it took. It may be called concurrently. Nil: nobody looks.
	Observe func(d Decision, took time.Duration)
}

// Evaluator makes decisions: it applies a Set to subjects, with the evidence
// that sources find. It is safe for concurrent use.
type Evaluator struct {
	set     *Set
	sources []verifier.Source
	now     func() time.Time
	observe func(Decision, time.Duration)
	all     bool          // Options.Everything
	slots   chan struct{} // one for each decision that reads evidence
	rego    chan struct{} // one for each decision that evaluates Rego

	mu     sync.Mutex
	shares map[string]chan struct{} // of slots, by the upstream that evidence is read from
}

// NewEvaluator makes an Evaluator of set and sources, neither of which is
// changed afterwards.
func NewEvaluator(set *Set, sources []verifier.Source, options Options) *Evaluator {
	e := &Evaluator{
		set:     set,
		sources: slices.Clone(sources),
		now:     options.Now,
		observe: options.Observe,
		all:     options.Everything,
		slots:   make(chan struct{}, verifier.MaxDecisions),
		rego:    make(chan struct{}, runtime.GOMAXPROCS(0)),
		shares:  make(map[string]chan struct{}),
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.observe == nil {
		e.observe = func(Decision, time.Duration) {}
	}
	return e
}

// Scope tells, without evidence, under what a canonical repository falls.
func (e *Evaluator) Scope(repository string) Scope { return e.set.Scope(repository) }

// Revoked reports whether the configuration names digest as never served.
func (e *Evaluator) Revoked(digest v1.Hash) bool { return e.set.Revoked(digest) }

// PanicError is a panic during a decision.
type PanicError struct {
	Value any
	Stack []byte
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("panic while deciding: %s", clean(fmt.Sprint(p.Value), maxDetail))
}

// Evaluate decides about subject with evidence read from registry, in this
// order: what is revoked is denied; what an exception names is allowed; then
// the first policy that matches denies, allows unverified, or asks for evidence.
//
// A decision takes at most verifier.DecisionTime, waiting for one of
// verifier.MaxDecisions places included, of which the repositories of one upstream have
// verifier.MaxDecisionsOfOne at most, and reads at most
// verifier.DecisionRequests times and verifier.DecisionBytes; what is found
// within these is evaluated. A read that is not needed any more is cancelled, and
// not waited for. A registry that is a verifier.Expectant is told of the first
// candidate.
//
// An error means that no decision could be reached (evidence that is needed could
// not be read, an authority is suspended that could have turned a denial, time
// was up, something panicked). The Decision then carries what is known, has
// ReasonInconclusive and does not allow.
func (e *Evaluator) Evaluate(ctx context.Context, registry verifier.Registry, subject Subject) (d Decision, err error) {
	begun := e.now()
	defer func() { e.observe(d, e.now().Sub(begun)) }()
	d = Decision{
		ID:          cmp.Or(subject.ID, NewID()),
		Time:        begun,
		Revision:    e.set.revision,
		Subject:     subject,
		Enforcement: e.set.ceiling,
	}
	defer func() {
		if value := recover(); value != nil {
			p := &PanicError{Value: value, Stack: debug.Stack()}
			if elsewhere, ok := value.(*verifier.Panic); ok {
				p.Value, p.Stack = elsewhere.Value, elsewhere.Stack
			}
			err = d.doubt("an internal error; the log has it", hintAgain, p, p.Error())
		}
	}()
	err = e.decide(ctx, registry, &d)
	return d, err
}

// decide fills in d, which denies until then.
func (e *Evaluator) decide(ctx context.Context, registry verifier.Registry, d *Decision) error {
	p, matched := e.set.find(d.Subject.Repository)
	if matched {
		d.Policy, d.Enforcement, d.Message = p.Name, *p.Enforcement, p.Message
	}
	if e.set.Revoked(d.Subject.Digest) {
		d.deny(ReasonRevoked, "this digest is revoked", Remedy{Do: "pull another digest; this one is listed under revoked"})
		return nil
	}
	if x, ok := e.set.exception(d.Subject, d.Time); ok {
		d.allow(fmt.Sprintf("by an exception until %s: %s", x.Until.Format(time.DateOnly), oneLine(x.Reason, maxText)))
		d.Exception, d.Expires = x.Reason, x.Until
		return nil
	}
	switch {
	case !matched:
		e.denyUnmatched(ctx, registry, d)
		return nil
	case p.Deny != "":
		d.deny(ReasonPolicyDeny, "denied by policy: "+oneLine(p.Deny, maxText), except(d)...)
		return nil
	case p.AllowUnverified:
		d.allow("unverified, as the policy says")
		if e.all {
			e.survey(ctx, registry, d)
			if _, ok := provenClaim(d.Evidence); ok || len(d.Satisfied) > 0 {
				d.Remedies = e.set.suggest(*d)
				d.Remedies[0].Do += ", before " + clean(p.Name, maxLabel)
			}
			d.Satisfied = nil // nobody is asked for
		}
		return nil
	}
	return e.verify(ctx, registry, p, d)
}

// denyUnmatched denies what no policy matches. To one who only observes, so as
// to write a first policy, it tells what evidence there is.
func (e *Evaluator) denyUnmatched(ctx context.Context, registry verifier.Registry, d *Decision) {
	if e.curious(d) {
		e.survey(ctx, registry, d)
	}
	d.deny(ReasonNoPolicy, "no policy matches this repository", e.set.suggest(*d)...)
}

// curious reports whether somebody wants to see all that there is: one who explains, or
// who observes so as to write a policy.
func (e *Evaluator) curious(d *Decision) bool { return e.all || d.Enforcement == Observe }

// inquire adds to what is asked of the verifier what the curious want to be told.
func (e *Evaluator) inquire(d *Decision, subject verifier.Subject) verifier.Subject {
	if e.curious(d) {
		subject.Claims, subject.ClaimRoots = true, e.set.roots
	}
	return subject
}

// survey tells what evidence there is where none is asked for. What cannot be read is
// not there.
func (e *Evaluator) survey(ctx context.Context, registry verifier.Registry, d *Decision) {
	subject := e.inquire(d, about(new(Policy), d.Subject))
	subject.Attestations, subject.Now = true, d.Time
	found, _ := e.look(ctx, registry, subject, e.set.authorities, e.sources, nil)
	d.Evidence = brief(found.evidence)
	for _, evidence := range found.evidence {
		if evidence.IsSignature() {
			d.Satisfied = append(d.Satisfied, evidence.Authorities()...)
		}
	}
	slices.Sort(d.Satisfied)
	d.Satisfied = slices.Compact(d.Satisfied)
}

// verify decides by evidence. Where there is Rego all of it is waited for, and what
// could not be read or was not looked at might be what Rego would deny for.
func (e *Evaluator) verify(ctx context.Context, registry verifier.Registry, p *Policy, d *Decision) error {
	weighed := func(evidence []verifier.Evidence, judged judgements) outcome {
		return decide(p, e.set.suspended, d.Subject, evidence, judged, d.Time)
	}
	satisfied := func(evidence []verifier.Evidence) bool { return weighed(evidence, nil).allowed }
	all := p.asksRego()
	if all || e.all {
		satisfied = nil // more evidence allows no less
	}
	asked := e.inquire(d, about(p, d.Subject))
	asked.Now = d.Time
	found, err := e.look(ctx, registry, asked, e.set.ordered(p, d.Subject.Repository), e.sources, satisfied)
	ctx, cancel := context.WithTimeout(ctx, verifier.DecisionTime)
	defer cancel()
	var judged judgements
	var late error
	if all {
		// Rego makes much of its input in memory, of whatever policy it is.
		select {
		case e.rego <- struct{}{}:
			defer func() { <-e.rego }()
			judged, late = judgeAttestations(ctx, p, e.set.suspended, d.Subject, found.evidence, d.Time)
		case <-ctx.Done():
			late = ctx.Err()
		}
	}
	o := weighed(found.evidence, judged)
	d.Evidence, d.Satisfied = brief(found.evidence), o.satisfied()
	d.Weights = p.weights(e.set.suspended, d.Subject, found.evidence, judged, o, d.Time)
	defer e.lookFurther(ctx, registry, p, d)
	switch {
	case o.allowed && !all:
		d.allow(o.explainAllowed(p))
		d.Expires = o.until
	case len(found.failures) > 0:
		failure := joined(found.failures)
		return d.doubt(explainUnread(d.Subject, failure), hintAgain, failure, causesOf(found.failures)...)
	case err != nil:
		return d.doubt(explainUnread(d.Subject, err), hintAgain, err, err.Error())
	case late != nil:
		return d.doubt("there was no time for the policy's Rego", hintAgain, late, late.Error())
	case !o.allowed && o.turnable(p, e.set.suspended):
		names, causes := e.set.suspension(p)
		why := strings.Join(causes, "; ")
		return d.doubt(clean(why, maxReason), hintSuspended(p, names), errors.New(why), causes...)
	case found.cut:
		d.deny(ReasonTooManySignatures, "there are more signatures than are looked at, and "+o.explainCut(p),
			Remedy{Do: "remove the signatures that are of no use"})
	case o.allowed:
		d.allow(o.explainAllowed(p))
		d.Expires = o.until
		if p.Rego != nil {
			d.Expires = earlier(d.Expires, p.unchanged(found.evidence, d.Time))
			return e.judge(ctx, p, d, found.evidence)
		}
	default:
		x := denial{p, d.Subject, found.evidence, o, e.set, d.Time}
		d.deny(o.reason, x.explain(), x.remedies()...)
		if names, causes := e.set.suspension(p); len(names) > 0 {
			back := Remedy{Do: hintSuspended(p, names) + ": " + clean(strings.Join(causes, "; "), maxDetail), And: true}
			d.Remedies = append(d.Remedies, back)
			d.Hint += "; and " + back.Do
		}
	}
	return nil
}

// lookFurther adds to a decision the attestations that it did not need, where somebody
// wants to see all that there is. What cannot be read is not there.
func (e *Evaluator) lookFurther(ctx context.Context, registry verifier.Registry, p *Policy, d *Decision) {
	if p.wantsAttestations() || !e.curious(d) {
		return
	}
	subject := e.inquire(d, about(p, d.Subject))
	subject.Attestations, subject.Now = true, d.Time
	found, _ := e.look(ctx, registry, subject, e.set.ordered(p, d.Subject.Repository), []verifier.Source{verifier.Attestations()}, nil)
	d.Evidence = append(d.Evidence, brief(found.evidence)...)
}

// brief is evidence without what attestations say: decisions are kept, and a statement
// may have a megabyte.
func brief(evidence []verifier.Evidence) []verifier.Evidence {
	kept := make([]verifier.Evidence, 0, len(evidence))
	for _, e := range evidence {
		kept = append(kept, e.Brief())
	}
	return kept
}

// findings are what look has found.
type findings struct {
	evidence []verifier.Evidence
	failures []verifier.SourceFailure // places that could not be read
	cut      bool                     // a limit has cut off evidence
}

// look finds and verifies evidence within the limits of one decision. An error
// says that there was no time to find all.
func (e *Evaluator) look(ctx context.Context, registry verifier.Registry, subject verifier.Subject, authorities []verifier.Authority, sources []verifier.Source, satisfied func([]verifier.Evidence) bool) (findings, error) {
	ctx, cancel := context.WithTimeout(ctx, verifier.DecisionTime)
	defer cancel()
	upstream, _, _ := strings.Cut(subject.Repository, "/")
	for _, places := range []chan struct{}{e.share(upstream), e.slots} {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		case <-ctx.Done():
			return findings{}, fmt.Errorf("wait for one of %d places: %w: %w", cap(places), errBusy, ctx.Err())
		}
	}
	counting := newBudget(registry)
	report := verifier.Verify(ctx, counting, subject, authorities, sources, satisfied)
	found := findings{evidence: report.Evidence, cut: report.TooMany}
	for _, failure := range report.Failures {
		if counting.caused(failure) {
			found.cut = true
		} else {
			found.failures = append(found.failures, failure)
		}
	}
	return found, ctx.Err()
}

// share returns the places for decisions with evidence of one upstream: one that hangs
// must not keep what others hold from being decided about. There are as many of them as
// upstreams in the configuration.
func (e *Evaluator) share(upstream string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	places := e.shares[upstream]
	if places == nil {
		places = make(chan struct{}, verifier.MaxDecisionsOfOne)
		e.shares[upstream] = places
	}
	return places
}

func (d *Decision) allow(explained string) {
	d.Allowed, d.Reason, d.Explained = true, "", explained
}

func (d *Decision) deny(reason, explained string, remedies ...Remedy) {
	d.Allowed, d.Reason, d.Explained, d.Hint, d.Remedies = false, reason, explained, hintOf(remedies), remedies
}

// NewID returns a random identifier of 16 lower-case hex characters.
func NewID() string {
	var id [8]byte
	rand.Read(id[:]) // never fails, it ends the process instead
	return hex.EncodeToString(id[:])
}
