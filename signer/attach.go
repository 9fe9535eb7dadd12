package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// SettleFloor is the shortest time after which a write is looked at again.
	SettleFloor = time.Second

	// settleWindows is how many times the longest measured window a write is
	// given to settle, when that is longer.
	settleWindows = 4

	// maxAttempts bounds how often one addition is merged.
	maxAttempts = 100

	// maxFailures bounds how many writes in a row may fail.
	maxFailures = 3

	// The bounds of the random pause after an addition was overwritten: it
	// doubles from the one to the other.
	minPause = 20 * time.Millisecond
	maxPause = 2 * time.Second
)

// HeldError says that a tag holds what nothing can be added to, and what is not
// replaced: somebody has to look at it.
type HeldError struct {
	Tag string
	Err error // completes "is not"
}

// Error tells what is held, and what it is not.
func (e *HeldError) Error() string { return fmt.Sprintf("what is under %s is not %v", e.Tag, e.Err) }

// Unwrap returns what is wrong with it.
func (e *HeldError) Unwrap() error { return e.Err }

// BlockedBy returns the tag.
func (e *HeldError) BlockedBy() string { return e.Tag }

// fullError says that a document has no room for what is to be added.
type fullError struct{ error }

func (e *fullError) Unwrap() error { return e.error }

// orHeld is err as a HeldError when a document is full, which it stays until somebody
// takes something off.
func orHeld(tag string, err error) error {
	if full, ok := errors.AsType[*fullError](err); ok {
		return &HeldError{tag, fmt.Errorf("to be added to: %w", full)}
	}
	return err
}

// document is what a tag names, and several writers add to.
type document interface {
	// encode returns the manifest, and the config that goes with it, nil when
	// there is none to be written. Both depend on what was read and added
	// alone, and on the time only where that is to be recorded, so that two
	// writers that merge the same write the same bytes.
	encode() (manifest, config []byte, err error)
	mediaType() types.MediaType
	size() int // of the list that is added to
}

// addition is what a job adds to a document.
type addition interface {
	// read parses what the tag names; nil stands for nothing.
	read(raw []byte) (document, error)
	// in reports whether a document has it.
	in(document) bool
	// prepare does what is needed before it can be added: it signs, and stores
	// the blobs that are referenced. It is called once, and only when it is
	// not there already.
	prepare(context.Context) error
	to(document) (document, error)
}

// job is one addition on its way to what a tag names. It is used by one
// goroutine at a time.
type job struct {
	addition
	result Result

	prepared bool
	written  bool          // since it was last found to have stayed
	attempts int           // merges so far
	lost     int           // times that it was overwritten
	failures int           // failed writes in a row
	window   time.Duration // the longest between a last read and the end of its write
}

func newJob(result Result, add addition) *job {
	result.Kept = true
	return &job{addition: add, result: result}
}

// attachAll makes every job's addition and looks whether it stays, until all
// have stayed.
func (s *Signer) attachAll(ctx context.Context, jobs []*job) error {
	pending := jobs
	for len(pending) > 0 {
		if err := each(ctx, pending, s.attach); err != nil {
			return err
		}
		pending = writtenOf(pending)
		if len(pending) == 0 {
			return nil
		}
		if err := pause(ctx, settleTime(pending, s.settle)); err != nil {
			return fmt.Errorf("written, but not seen to have stayed: %w", err)
		}
		if err := each(ctx, pending, s.settled); err != nil {
			return err
		}
		pending = writtenOf(pending)
	}
	return nil
}

// writtenOf returns the jobs whose write has not been seen to stay.
func writtenOf(jobs []*job) []*job {
	var written []*job
	for _, j := range jobs {
		if j.written {
			written = append(written, j)
		}
	}
	return written
}

// settleTime is longer than the time within which another writer, as fast as
// this one, can still overwrite what this one wrote.
func settleTime(jobs []*job, floor time.Duration) time.Duration {
	settle := floor
	for _, j := range jobs {
		settle = max(settle, settleWindows*j.window)
	}
	return settle + rand.N(settle/4)
}

// attach merges the job's addition into what its tag names until it is in what
// the registry serves.
func (s *Signer) attach(ctx context.Context, j *job) error {
	unlock, err := s.lock(ctx, j.result.Repository, j.result.Tag)
	if err != nil {
		return err
	}
	defer unlock()
	doc, raw, err := s.read(ctx, j)
	if err != nil {
		return err
	}
	for ; !j.has(doc); j.attempts++ {
		if j.attempts == maxAttempts {
			return fmt.Errorf("other writers kept overwriting it: gave up after %d attempts", maxAttempts)
		}
		if !j.prepared {
			if err := j.prepare(ctx); err != nil {
				return err
			}
			j.prepared = true
		}
		doc, raw, err = s.merge(ctx, j, doc, raw)
		if err != nil {
			return err
		}
	}
	return nil
}

// lock makes writers of one tag on this host take turns.
func (s *Signer) lock(ctx context.Context, repository, tag string) (unlock func(), err error) {
	if s.locker == nil {
		return func() {}, nil
	}
	return s.locker.Lock(ctx, repository+"/"+tag)
}

// settled reads once more whether the job's addition is still there. When it
// is not, the job stays among those to be attached.
func (s *Signer) settled(ctx context.Context, j *job) error {
	doc, _, err := s.read(ctx, j)
	if err != nil {
		return fmt.Errorf("written, but not seen to have stayed: %w", err)
	}
	if j.has(doc) {
		j.written = false
	}
	return nil
}

func (j *job) has(doc document) bool {
	if !j.in(doc) {
		return false
	}
	j.result.Signatures = doc.size()
	return true
}

// read returns what the job's tag names, or what to start from when there is
// nothing. raw is what was read; nil for nothing.
func (s *Signer) read(ctx context.Context, j *job) (doc document, raw []byte, err error) {
	raw, err = s.registry.Manifest(ctx, j.result.Repository, j.result.Tag)
	if errors.Is(err, fs.ErrNotExist) {
		raw = nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", j.result.Tag, err)
	}
	if doc, err = j.addition.read(raw); err != nil {
		return nil, nil, &HeldError{j.result.Tag, err}
	}
	return doc, raw, nil
}

// merge adds the job's addition to doc, which was read as raw, and writes it,
// unless somebody else wrote meanwhile. It returns what the tag names then.
func (s *Signer) merge(ctx context.Context, j *job, doc document, raw []byte) (document, []byte, error) {
	merged, err := j.to(doc)
	if err != nil {
		return doc, raw, orHeld(j.result.Tag, err)
	}
	manifest, config, err := merged.encode()
	if err != nil {
		return doc, raw, orHeld(j.result.Tag, err)
	}
	if config != nil {
		if err := s.registry.PutBlob(ctx, j.result.Repository, digestOf(config), config); err != nil {
			return doc, raw, fmt.Errorf("upload the config: %w", err)
		}
	}

	begin := time.Now()
	current, currentRaw, err := s.read(ctx, j)
	if err != nil || !bytes.Equal(raw, currentRaw) {
		return current, currentRaw, err
	}
	_, putErr := s.registry.PutManifest(ctx, j.result.Repository, j.result.Tag, merged.mediaType(), manifest)
	j.window = max(j.window, time.Since(begin))
	j.written, j.result.Kept = true, false
	return s.readBack(ctx, j, putErr)
}

// readBack reads what the tag names after a write. A write that failed may
// have happened all the same, and one that did not may be undone already: the
// tag tells. When the addition is not there it pauses, and reads again.
func (s *Signer) readBack(ctx context.Context, j *job, putErr error) (document, []byte, error) {
	doc, raw, err := s.read(ctx, j)
	if err != nil {
		return doc, raw, fmt.Errorf("write %s: %w", j.result.Tag, errors.Join(putErr, err))
	}
	switch {
	case j.has(doc):
		j.failures = 0
		return doc, raw, nil
	case putErr == nil, errors.Is(putErr, ErrChanged):
		j.failures = 0
		j.lost++
	default:
		j.failures++
	}
	if j.failures == maxFailures {
		return doc, raw, fmt.Errorf("write %s: %w", j.result.Tag, putErr)
	}
	longest := min(maxPause, max(minPause, j.window)<<min(j.lost+j.failures, 16))
	if err := pause(ctx, rand.N(longest)); err != nil {
		return doc, raw, fmt.Errorf("write %s: %w", j.result.Tag, errors.Join(putErr, err))
	}
	return s.read(ctx, j)
}
