package signer

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

const (
	// SettleFloor is the shortest time after which a write is looked at again.
	SettleFloor = time.Second

	// settleWindows is how many times the longest measured window a write is
	// given to settle, when that is longer.
	settleWindows = 4

	// maxAttempts bounds how often one signature is merged.
	maxAttempts = 100

	// maxFailures bounds how many writes in a row may fail.
	maxFailures = 3

	// The bounds of the random pause after a signature was overwritten: it
	// doubles from the one to the other.
	minPause = 20 * time.Millisecond
	maxPause = 2 * time.Second
)

// job is one signature on its way into the registry. It is used by one
// goroutine at a time.
type job struct {
	result  Result
	payload []byte
	layer   v1.Descriptor // with the signature as an annotation

	uploaded bool
	written  bool          // since it was last found to have stayed
	attempts int           // merges so far
	lost     int           // times that it was overwritten
	failures int           // failed writes in a row
	window   time.Duration // the longest between a last read and the end of its write
}

func newJob(request Request, payload, signature []byte) *job {
	layer := describe(envelope.MediaTypeSimpleSigning, payload)
	layer.Annotations = map[string]string{
		signatureAnnotation: base64.StdEncoding.EncodeToString(signature),
	}
	return &job{
		result:  Result{Request: request, Tag: Tag(request.Subject), Kept: true},
		payload: payload,
		layer:   layer,
	}
}

// attachAll attaches every job's signature and looks whether it stays, until
// all have stayed.
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

// attach merges the job's signature into the image under its tag until it is
// in what the registry serves.
func (s *Signer) attach(ctx context.Context, j *job) error {
	if s.locker != nil {
		unlock, err := s.locker.Lock(ctx, j.result.Repository+"/"+j.result.Tag)
		if err != nil {
			return err
		}
		defer unlock()
	}
	img, raw, err := s.read(ctx, j.result.Repository, j.result.Tag)
	if err != nil {
		return err
	}
	for ; !s.has(j, img); j.attempts++ {
		if j.attempts == maxAttempts {
			return fmt.Errorf("other writers kept overwriting it: gave up after %d attempts", maxAttempts)
		}
		img, raw, err = s.merge(ctx, j, img, raw)
		if err != nil {
			return err
		}
	}
	return nil
}

// settled reads once more whether the job's signature is still there. When it
// is not, the job stays among those to be attached.
func (s *Signer) settled(ctx context.Context, j *job) error {
	img, _, err := s.read(ctx, j.result.Repository, j.result.Tag)
	if err != nil {
		return fmt.Errorf("written, but not seen to have stayed: %w", err)
	}
	if s.has(j, img) {
		j.written = false
	}
	return nil
}

func (s *Signer) has(j *job, img signatureImage) bool {
	if !img.holds(s.key.Public(), j.payload, j.layer.Digest) {
		return false
	}
	j.result.Signatures = len(img.layers)
	return true
}

// merge adds the job's signature to img, which was read as raw, and writes it,
// unless somebody else wrote meanwhile. It returns what the tag names then.
func (s *Signer) merge(ctx context.Context, j *job, img signatureImage, raw []byte) (signatureImage, []byte, error) {
	merged, err := img.with(j.layer)
	if err != nil {
		return img, raw, err
	}
	manifest, config, err := merged.encode()
	if err != nil {
		return img, raw, err
	}
	if err := s.upload(ctx, j, config); err != nil {
		return img, raw, err
	}

	begin := time.Now()
	current, currentRaw, err := s.read(ctx, j.result.Repository, j.result.Tag)
	if err != nil || !bytes.Equal(raw, currentRaw) {
		return current, currentRaw, err
	}
	putErr := s.registry.PutManifest(ctx, j.result.Repository, j.result.Tag, merged.media, manifest)
	j.window = max(j.window, time.Since(begin))
	j.written, j.result.Kept = true, false
	return s.readBack(ctx, j, putErr)
}

// readBack reads what the tag names after a write. A write that failed may
// have happened all the same, and one that did not may be undone already: the
// tag tells. When the signature is not there it pauses, and reads again.
func (s *Signer) readBack(ctx context.Context, j *job, putErr error) (signatureImage, []byte, error) {
	img, raw, err := s.read(ctx, j.result.Repository, j.result.Tag)
	if err != nil {
		return img, raw, fmt.Errorf("write %s: %w", j.result.Tag, errors.Join(putErr, err))
	}
	switch {
	case s.has(j, img):
		j.failures = 0
		return img, raw, nil
	case putErr == nil:
		j.failures = 0
		j.lost++
	default:
		j.failures++
	}
	if j.failures == maxFailures {
		return img, raw, fmt.Errorf("write %s: %w", j.result.Tag, putErr)
	}
	longest := min(maxPause, max(minPause, j.window)<<min(j.lost+j.failures, 16))
	if err := pause(ctx, rand.N(longest)); err != nil {
		return img, raw, fmt.Errorf("write %s: %w", j.result.Tag, errors.Join(putErr, err))
	}
	return s.read(ctx, j.result.Repository, j.result.Tag)
}

// upload stores the blobs that the merged manifest references.
func (s *Signer) upload(ctx context.Context, j *job, config []byte) error {
	if !j.uploaded {
		if err := s.registry.PutBlob(ctx, j.result.Repository, j.layer.Digest, j.payload); err != nil {
			return fmt.Errorf("upload the payload: %w", err)
		}
		j.uploaded = true
	}
	if config == nil {
		return nil
	}
	if err := s.registry.PutBlob(ctx, j.result.Repository, digestOf(config), config); err != nil {
		return fmt.Errorf("upload the config: %w", err)
	}
	return nil
}
