package verifier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

// Report is what Verify found.
type Report struct {
	// Evidence is all that was looked at, verified or rejected, in the order
	// of the sources and, within one, in the registry's. There may be more
	// that was not: see Failures and TooMany.
	Evidence []Evidence
	// Failures are the sources and payloads that could not be read. With any,
	// a denial is inconclusive.
	Failures []SourceFailure
	// TooMany says that there were more than MaxSignatures, which were not
	// tried, and that those tried did not satisfy.
	TooMany bool
}

// SourceFailure is a place where evidence may be, and nobody could tell.
type SourceFailure struct {
	Source string // the source's name
	Err    error
}

// Verify looks in sources, in their order, for evidence about subject, and
// checks it against the keys of the authorities that are not suspended.
//
// After each piece of evidence it calls satisfied, when that is not nil, with
// all evidence so far, and stops when it returns true: nothing more is fetched
// than the first signature needs when that one satisfies. The slice must not be
// kept or changed. At most MaxSignatures are tried; what is the same signature
// over the same payload as one before is passed over and does not count.
//
// Verify returns when ctx ends, with a failure. It spends one request for each
// manifest that a source asks for and at most one for each signature that it
// tries, eight of these at once; signatures over one payload of usual size share
// a request.
func Verify(ctx context.Context, registry Registry, subject Subject, authorities []Authority, sources []Source, satisfied func([]Evidence) bool) Report {
	v := verification{
		registry:  registry,
		subject:   subject,
		keys:      trustedKeys(authorities),
		satisfied: satisfied,
		seen:      make(map[identity]bool),
		payloads:  make(map[payloadID]payload),
		window:    1,
	}
	for _, source := range sources {
		if v.done {
			break
		}
		v.consult(ctx, source)
	}
	return v.report
}

// trusted is a key and the names of the authorities that hold it.
type trusted struct {
	key         Key
	authorities []string
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
		}
	}
	return keys
}

// verification is the state of one call of Verify; one goroutine changes it.
type verification struct {
	registry  Registry
	subject   Subject
	keys      []trusted
	satisfied func([]Evidence) bool

	report   Report
	done     bool
	seen     map[identity]bool
	payloads map[payloadID]payload // fetched, small ones
	window   int                   // how many candidates are gathered before their payloads are fetched
}

// identity is what makes two candidates one piece of work.
type identity struct {
	digest           v1.Hash
	size             int64
	signature, fault string
}

type payloadID struct {
	digest v1.Hash
	size   int64
}

type payload struct {
	data []byte
	err  error
}

// consult tries what source yields. Candidates are gathered up to the window,
// which is one candidate at first, lest more be fetched than is needed.
func (v *verification) consult(ctx context.Context, source Source) {
	var batch []Candidate
	flush := func() {
		v.try(ctx, source.Name(), batch)
		batch = nil
	}
	err := source.Find(ctx, v.registry, v.subject, func(c Candidate) bool {
		id := identity{c.blob.Digest, c.blob.Size, string(c.signature), c.fault}
		switch {
		case v.seen[id]:
		case len(v.seen) == MaxSignatures:
			flush()
			v.report.TooMany = !v.done
			v.done = true
		default:
			v.seen[id] = true
			batch = append(batch, c)
		}
		if len(batch) == v.window || !c.more {
			flush()
		}
		return !v.done
	})
	flush()
	if err != nil {
		v.fail(source.Name(), err)
	}
}

// try checks a batch, in its order, until the evidence satisfies.
func (v *verification) try(ctx context.Context, source string, batch []Candidate) {
	if v.done || len(batch) == 0 {
		return
	}
	payloads := v.fetch(ctx, batch)
	v.window = maxFetches
	for _, c := range batch {
		if err := ctx.Err(); err != nil {
			v.fail(source, err)
			v.done = true
			return
		}
		evidence, err := v.check(c, payloads[payloadID{c.blob.Digest, c.blob.Size}])
		if err != nil {
			v.fail(source, err)
			continue
		}
		v.report.Evidence = append(v.report.Evidence, evidence)
		if v.satisfied != nil && v.satisfied(v.report.Evidence) {
			v.done = true
			return
		}
	}
}

func (v *verification) fail(source string, err error) {
	v.report.Failures = append(v.report.Failures, SourceFailure{Source: source, Err: err})
}

// fetch returns the payloads of batch, each fetched once. Without a key to try
// on them there is no use for any.
func (v *verification) fetch(ctx context.Context, batch []Candidate) map[payloadID]payload {
	payloads := make(map[payloadID]payload, len(batch))
	var missing []v1.Descriptor
	for _, c := range batch {
		id := payloadID{c.blob.Digest, c.blob.Size}
		if _, ok := payloads[id]; ok || c.fault != "" || len(v.keys) == 0 {
			continue
		}
		kept, ok := v.payloads[id]
		payloads[id] = kept
		if !ok {
			missing = append(missing, c.blob)
		}
	}
	for i, fetched := range v.fetchAll(ctx, missing) {
		id := payloadID{missing[i].Digest, missing[i].Size}
		payloads[id] = fetched
		if len(fetched.data) <= maxKept {
			v.payloads[id] = fetched
		}
	}
	return payloads
}

// fetchAll fetches blobs at the same time; one alone by the calling goroutine.
// A panic of the registry's reaches the caller.
func (v *verification) fetchAll(ctx context.Context, blobs []v1.Descriptor) []payload {
	fetched := make([]payload, len(blobs))
	panics := make([]any, len(blobs))
	var running sync.WaitGroup
	for i, blob := range blobs {
		if len(blobs) == 1 {
			fetched[i] = v.fetchOne(ctx, blob)
			break
		}
		running.Go(func() {
			defer func() { panics[i] = recover() }()
			fetched[i] = v.fetchOne(ctx, blob)
		})
	}
	running.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p)
		}
	}
	return fetched
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

// check returns what a candidate turns out to be. An error means that nobody
// could tell.
func (v *verification) check(c Candidate, p payload) (Evidence, error) {
	e := Evidence{form: FormSimpleSigning, source: c.origin, digest: c.blob.Digest}
	switch {
	case c.fault != "":
		return e.rejected(ReasonPayloadInvalid, c.fault), nil
	case len(v.keys) == 0:
		return e.rejected(ReasonUntrusted, "there is no key to check it with"), nil
	case errors.Is(p.err, fs.ErrNotExist):
		return e.rejected(ReasonPayloadInvalid, fmt.Sprintf("its payload %s is missing", c.blob.Digest)), nil
	case p.err != nil:
		return Evidence{}, fmt.Errorf("%s: payload %s: %w", c.origin, c.blob.Digest, p.err)
	}
	holder, ok := v.holder(p.data, c.signature)
	if !ok {
		return e.rejected(ReasonUntrusted, fmt.Sprintf("its signature is by none of the keys asked for (%d)", len(v.keys))), nil
	}
	e.keyID = holder.key.id
	said, err := envelope.ParsePayload(p.data)
	if err != nil {
		return e.rejected(ReasonPayloadInvalid, err.Error()), nil
	}
	e.claimedName, e.annotations = said.Reference, said.Annotations
	if said.Digest != v.subject.Digest.String() {
		return e.rejected(ReasonDigestMismatch, fmt.Sprintf("key %.12s signed %s@%s", e.keyID, said.Reference, said.Digest)), nil
	}
	e.verified, e.authorities = true, holder.authorities
	return e, nil
}

// holder returns the first key that verifies signature over data.
func (v *verification) holder(data, signature []byte) (trusted, bool) {
	m := newMessage(data)
	for _, k := range v.keys {
		if k.key.verifies(m, signature) {
			return k, true
		}
	}
	return trusted{}, false
}
