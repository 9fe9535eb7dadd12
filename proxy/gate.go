package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
)

// asker is who asks, and for what, in the words of the request.
type asker struct {
	client    string
	caller    string // as the access list would name it; empty where nobody is known
	userAgent string
	image     string // for sentences: as the client wrote it
	reference string // tag or digest
	// names says that reference names the manifest that is decided about, and
	// not a part of it: a decision is then on record under every reference that
	// it answered.
	names bool
	// id is for the decision that answers, when it had to be named before.
	id string
}

// newID is an identifier for a decision to be made.
func (a asker) newID() string {
	if a.id != "" {
		return a.id
	}
	return policy.NewID()
}

// unnamed is the asker of a decision that only helps with the one that answers.
func (a asker) unnamed() asker {
	a.id = ""
	return a
}

// about is the asker of a decision about the subject of what was asked for.
func (a asker) about(subject v1.Hash) asker {
	a.id, a.reference = "", subject.String()
	return a
}

// gate decides about a manifest that was asked for by tag, or by digest when
// tag is empty. Its error is *undecided, or a failure to fetch what the
// decision needs; the decision beside it tells whether to serve all the same.
//
// Where the policy only observes, the answer goes first; but not before a record
// that the configuration requires.
func (v *view) gate(ctx context.Context, m *manifest, tag string, a asker) (policy.Decision, error) {
	if scope := v.Gate.Scope(v.name); scope.Enforcement == policy.Observe && !v.RequireRecord && !v.Gate.Revoked(m.digest) {
		return v.observe(ctx, m, tag, scope, a), nil
	}
	d, err := v.admission(ctx, m, tag, a)
	if noteErr := v.note(ctx, d, err, a); noteErr != nil {
		return policy.Decision{}, noteErr
	}
	return d, err
}

// admission is the whole decision about a manifest: as evidence about an
// allowed subject where it is made like evidence, else as an image. A request
// by tag is decided on the manifest itself, never through an index.
func (v *view) admission(ctx context.Context, m *manifest, tag string, a asker) (policy.Decision, error) {
	asImage := func() (policy.Decision, error) {
		if tag != "" {
			return v.decide(ctx, m, tag, a)
		}
		return v.admit(ctx, m, a, newClimb())
	}
	if scope := v.Gate.Scope(v.name); scope.Unverified || scope.Denied || v.Gate.Revoked(m.digest) {
		return asImage() // no evidence is read
	}
	about, isEvidence, err := v.asEvidence(ctx, m, tag, a)
	if isEvidence && err == nil && about.Served() {
		return v.recordAbout(ctx, m, about, a)
	}
	answer := a
	if isEvidence {
		a = a.unnamed() // the decision as evidence answers
	}
	own, ownErr := asImage()
	if ownErr == nil && own.Served() || !isEvidence && err == nil {
		return own, ownErr
	}
	if err = errors.Join(err, ownErr); err != nil {
		return v.doubt(ctx, own, err, a)
	}
	return v.recordAbout(ctx, m, about, answer)
}

// admit decides about a manifest asked for by digest, as an image: through an
// index of this repository that lists it and is itself allowed now, or by its
// own evidence.
func (v *view) admit(ctx context.Context, m *manifest, a asker, c climb) (policy.Decision, error) {
	if d, ok := v.decisions.get(v.ownKey(m, ""), v.proxy.now()); ok && d.Allowed || v.Gate.Revoked(m.digest) {
		return v.decide(ctx, m, "", a)
	}
	through, throughErr := v.admitThrough(ctx, m, a, c)
	if through.Allowed {
		return through, nil
	}
	d, err := v.decide(ctx, m, "", a)
	if err == nil && !d.Allowed && throughErr != nil {
		// an index that lists it might have allowed it
		return v.doubt(ctx, d, throughErr, a)
	}
	return d, err
}

// maxIndexes is how many indexes one request looks at on its way up.
const maxIndexes = 64

// climb bounds the way up from a manifest through the indexes that list it.
type climb struct {
	depth int  // indexes above the manifest that was asked for
	left  *int // indexes that may still be looked at, wherever they are
}

func newClimb() climb {
	left := maxIndexes
	return climb{left: &left}
}

// doubt makes of a denial the inconclusive decision that it is when what might
// have turned it could not be read, and records that.
func (v *view) doubt(ctx context.Context, d policy.Decision, err error, a asker) (policy.Decision, error) {
	if _, ok := errors.AsType[*undecided](err); ok || ctx.Err() != nil {
		return d, err
	}
	d.ID, d.Time, d.Allowed = policy.NewID(), v.proxy.now(), false
	d.Reason = policy.ReasonInconclusive
	d.Explained = "what may vouch for it (an index that lists it, its subject, its layers) could not be read"
	d.Hint = "try again; when it stays, look for this id in the log"
	d.Remedies = []policy.Remedy{{Do: d.Hint}}
	if recordErr := v.record(ctx, d, err, a); recordErr != nil {
		return d, recordErr
	}
	return d, &undecided{decision: d, image: a.image, err: err}
}

// admitThrough looks for an index that lists m, hashed again, and is allowed
// now by the policy that decides this request.
func (v *view) admitThrough(ctx context.Context, m *manifest, a asker, c climb) (policy.Decision, error) {
	if c.depth >= verifier.MaxIndexDepth {
		return policy.Decision{}, nil
	}
	_, parents, err := v.proxy.index.Known(ctx, v.name, m.digest)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("read the index: %w", err)
	}
	var undecidedErr error
	for _, digest := range parents {
		if *c.left--; *c.left < 0 {
			break
		}
		index, err := v.byDigest(ctx, digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			undecidedErr = err
			continue
		}
		if !index.lists(m) {
			continue
		}
		d, err := v.admit(ctx, index, a.unnamed(), climb{c.depth + 1, c.left})
		if err != nil {
			undecidedErr = err
		} else if d.Allowed {
			return v.recordThrough(ctx, m, d, a)
		}
	}
	return policy.Decision{}, undecidedErr
}

// lists reports whether an index lists m as it is, its size and media type
// included.
func (m *manifest) lists(child *manifest) bool {
	if !m.index || len(m.manifests) > verifier.MaxChildren {
		return false
	}
	desc, ok := m.reaches(child.digest)
	return ok && desc.Size == int64(len(child.bytes)) && (desc.MediaType == child.mediaType || desc.MediaType == "")
}

// recordThrough makes the decision about a child from the one about its index.
func (v *view) recordThrough(ctx context.Context, child *manifest, parent policy.Decision, a asker) (policy.Decision, error) {
	return v.derive(ctx, child, parent, a, func(d *policy.Decision) { d.Via = parent.Subject.Digest.String() })
}

// recordAbout makes the decision about evidence from the one about its subject.
func (v *view) recordAbout(ctx context.Context, evidence *manifest, subject policy.Decision, a asker) (policy.Decision, error) {
	return v.derive(ctx, evidence, subject, a, func(d *policy.Decision) {
		d.About = subject.Subject.Digest.String()
		if d.Allowed {
			d.Explained += ", and this is evidence about it: " + d.About
		} else {
			d.Explained = "it is evidence about " + d.About + ", which is refused: " + d.Explained
		}
	})
}

// derive makes the decision about m from another one, and records it once for
// each of those.
func (v *view) derive(ctx context.Context, m *manifest, from policy.Decision, a asker, change func(*policy.Decision)) (policy.Decision, error) {
	key := decisionKey{repository: v.name, digest: m.digest, via: from.ID}
	if d, ok := v.decisions.get(key, v.proxy.now()); ok {
		return d, nil
	}
	return flight(ctx, &v.deciding, "via\x00"+from.ID+"\x00"+m.digest.Hex, verifier.DecisionTime, func(ctx context.Context) (policy.Decision, error) {
		if d, ok := v.decisions.get(key, v.proxy.now()); ok {
			return d, nil
		}
		d := from
		d.ID = a.newID()
		d.Time = v.proxy.now()
		d.Subject.Digest, d.Subject.Tag = m.digest, ""
		change(&d)
		if err := v.record(ctx, d, nil, a); err != nil {
			return policy.Decision{}, err
		}
		v.decisions.addDerived(key, d, from.ID, v.proxy.now())
		if d.Via != "" && d.Served() {
			v.expect(ctx, m)
		}
		return d, nil
	})
}

func (v *view) ownKey(m *manifest, tag string) decisionKey {
	return v.keyUnder(v.Gate.Scope(v.name), m, tag)
}

func (v *view) keyUnder(scope policy.Scope, m *manifest, tag string) decisionKey {
	key := decisionKey{repository: v.name, digest: m.digest}
	if scope.ReadsTag {
		key.tag = tag
	}
	return key
}

// decide decides about a manifest by its own evidence, once for all who ask at
// the same time; the decision is recorded before anybody acts on it.
func (v *view) decide(ctx context.Context, m *manifest, tag string, a asker) (policy.Decision, error) {
	key := v.ownKey(m, tag)
	if d, ok := v.decisions.get(key, v.proxy.now()); ok {
		return d, nil
	}
	type outcome struct {
		decision policy.Decision
		err      error
	}
	pushed, removed := v.pushed.Load(), v.removed.Load()
	o, err := flight(ctx, &v.deciding, key.repository+"\x00"+key.digest.Hex+"\x00"+key.tag+"\x00"+strconv.FormatUint(pushed, 10), 2*verifier.DecisionTime, func(ctx context.Context) (outcome, error) {
		if d, ok := v.decisions.get(key, v.proxy.now()); ok {
			return outcome{decision: d}, nil
		}
		d, expected, err := v.evaluate(ctx, m, policy.Subject{
			Repository: v.name, Tag: tag, Digest: m.digest, Aliases: v.aliases(), ID: a.id,
		})
		if recordErr := v.record(ctx, d, err, a); recordErr != nil {
			expected.dropped()
			return outcome{}, recordErr
		}
		if err == nil && d.Served() && expected == nil {
			v.expect(ctx, m) // nothing was looked for
		}
		if err != nil {
			return outcome{d, &undecided{decision: d, err: err}}, nil
		}
		v.decisions.addWhile(key, d, v.proxy.now(), func() bool {
			if d.Allowed {
				return v.removed.Load() == removed // else it may rest on what is gone
			}
			return v.pushed.Load() == pushed // else what was pushed meanwhile might turn it
		})
		return outcome{decision: d}, nil
	})
	if err != nil {
		return policy.Decision{}, err
	}
	if u, ok := errors.AsType[*undecided](o.err); ok {
		return o.decision, &undecided{decision: u.decision, image: a.image, err: u.err}
	}
	return o.decision, nil
}

// aliases are the other names under which a signature may know the repository.
func (v *view) aliases() []string {
	var names []string
	add := func(host, repository string) {
		if host != "" {
			names = append(names, host+"/"+repository)
		}
	}
	add(v.registered.URLHost, v.repository)
	add(v.ExternalHost, v.name)
	first, _, _ := strings.Cut(v.repository, "/")
	if _, other := v.Upstreams[canonicalRegistry(first)]; other && first != v.repository {
		return names // behind this proxy that would name a repository of this other one
	}
	for _, host := range v.registered.Hosts {
		add(host, v.repository)
	}
	if of, listed := v.upstreamOfHost(v.ExternalHost); v.DefaultUpstream == v.upstream && (!listed || of == v.upstream) {
		add(v.ExternalHost, v.repository)
	}
	return names
}

// asEvidence decides about a manifest as a signature artifact, another
// referrer, or a list of referrers: it is served while its subject is allowed,
// and makes nothing else servable. It is one only by digest, or under a tag that
// is made of its subject's digest. isEvidence is false when the bytes do not
// prove that it is one; then the manifest is an image like any other.
func (v *view) asEvidence(ctx context.Context, m *manifest, tag string, a asker) (d policy.Decision, isEvidence bool, err error) {
	named, suffix, _ := subjectOfTag(tag)
	if m.index {
		return v.asListing(ctx, m, named, suffix, a)
	}
	// Under a tag of its own whatever it is is asked for to be used.
	if tag != "" && isZero(named) {
		return policy.Decision{}, false, nil
	}
	subject, err := v.subjectOf(ctx, m, named)
	if err != nil || isZero(subject) {
		return policy.Decision{}, false, err
	}
	return v.admitSubject(ctx, subject, a)
}

// asListing decides about an index that lists referrers under the fallback
// tag. Asked for by digest, it is one when the fallback tag of a subject that
// it is known to belong to still names it.
func (v *view) asListing(ctx context.Context, m *manifest, subject v1.Hash, suffix string, a asker) (policy.Decision, bool, error) {
	if !m.isListing() {
		return policy.Decision{}, false, nil
	}
	if !isZero(subject) {
		if suffix != "" || subject == m.digest {
			return policy.Decision{}, false, nil
		}
		d, ok, err := v.admitSubject(ctx, subject, a)
		if ok && err == nil && d.Served() {
			v.remember(ctx, subject, m.digest)
		}
		return d, ok, err
	}
	_, candidates, err := v.proxy.index.Known(ctx, v.name, m.digest)
	if err != nil {
		return policy.Decision{}, false, fmt.Errorf("read the index: %w", err)
	}
	for _, candidate := range candidates {
		if parent, err := v.held(ctx, candidate); err == nil && parent.lists(m) {
			continue // an index above it, and no subject
		}
		listing, err := v.byTag(ctx, fallbackTag(candidate), v.TagTTL, v.MaxStale)
		if err != nil || listing.digest != m.digest {
			continue
		}
		return v.admitSubject(ctx, candidate, a)
	}
	return policy.Decision{}, false, nil
}

func (v *view) admitSubject(ctx context.Context, subject v1.Hash, a asker) (policy.Decision, bool, error) {
	sm, err := v.byDigest(ctx, subject)
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Decision{}, false, nil
	}
	if err != nil {
		return policy.Decision{}, false, err
	}
	d, err := v.admit(ctx, sm, a.about(subject), newClimb())
	return d, true, err
}

// remember keeps what an admitted manifest references.
func (v *view) remember(ctx context.Context, parent v1.Hash, edges ...v1.Hash) {
	if err := v.proxy.index.Delivered(ctx, v.name, parent, edges...); err != nil {
		v.proxy.logger.Warn("cannot index what a manifest references", "repository", v.name, "digest", parent.String(), "err", err)
	}
}
