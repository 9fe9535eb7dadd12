package store

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// origin delivers content from offset on, and tells its whole size or -1.
type origin = func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)

// stream reads content from its origin in order, takes up a transfer that
// broke, and holds the origin to the size that was told. It does not hash.
type stream struct {
	key     key
	from    origin
	total   int64 // -1 as long as nobody told
	offset  int64
	resumes int
	body    io.ReadCloser // nil between transfers
	release func() bool   // stops the watch on the context
	broken  error         // why body is nil, after a break
	ended   bool
}

func newStream(k key, from origin, total, offset int64) *stream {
	return &stream{key: k, from: from, total: total, offset: offset, resumes: MaxResumes}
}

// open asks the origin for the content from the present offset on. The body is
// closed when ctx ends, so that a Read of it does too.
func (s *stream) open(ctx context.Context) error {
	body, size, err := s.from(ctx, s.offset)
	if err != nil {
		return err
	}
	if err := s.adopt(size); err != nil {
		body.Close()
		return err
	}
	s.body = body
	s.release = context.AfterFunc(ctx, func() { body.Close() })
	return nil
}

// adopt compares the size that the origin tells with what is known.
func (s *stream) adopt(size int64) error {
	switch {
	case size < 0:
		return nil
	case s.total >= 0 && size != s.total:
		return &MismatchError{Digest: s.key.digest(), Size: s.total, Length: size}
	case size < s.offset:
		return &MismatchError{Digest: s.key.digest(), Size: size, Length: s.offset}
	}
	s.total = size
	return nil
}

// read returns at least one byte, or an error. It is io.EOF at the end of the
// content, when that is where it was told to be.
func (s *stream) read(ctx context.Context, p []byte) (int, error) {
	for range 100 {
		if s.ended {
			return 0, io.EOF
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if s.body == nil {
			if err := s.resume(ctx); err != nil {
				return 0, err
			}
		}
		n, err := s.body.Read(p)
		s.offset += int64(n)
		if s.total >= 0 && s.offset > s.total {
			return 0, &MismatchError{Digest: s.key.digest(), Size: s.total, Length: s.offset}
		}
		if err != nil {
			if err := s.end(ctx, err); err != nil && n == 0 {
				return 0, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.ErrNoProgress
}

// end closes the body after err. A clean end before the told size is the
// origin's word that there is no more, and not a break.
func (s *stream) end(ctx context.Context, err error) error {
	s.close()
	if ctx.Err() != nil {
		s.broken = context.Cause(ctx)
		return s.broken
	}
	if s.offset == s.total {
		s.ended = true // whatever happened afterwards: all of it is here
		return nil
	}
	if err == io.EOF {
		if s.total >= 0 {
			s.resumes = 0
			s.broken = &MismatchError{Digest: s.key.digest(), Size: s.total, Length: s.offset}
			return s.broken
		}
		s.ended = true
		return nil
	}
	s.broken = err
	return nil
}

// resume opens the content again where it broke.
func (s *stream) resume(ctx context.Context) error {
	for s.resumes > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.resumes--
		err := s.open(ctx)
		if err == nil {
			return nil
		}
		s.broken = err
		if _, ok := errors.AsType[*MismatchError](err); ok {
			s.resumes = 0
		}
	}
	return fmt.Errorf("store: transfer of %s broke off at byte %d: %w", s.key, s.offset, s.broken)
}

// close closes the body; a later read would take the transfer up again.
func (s *stream) close() {
	if s.body == nil {
		return
	}
	if s.release() {
		s.body.Close()
	}
	s.body = nil
}

func (s *stream) size() int64 { return s.total }
