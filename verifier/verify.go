package verifier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"vidimus/verifier/envelope"
)

// Report is what Verify found.
type Report struct {
	// Evidence is all that was looked at, verified or rejected, in the order
	// of the sources and, within one, in the registry's. There may be more
	// that was not: see Failures and TooMany; and where the policy is satisfied,
	// what had come by then is all.
	Evidence []Evidence
	// Failures are the sources and payloads that could not be read, in the same
	// order. With any, a denial is inconclusive.
	Failures []SourceFailure
	// TooMany says that there were more than MaxSignatures, or more bytes of
	// payloads than a decision reads, which were not tried, and that those tried
	// did not satisfy.
	TooMany bool
}

// SourceFailure is a place where evidence may be, and nobody could tell.
type SourceFailure struct {
	Source string // the source's name
	Err    error
}

// Panic is a panic in one of the goroutines that Verify starts. It reaches the
// caller's goroutine as the value of a panic there.
type Panic struct {
	Value any
	Stack []byte // where it happened
}

func newPanic(value any) *Panic {
	if p, ok := value.(*Panic); ok {
		return p
	}
	return &Panic{Value: value, Stack: debug.Stack()}
}

// Verify looks in all sources at once for evidence about subject, and checks it
// against the keys and identities of the authorities that are not suspended.
//
// After each piece of evidence it calls satisfied, when that is not nil, with
// all evidence so far, in the order in which it came, and returns when that
// returns true. Then nothing more is fetched: what is under way is cancelled and
// not waited for, so that a call of registry may end after Verify has returned;
// nothing is done with what comes of it. satisfied is called by one goroutine at
// a time, must not keep or change the slice, and must not depend on its order.
// What does not satisfy is reported when all sources have answered.
//
// # What is tried
//
// At most MaxSignatures are tried, and DecisionBytes read, in all sources
// together. Each source may have an equal part of both tried as it comes; what
// it asks for beyond that waits until no other is at work, and then gets what
// the parts of all have left over, the first source first. So what is tried
// depends on what the registry holds and never on which source was faster, and
// no source can use up the part of another. What is the same signature over the
// same payload as one before it in the same source is passed over and does not
// count.
//
// # Requests
//
// Verify spends one request for each manifest or list that a source asks for and at
// most one for each signature that it tries: none when the payload is one that it can
// predict (see Subject.Names) or, of usual size, one that it has fetched before. For
// signatures over the manifest itself it asks once for that.
// Of the payloads of a source it fetches the first alone and then eight at once.
//
// Verify returns when ctx ends, with a failure for each source that was at work.
// A panic in a source, in registry or in satisfied is a *Panic in the caller's
// goroutine; but after Verify has returned there is nobody whom it could reach,
// and it is dropped.
func Verify(ctx context.Context, registry Registry, subject Subject, authorities []Authority, sources []Source, satisfied func([]Evidence) bool) Report {
	if !subject.Attestations {
		sources = slices.DeleteFunc(slices.Clone(sources), func(s Source) bool { return s == Attestations() })
	}
	if len(sources) == 0 {
		return Report{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &verification{
		registry:    registry,
		subject:     subject,
		keys:        trustedKeys(authorities),
		identities:  trustedIdentities(authorities),
		proves:      slices.ContainsFunc(authorities, func(a Authority) bool { return a.Root != nil }),
		now:         subject.Now,
		predictions: newPredictions(subject),
		found:       onceFound(registry),
		satisfied:   satisfied,
		over:        make(chan struct{}),
		running:     len(sources),
		payloads:    make(map[payloadID]func() payload),
	}
	if v.now.IsZero() {
		v.now = time.Now()
	}
	v.manifest = sync.OnceValue(func() payload { return v.fetchManifest(ctx) })
	if subject.Claims {
		v.stranger, v.proves = v.claims(), true
	}
	for _, source := range sources {
		v.searches = append(v.searches, newSearch(v, source))
	}
	v.share()
	// What is started last runs first, and the first source is the likeliest.
	for _, s := range slices.Backward(v.searches) {
		go s.run(ctx)
	}
	select {
	case <-v.over:
	case <-ctx.Done():
	}
	return v.report(ctx)
}

// onceFound returns what tells registry of the first candidate.
func onceFound(registry Registry) func() {
	if expectant, ok := registry.(Expectant); ok {
		return sync.OnceFunc(expectant.CandidateFound)
	}
	return func() {}
}

// trusted is a key and the names of the authorities that hold it.
type trusted struct {
	key         Key
	authorities []string
	roots       []*Root // of the authorities
}

// trustedKeys returns each key of authorities once, in the order given.
func trustedKeys(authorities []Authority) []trusted {
	var keys []trusted
	at := make(map[string]int)
	for _, authority := range authorities {
		if authority.Suspended != "" {
			continue
		}
		held := make(map[string]bool)
		for _, key := range authority.Keys {
			if key.public == nil || held[key.id] {
				continue
			}
			held[key.id] = true
			i, ok := at[key.id]
			if !ok {
				i = len(keys)
				at[key.id] = i
				keys = append(keys, trusted{key: key})
			}
			keys[i].authorities = append(keys[i].authorities, authority.Name)
			keys[i].roots = append(keys[i].roots, authority.Root)
		}
	}
	return keys
}

// verification is the state of one call of Verify, which its searches share.
type verification struct {
	registry    Registry
	subject     Subject
	keys        []trusted
	identities  []trustedIdentity
	proves      bool          // there is a trust root, or claims are told
	stranger    *verification // tells claims; nil where nobody asks for them
	claiming    bool          // it is the stranger of another one
	now         time.Time
	predictions *predictions
	found       func() // tells the registry, once
	satisfied   func([]Evidence) bool

	over chan struct{} // closed when there is nothing more to wait for

	mu       sync.Mutex
	done     bool // over is closed, or Verify has returned: what comes now is dropped
	tooMany  bool
	panicked *Panic
	searches []*search
	running  int        // searches that are neither waiting nor at their end
	pool     allowance  // what no search has at the moment
	all      []Evidence // as it came
	payloads map[payloadID]func() payload
	manifest func() payload // the subject itself
}

// finish ends the wait for searches. It is called with v.mu held.
func (v *verification) finish() {
	if !v.done {
		v.done = true
		close(v.over)
	}
}

// report is what has come by now. What comes later is dropped.
func (v *verification) report(ctx context.Context) Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.panicked != nil {
		panic(v.panicked)
	}
	report := Report{TooMany: v.tooMany}
	for _, s := range v.searches {
		report.Evidence = append(report.Evidence, s.evidence...)
		report.Failures = append(report.Failures, s.failures...)
		if !v.done && !s.ended {
			report.Failures = append(report.Failures, SourceFailure{Source: s.source.Name(), Err: ctx.Err()})
		}
	}
	v.done = true
	return report
}

// check returns what a candidate turns out to be, with what it claims. An error means
// that nobody could tell.
func (v *verification) check(c Candidate, p payload) (Evidence, error) {
	e, err := v.checkFor(c, p)
	if err != nil {
		return e, err
	}
	return v.claim(e, c, p), nil
}

// checkFor is check without claims.
func (v *verification) checkFor(c Candidate, p payload) (Evidence, error) {
	e := Evidence{form: c.form, source: c.origin, digest: c.blob.Digest}
	switch {
	case c.fault != "":
		return e.fails(CheckForm, ReasonPayloadInvalid, c.fault), nil
	case len(v.keys)+len(v.identities) == 0 && (c.form != FormBundle || p.data == nil):
		return e.rejected(ReasonUntrusted, noKeys), nil
	case errors.Is(p.err, fs.ErrNotExist):
		return e.fails(CheckForm, ReasonPayloadInvalid, fmt.Sprintf("its payload %s is missing", c.blob.Digest)), nil
	case p.err != nil:
		return Evidence{}, fmt.Errorf("%s: payload %s: %w", c.origin, c.blob.Digest, p.err)
	}
	switch c.form {
	case FormBundle:
		return v.checkBundle(e, string(c.blob.MediaType), p.data)
	case FormAttestation:
		return v.checkEnvelope(e, p.data, c.attached), nil
	}
	return v.checkPayload(e, p.data, c), nil
}

// checkPayload checks a signature over a simple-signing payload: with the keys, and
// when none has made it with the certificate that is attached.
func (v *verification) checkPayload(e Evidence, data []byte, c Candidate) Evidence {
	holder, ok := v.holder(data, c.signature)
	switch {
	case ok:
		e = e.signedBy(holder)
	case c.attached.certified() && len(v.identities) > 0:
		p, err := c.attached.proven(data, c.signature)
		if err != nil {
			return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
		}
		if e, holder, ok = v.checkCertificate(e, p); !ok {
			return e
		}
	default:
		return v.byNobody(e)
	}
	said, err := envelope.ParsePayload(data)
	if err != nil {
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	e = e.holds(heldForm)
	e.claimedName, e.annotations = said.Reference, said.Annotations
	if said.Digest != v.subject.Digest.String() {
		return e.astray(said.Digest)
	}
	e = e.holds(heldDigest)
	e.verified, e.authorities = true, holder.authorities
	if e.keyID == "" {
		return e
	}
	if !c.attached.proves() {
		return e.unproven()
	}
	return v.timed(e, holder, func() (*proven, error) { return c.attached.proven(data, c.signature) })
}

// noKeys says why a signature was not checked.
const noKeys = "there is no key to check it with"

// byNobody rejects what none of the keys has signed.
func (v *verification) byNobody(e Evidence) Evidence {
	if len(v.keys) == 0 {
		return e.rejected(ReasonUntrusted, noKeys)
	}
	return e.fails(CheckSignature, ReasonUntrusted, fmt.Sprintf("its signature is by none of the keys asked for (%d)", len(v.keys)))
}

// astray rejects what a trusted signer has signed about the manifest of digest.
func (e Evidence) astray(digest string) Evidence {
	return e.fails(CheckDigest, ReasonDigestMismatch, fmt.Sprintf("%s signed %s@%s", e.signer(), e.claimedName, digest))
}

// holder returns the first key that verifies signature over data.
func (v *verification) holder(data, signature []byte) (trusted, bool) {
	return v.holderOf(newMessage(data), signature)
}

func (v *verification) holderOf(m *message, signature []byte) (trusted, bool) {
	for _, k := range v.keys {
		if k.key.verifies(m, signature) {
			return k, true
		}
	}
	return trusted{}, false
}
