package proxy

import (
	"context"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// The short path: a request that was answered with content a moment ago is
// answered with the same again, for as long as the long path could not come to
// another end. What it stands on is kept with it and asked at every request:
//
//   - The revision: what is kept here belongs to one, and goes with it.
//   - The decision, and each that it was derived from, which must be in the cache
//     of decisions still and within their time. Only what is allowed is kept: not
//     what is served because nothing enforces the policy, nor evidence, which is
//     served for another's sake.
//   - The record: the long path has kept one for this very reference.
//   - The tag: the upstream confirmed it within TagTTL, and nobody has heard
//     anything about it since.
//   - The repository: it is part of the key, as the upstream that delivered the
//     content there.
//
// Nothing in an answer depends on who asks or how, but for headers that are made
// anew. Whether the caller may pull there is asked before this, every time: who
// may not is never answered from here.
//
// All of it expires after answerKept, when the long path says once more what is
// in use and what is referenced, to caches and an index that forget.
const answerKept = 5 * time.Second

// answerKey is a request for a manifest: all that its answer depends on under
// one revision.
type answerKey struct {
	place
	reference string // tag or digest
}

// answer is what a request for a manifest was answered with. It is not changed
// once it is kept.
type answer struct {
	name      string // the canonical repository
	digest    v1.Hash
	decision  *standing
	id        []string  // X-Request-Id
	warning   []string  // Warning; of an exception
	since     time.Time // when the long path gave it
	confirmed time.Time // when the upstream confirmed the tag
}

// answers keeps answers.
type answers struct {
	*memory[answerKey, *answer]
	heard atomic.Uint64 // how often a tag was heard of; changed before what is kept of it goes
}

func newAnswers() *answers {
	return &answers{memory: newMemory(maxAnswers, func(k answerKey, a *answer) int {
		return answerSize + len(a.name) + len(k.reference)
	})}
}

// again returns what the request was answered with a moment ago and is to be
// answered with again, or nil.
func (q *request) again(at place) (*answer, *manifest) {
	a, ok := q.answers.get(answerKey{at, q.route.reference})
	if !ok || !isWithin(answerKept, a.since, q.begin) || !a.decision.stands(q.begin) {
		return nil, nil
	}
	if q.route.tag != "" && !isWithin(q.TagTTL, a.confirmed, q.begin) {
		return nil, nil
	}
	m, ok := q.proxy.manifests.get(a.digest)
	if !ok {
		return nil, nil
	}
	return a, m
}

// isWithin reports whether now is within d after since, and not before it.
func isWithin(d time.Duration, since, now time.Time) bool {
	age := now.Sub(since)
	return age >= 0 && age < d
}

// keepAnswer keeps what the long path answers with: m, because of d, of which
// the client has been told.
func (q *request) keepAnswer(ctx context.Context, v *view, m *manifest, d policy.Decision) {
	decision, ok := v.lasting(d, q.begin)
	if !ok {
		return
	}
	a := &answer{
		name: v.name, digest: m.digest, decision: decision, since: q.begin,
		id: q.id, warning: q.w.Header()["Warning"],
	}
	key := answerKey{placeOf(v.name), q.route.reference}
	if q.route.tag == "" {
		v.answers.add(key, a)
		return
	}
	heard := v.answers.heard.Load()
	known, confirmed, err := v.proxy.index.Tag(ctx, v.name, q.route.tag)
	if err != nil || known != m.digest {
		return
	}
	a.confirmed = confirmed
	v.answers.addUnlessHeard(key, a, heard)
}

// lasting returns the cached decision that d is, when a later request may stand
// on it without looking.
func (l *live) lasting(d policy.Decision, now time.Time) (*standing, bool) {
	if !d.Allowed || d.About != "" {
		return nil, false
	}
	s := l.decisions.standing(d.ID)
	return s, s != nil && s.stands(now)
}

// addUnlessHeard keeps an answer for a tag, unless a tag was heard of after
// heard: it may have been this one, and mean something else by now.
func (x *answers) addUnlessHeard(key answerKey, a *answer, heard uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.heard.Load() == heard {
		x.put(key, a)
	}
}

// hear drops the answer for a tag that was confirmed, has moved or is gone.
func (x *answers) hear(key answerKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard.Add(1)
	x.lru.Remove(key)
}

// forget drops the answers with a manifest of a repository.
func (x *answers) forget(at place, digest v1.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard.Add(1)
	for _, key := range x.lru.Keys() {
		if entry, ok := x.lru.Peek(key); ok && key.place == at && entry.value.digest == digest {
			x.lru.Remove(key)
		}
	}
}

// attentive is an Index that tells the short path of what becomes of tags,
// whoever sets them.
type attentive struct {
	index Index
	proxy *Proxy
}

// Tag implements Index.
func (x attentive) Tag(ctx context.Context, repository, tag string) (v1.Hash, time.Time, error) {
	return x.index.Tag(ctx, repository, tag)
}

// SetTag implements Index.
func (x attentive) SetTag(ctx context.Context, repository, tag string, digest v1.Hash, confirmed time.Time) error {
	err := x.index.SetTag(ctx, repository, tag, digest, confirmed)
	x.proxy.current.Load().answers.hear(answerKey{placeOf(repository), tag})
	return err
}

// Delivered implements Index.
func (x attentive) Delivered(ctx context.Context, repository string, digest v1.Hash, edges ...v1.Hash) error {
	return x.index.Delivered(ctx, repository, digest, edges...)
}

// Known implements Index.
func (x attentive) Known(ctx context.Context, repository string, digest v1.Hash) (bool, []v1.Hash, error) {
	return x.index.Known(ctx, repository, digest)
}

// Repositories implements Index.
func (x attentive) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	return x.index.Repositories(ctx, n, last)
}

// edgeKey is a blob of a canonical repository.
type edgeKey struct {
	repository string
	digest     v1.Hash
}

// edge is how a blob was reached: what an allowed image manifest of its
// repository says of it, and the decision about that manifest.
type edge struct {
	desc     v1.Descriptor
	decision *standing // nil as long as it is not kept
	since    time.Time
	// header values, shared by all answers
	digestHeader, etagHeader []string
	// delivered says that this repository's upstream delivered the blob, or
	// answered 200 to HEAD for it.
	delivered atomic.Bool
}

// newEdge is how a blob is reached, kept nowhere.
func newEdge(desc v1.Descriptor) *edge {
	digest := desc.Digest.String()
	return &edge{
		// the rest of what the manifest says of it is not asked for
		desc:         v1.Descriptor{MediaType: desc.MediaType, Size: desc.Size, Digest: desc.Digest},
		digestHeader: []string{digest},
		etagHeader:   []string{`"` + digest + `"`},
	}
}

// edge returns how a blob was reached a moment ago, when it still is.
func (v *view) edge(digest v1.Hash) (*edge, bool) {
	e, ok := v.edges.get(edgeKey{v.name, digest})
	if !ok {
		return nil, false
	}
	now := v.proxy.now()
	return e, isWithin(answerKept, e.since, now) && e.decision.stands(now)
}

// keepEdge returns how the long path has reached a blob, and keeps it for the
// next one who asks.
func (v *view) keepEdge(desc v1.Descriptor, d policy.Decision) *edge {
	e := newEdge(desc)
	now := v.proxy.now()
	if decision, ok := v.lasting(d, now); ok {
		e.decision, e.since = decision, now
		v.edges.add(edgeKey{v.name, desc.Digest}, e)
	}
	return e
}
