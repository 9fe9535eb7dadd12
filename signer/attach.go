package signer

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

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

// job is something on its way into the image, or the list, under a tag: a
// signature, or what an Addition asks for. It is used by one goroutine at a time.
type job struct {
	result Result
	what   string // for errors
	form   string // of what it is added to, for errors
	blobs  []Blob // that the layers reference
	layers []signatureLayer

	// holds reports whether the image has it.
	holds func(signatureImage) bool
	start func() signatureImage // where there is no image yet
	parse func([]byte) (signatureImage, error)
	exact []byte // written as it is where there is no image yet; nil for none

	uploaded bool
	written  bool          // since it was last found to have stayed
	attempts int           // merges so far
	lost     int           // times that it was overwritten
	failures int           // failed writes in a row
	window   time.Duration // the longest between a last read and the end of its write
}

func (s *Signer) signatureJob(request Request, payload, signature []byte) (*job, error) {
	desc := describe(envelope.MediaTypeSimpleSigning, payload)
	desc.Annotations = map[string]string{
		signatureAnnotation: base64.StdEncoding.EncodeToString(signature),
	}
	layer, err := newLayer(desc)
	if err != nil {
		return nil, err
	}
	return &job{
		result: Result{Request: request, Tag: Tag(request.Subject), Kept: true},
		what:   "the signature of " + request.Subject.String(),
		form:   "a signature image",
		blobs:  []Blob{{desc.Digest, payload}},
		layers: []signatureLayer{layer},
		holds: func(img signatureImage) bool {
			return img.holds(s.key.Public(), payload, desc.Digest)
		},
		start: func() signatureImage { return newSignatureImage(s.dockerMediaTypes) },
		parse: parseSignatureImage,
	}, nil
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
		if err := pause(ctx, settleTime(pending)); err != nil {
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
func settleTime(jobs []*job) time.Duration {
	settle := SettleFloor
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
	img, raw, err := s.read(ctx, j)
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
	img, _, err := s.read(ctx, j)
	if err != nil {
		return fmt.Errorf("written, but not seen to have stayed: %w", err)
	}
	if s.has(j, img) {
		j.written = false
	}
	return nil
}

func (s *Signer) has(j *job, img signatureImage) bool {
	if !j.holds(img) {
		return false
	}
	j.result.Signatures = len(img.layers)
	return true
}

// merge adds the job's signature to img, which was read as raw, and writes it,
// unless somebody else wrote meanwhile. It returns what the tag names then.
func (s *Signer) merge(ctx context.Context, j *job, img signatureImage, raw []byte) (signatureImage, []byte, error) {
	merged := img.with(img.without(j.layers)...)
	manifest, config, err := merged.encode()
	if err != nil {
		return img, raw, err
	}
	if raw == nil && j.exact != nil {
		manifest, config = j.exact, nil
	}
	if err := s.upload(ctx, j, config); err != nil {
		return img, raw, err
	}

	begin := time.Now()
	current, currentRaw, err := s.read(ctx, j)
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
	img, raw, err := s.read(ctx, j)
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
	return s.read(ctx, j)
}

// upload stores the blobs that the merged manifest references.
func (s *Signer) upload(ctx context.Context, j *job, config []byte) error {
	if !j.uploaded {
		for _, blob := range j.blobs {
			if err := s.registry.PutBlob(ctx, j.result.Repository, blob.Digest, blob.Data); err != nil {
				return fmt.Errorf("upload the payload: %w", err)
			}
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

// read returns the image under the job's tag, or the one to start from when
// there is none. raw is what was read; nil for none.
func (s *Signer) read(ctx context.Context, j *job) (img signatureImage, raw []byte, err error) {
	raw, err = s.registry.Manifest(ctx, j.result.Repository, j.result.Tag)
	if errors.Is(err, fs.ErrNotExist) {
		return j.start(), nil, nil
	}
	if err != nil {
		return signatureImage{}, nil, fmt.Errorf("read %s: %w", j.result.Tag, err)
	}
	if img, err = j.parse(raw); err != nil {
		return signatureImage{}, nil, fmt.Errorf("what is under %s is not %s that could be added to: %w", j.result.Tag, j.form, err)
	}
	return img, raw, nil
}
