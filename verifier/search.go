package verifier

import (
	"context"
	"errors"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// allowance is how much may still be tried.
type allowance struct {
	signatures int
	bytes      int64 // of payloads that have to be fetched
}

func (a allowance) plus(b allowance) allowance {
	return allowance{a.signatures + b.signatures, a.bytes + b.bytes}
}

func (a allowance) covers(bytes int64) bool { return a.signatures > 0 && a.bytes >= bytes }

// search is one source at work, in a goroutine of its own.
type search struct {
	*verification
	source Source

	seen   map[identity]bool
	batch  []Candidate
	window int       // how many candidates are gathered before their payloads are fetched
	left   allowance // what it may try

	granted chan allowance // what it waits for in ask and pause

	// Guarded by verification.mu.
	waiting  bool  // in ask, for its part is used up
	paused   bool  // in pause
	wants    int64 // bytes of the payload that it is waiting to fetch
	ended    bool
	evidence []Evidence
	failures []SourceFailure
}

func newSearch(v *verification, source Source) *search {
	return &search{
		verification: v,
		source:       source,
		seen:         make(map[identity]bool),
		window:       1,
		granted:      make(chan allowance, 1),
	}
}

// share gives each search its part. What the sources may read to find anything, a
// manifest each unless they say more, is set aside, so that payloads never exhaust
// what a decision may read.
func (v *verification) share() {
	n := len(v.searches)
	v.pool = allowance{MaxSignatures, DecisionBytes}
	for _, s := range v.searches {
		aside := int64(MaxManifestSize)
		if r, ok := s.source.(referrers); ok {
			aside = r.reads()
		}
		v.pool.bytes = max(0, v.pool.bytes-aside)
	}
	part := allowance{v.pool.signatures / n, v.pool.bytes / int64(n)}
	for _, s := range v.searches {
		s.left = part
		v.pool = v.pool.plus(allowance{-part.signatures, -part.bytes})
	}
}

// run searches until there is nothing more to be found or wanted.
func (s *search) run(ctx context.Context) {
	defer s.end()
	err := s.source.Find(ctx, s.registry, s.subject, func(c Candidate) bool { return s.take(ctx, c) })
	s.flush(ctx)
	switch err {
	case nil:
	case ErrMore:
		s.cut()
	default:
		s.fail(err)
	}
}

// cut notes that there is more than s may look at.
func (s *search) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tooMany = s.tooMany || !s.done
}

// end is deferred by run.
func (s *search) end() {
	value := recover()
	s.mu.Lock()
	defer s.mu.Unlock()
	if value != nil && !s.done {
		s.panicked = newPanic(value)
		s.finish()
	}
	s.ended = true
	if !s.waiting && !s.paused {
		s.rest()
	}
}

// rest gives back what s has left and, when no other search is running, lets
// the next one go on. It is called with mu held.
func (s *search) rest() {
	s.pool = s.pool.plus(s.left)
	s.left = allowance{}
	if s.running--; s.running == 0 {
		s.allot()
	}
}

// allot lets all searches that have paused go on with their own parts. When there is
// none it gives all that is left to the first one whose wants it covers. When there is
// none, all is done that may be. It is called with v.mu held.
func (v *verification) allot() {
	if v.done {
		return
	}
	resumed := false
	for _, s := range v.searches {
		if s.paused {
			s.resume()
			resumed = true
		}
	}
	if resumed {
		return
	}
	for _, s := range v.searches {
		if !s.waiting {
			continue
		}
		if v.pool.covers(s.wants) {
			s.waiting = false
			v.running++
			s.granted <- v.pool
			v.pool = allowance{}
			return
		}
		v.tooMany = true
	}
	v.finish()
}

// identity is what makes two candidates one piece of work.
type identity struct {
	form             string
	mediaType        types.MediaType
	digest           v1.Hash
	size             int64
	signature, fault string
	attached         attached
}

// take gathers candidates up to the window, which is one candidate at first,
// lest more be fetched than is needed, and then tries them. It reports whether
// more are wanted.
func (s *search) take(ctx context.Context, c Candidate) bool {
	if c.patience > 0 {
		return s.flush(ctx) && s.pause(ctx, c.patience)
	}
	if s.readable(c) {
		s.found()
	}
	if !s.proves {
		c.attached = attached{} // nobody reads it: the same signature is the same work
	}
	if id := (identity{c.form, c.blob.MediaType, c.blob.Digest, c.blob.Size, string(c.signature), c.fault, c.attached}); !s.seen[id] {
		cost := s.cost(c)
		if !s.left.covers(cost) && !(s.flush(ctx) && s.ask(ctx, cost)) {
			return false
		}
		s.left = s.left.plus(allowance{-1, -cost})
		s.seen[id] = true
		s.batch = append(s.batch, c)
	}
	if len(s.batch) == s.window || !c.more {
		return s.flush(ctx)
	}
	return true
}

// readable reports whether there is anything to be learnt from c's payload.
func (v *verification) readable(c Candidate) bool {
	if c.fault != "" {
		return false
	}
	return len(v.keys)+len(v.identities) > 0 || v.stranger != nil && (c.form != FormSimpleSigning || c.attached.certificate != "")
}

// cost returns how many bytes have to be fetched to try c, at most.
func (v *verification) cost(c Candidate) int64 {
	if !v.readable(c) || v.predictions.payload(c.blob) != nil {
		return 0
	}
	return c.blob.Size
}

// ask waits until s may try a candidate that costs so many bytes, and reports
// whether it may.
func (s *search) ask(ctx context.Context, cost int64) bool {
	s.mu.Lock()
	s.waiting, s.wants = true, cost
	s.rest()
	s.mu.Unlock()
	select {
	case s.left = <-s.granted:
		return true
	case <-ctx.Done():
		s.fail(ctx.Err())
		return false
	}
}

// pause waits until no other search is at work, though no longer than patience, and
// reports whether s may go on. Its part stays its own.
func (s *search) pause(ctx context.Context, patience time.Duration) bool {
	s.mu.Lock()
	s.paused = true
	if s.running--; s.running == 0 {
		s.allot()
	}
	s.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.granted:
		return true
	case <-timer.C:
	case <-ctx.Done():
		s.fail(ctx.Err())
		return false
	}
	s.mu.Lock()
	if s.paused {
		s.resume()
	}
	s.mu.Unlock()
	<-s.granted
	return true
}

// resume ends a pause. It is called with mu held.
func (s *search) resume() {
	s.paused = false
	s.running++
	s.granted <- allowance{} // there is room for one
}

// flush tries what was gathered, in its order, until the evidence satisfies. It
// reports whether more is wanted.
func (s *search) flush(ctx context.Context) bool {
	batch := s.batch
	if len(batch) == 0 {
		return true
	}
	s.batch, s.window = nil, maxFetches
	payloads := s.fetch(ctx, batch)
	for i, c := range batch {
		evidence, err := s.check(c, payloads[i])
		if err != nil {
			s.fail(err)
		} else if !s.record(ctx, evidence) {
			return false
		}
	}
	return true
}

// record takes a piece of evidence and reports whether more is wanted.
func (s *search) record(ctx context.Context, e Evidence) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	if err := ctx.Err(); err != nil {
		s.failures = append(s.failures, SourceFailure{Source: s.source.Name(), Err: err})
		return false
	}
	s.evidence = append(s.evidence, e)
	s.all = append(s.all, e)
	if s.satisfied != nil && s.satisfied(s.all) {
		s.tooMany = false
		s.finish()
	}
	return !s.done
}

func (s *search) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.failures = append(s.failures, SourceFailure{Source: s.source.Name(), Err: err})
	}
}

type payloadID struct {
	digest v1.Hash
	size   int64
}

type payload struct {
	data []byte
	err  error
}

// fetch returns the payloads of batch; nothing for those from which nothing can
// be learnt. It fetches several at the same time, one alone by the calling
// goroutine. A panic of the registry's reaches the caller.
func (s *search) fetch(ctx context.Context, batch []Candidate) []payload {
	payloads := make([]payload, len(batch))
	var missing []int
	for i, c := range batch {
		if !s.readable(c) {
			continue
		}
		if payloads[i].data = s.predictions.payload(c.blob); payloads[i].data == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 1 {
		payloads[missing[0]] = s.fetchOnce(ctx, batch[missing[0]].blob)
		return payloads
	}
	together(len(missing), func(n int) {
		i := missing[n]
		payloads[i] = s.fetchOnce(ctx, batch[i].blob)
	})
	return payloads
}

// together calls f at the same time with each number below n, and returns when all
// have ended. A panic in one of them reaches the caller.
func together(n int, f func(i int)) {
	var running sync.WaitGroup
	panics := make([]*Panic, n)
	for i := range n {
		running.Go(func() {
			defer func() {
				if value := recover(); value != nil {
					panics[i] = newPanic(value)
				}
			}()
			f(i)
		})
	}
	running.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p)
		}
	}
}

// fetchOnce fetches a blob, once for all who ask for it in one call of Verify,
// unless it is large.
func (v *verification) fetchOnce(ctx context.Context, blob v1.Descriptor) payload {
	id := payloadID{blob.Digest, blob.Size}
	v.mu.Lock()
	get, ok := v.payloads[id]
	if !ok {
		get = sync.OnceValue(func() payload { return v.fetchOne(ctx, blob) })
		v.payloads[id] = get
	}
	v.mu.Unlock()
	p := get()
	if len(p.data) > maxKept {
		v.mu.Lock()
		delete(v.payloads, id)
		v.mu.Unlock()
	}
	return p
}

// fetchOne fetches a blob and believes only its hash.
func (v *verification) fetchOne(ctx context.Context, blob v1.Descriptor) payload {
	data, err := v.registry.Blob(ctx, v.subject.Repository, blob)
	if err != nil {
		return payload{err: err}
	}
	if int64(len(data)) != blob.Size || hashOf(data) != blob.Digest {
		return payload{err: errors.New("the registry delivered other bytes")}
	}
	return payload{data: data}
}
