package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Scrub says how to look through content.
type Scrub struct {
	// Keep leaves what is wrong where it is.
	Keep bool

	// Rate is how many bytes are read in a second at most. Zero: as fast as the
	// medium yields them.
	Rate int64

	// Found is told of each content that is not right, or cannot be read. Nil:
	// nobody is.
	Found func(Finding)

	// Progress is told, after each piece, what has been seen so far and which
	// part of the directory that is, from 0 to 1. Nil: nobody is.
	Progress func(soFar Scrubbed, part float64)
}

// Finding is one content that is not right.
type Finding struct {
	Digest v1.Hash
	Size   int64
	Err    error // why it cannot be read, or not be removed; nil otherwise
	Rotten bool  // it does not hash to its digest
	Gone   bool  // it is not there any more
}

// Scrubbed is what a scrub has seen.
type Scrubbed struct {
	Contents   int
	Bytes      int64
	Rotten     int // that do not hash to their digest
	Removed    int // of these, by this scrub or meanwhile by somebody else
	Unreadable int

	// How contents were read: past what the system holds in memory; after it was
	// told to forget that, which it does for what is not in use; or as everybody
	// reads, so that they may have come from memory and say little of the medium.
	Direct, Dropped, Cached int
}

// Scrub hashes all content as the medium holds it, and removes what does not hash
// to its digest, if that still is the file that was read. It notes no use, takes
// no lock, and changes no time of a file. It returns what it has seen, also with
// an error, which is that of ctx, or about what could not be listed.
func (d *Directory) Scrub(ctx context.Context, how Scrub) (Scrubbed, error) {
	buf, free, err := rawBuffer()
	if err != nil {
		return Scrubbed{}, fmt.Errorf("store: scrub: %w", err)
	}
	defer free()
	s := &scrubber{Scrub: how, directory: d, buf: buf}
	err = walk(ctx, d.files, visitor{
		content: func(r record) error { return s.content(ctx, r.key) },
		passed:  func(seen, of int) { s.part = float64(seen) / float64(of); s.tell() },
	})
	return s.seen, err
}

type scrubber struct {
	Scrub
	directory *Directory
	buf       []byte
	pace      pace
	seen      Scrubbed
	part      float64
}

func (s *scrubber) tell() {
	if s.Progress != nil {
		s.Progress(s.seen, s.part)
	}
}

func (s *scrubber) found(f Finding) {
	if s.Found != nil {
		s.Found(f)
	}
}

// content looks at one content. Its only error is that of ctx.
func (s *scrubber) content(ctx context.Context, k key) error {
	file, err := s.directory.open(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // evicted meanwhile
	}
	if err != nil {
		s.unreadable(k, 0, err)
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		s.unreadable(k, 0, err)
		return nil
	}
	got, err := s.hash(ctx, file)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		s.unreadable(k, info.Size(), err)
		return nil
	}
	s.seen.Contents++
	switch file.how() {
	case direct:
		s.seen.Direct++
	case dropped:
		s.seen.Dropped++
	default:
		s.seen.Cached++
	}
	if got != k {
		s.rotten(k, info)
	}
	s.tell()
	return nil
}

// hash returns what a file hashes to.
func (s *scrubber) hash(ctx context.Context, file raw) (sum key, err error) {
	h := sha256.New()
	for s.pace.wait(ctx) {
		n, err := file.next(s.buf)
		h.Write(s.buf[:n])
		s.seen.Bytes += int64(n)
		s.pace.spend(int64(n), s.Rate)
		s.tell()
		if err == io.EOF {
			h.Sum(sum[:0])
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
	return sum, context.Cause(ctx)
}

func (s *scrubber) unreadable(k key, size int64, err error) {
	s.seen.Unreadable++
	s.found(Finding{Digest: k.digest(), Size: size, Err: err})
}

func (s *scrubber) rotten(k key, read fs.FileInfo) {
	s.seen.Rotten++
	f := Finding{Digest: k.digest(), Size: read.Size(), Rotten: true}
	if !s.Keep {
		f.Err = s.directory.removeRead(k, read)
		if f.Gone = f.Err == nil; f.Gone {
			s.seen.Removed++
		}
	}
	s.found(f)
}

// pace keeps reading to a rate. Time that was not used is not made up for.
type pace struct{ begin, next time.Time }

// wait waits until the next piece may be read, and reports false when ctx has
// ended.
func (p *pace) wait(ctx context.Context) bool {
	if delay := time.Until(p.next); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	p.begin = time.Now()
	return ctx.Err() == nil
}

// spend counts n bytes that were read since wait returned.
func (p *pace) spend(n, rate int64) {
	if rate > 0 {
		p.next = p.begin.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	}
}
