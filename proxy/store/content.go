package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Open returns a reader of the content of digest, which is held, and its size.
// It matches fs.ErrNotExist when it is not held, though it may be arriving. ctx
// bounds the reader too.
func (s *Store) Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error) {
	k, err := s.check(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	r, size, err := s.openHeld(ctx, k, -1, nil, span{0, -1})
	if err != nil {
		return nil, 0, err
	}
	return r, size, nil
}

// Fetch returns a reader of the bytes from first up to, not including, end (to
// the content's end when end is negative) of the content of digest, and the size
// of the whole. When the content is not held it is fetched: from is
// called, once for all concurrent callers of one owner, and what it yields
// streams to every reader and into the store. An owner is whoever from asks on
// behalf of; one owner's transfer is joined by no other. from gets a context of
// the transfer, which no caller's ends; when the content cannot be kept, from is
// called again for each reader with the reader's context. It is called with a
// larger offset when a transfer broke. An error of the first call of from is
// returned, wrapped or as it is.
//
// size is the content's size, -1 when it is not known. When it is not what the
// origin tells, or delivers, the error is a *MismatchError.
//
// The reader implements io.WriterTo, which spares a copy of the bytes, and has a
// method Held() bool, which reports whether the content was there before it was
// asked for. ctx bounds the reader.
func (s *Store) Fetch(ctx context.Context, owner string, digest v1.Hash, size, first, end int64, from func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)) (io.ReadCloser, int64, error) {
	k, err := s.check(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	size = max(size, -1)
	part := span{first, end}
	for range 3 {
		r, got, err := s.fetch(ctx, owner, k, size, from, part)
		if !errors.Is(err, errHeld) {
			return r, got, err
		}
	}
	return s.passThrough(ctx, k, size, from, part)
}

// Prefetch is Fetch without a reader: it returns when the content is held, or
// why it is not. When ctx ends the transfer ends too, unless somebody reads it
// by then. Content that cannot be kept is not fetched.
func (s *Store) Prefetch(ctx context.Context, owner string, digest v1.Hash, size int64, from func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)) error {
	k, err := s.check(ctx, digest)
	if err != nil {
		return err
	}
	if !s.shelf.takes(size) {
		return ErrTooLarge
	}
	t, err := s.start(owner, k, max(size, -1), from)
	if err != nil {
		return err
	}
	defer s.expire(t) // when nobody else reads it
	defer t.leave()
	t.mu.Lock()
	t.came() // it takes nothing
	t.mu.Unlock()
	select {
	case <-t.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case errors.Is(t.err, errHeld):
		return nil
	case !errors.Is(t.err, errDiverted):
		return cmp.Or(t.err, t.lost)
	case t.lost != nil:
		return fmt.Errorf("%w: %w", errDiverted, t.lost)
	}
	return ErrTooLarge // as its origin told
}

// fetch is one attempt of Fetch. It returns errHeld when another is due, since
// the content came to be held while it was looked for.
func (s *Store) fetch(ctx context.Context, owner string, k key, size int64, from origin, part span) (io.ReadCloser, int64, error) {
	t, err := s.join(owner, k)
	if err != nil {
		return nil, 0, err
	}
	if t == nil {
		r, got, err := s.openHeld(ctx, k, size, from, part)
		if err == nil {
			return r, got, nil
		}
		if _, ok := errors.AsType[*MismatchError](err); ok || ctx.Err() != nil {
			return nil, 0, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("held content cannot be opened", "digest", k.String(), "error", err)
		}
		if !s.shelf.takes(size) {
			return s.passThrough(ctx, k, size, from, part)
		}
		if t, err = s.start(owner, k, size, from); err != nil {
			return nil, 0, err
		}
	}
	if !t.told(size) {
		t.turnBack()
		return s.passThrough(ctx, k, size, from, part)
	}
	if err := t.opened(ctx); err != nil {
		t.turnBack()
		if errors.Is(err, errDiverted) {
			return s.passThrough(ctx, k, size, from, part)
		}
		return nil, 0, err
	}
	return s.follow(ctx, t, from, size, part)
}

// follow returns a reader of t, which the caller has joined and which is open.
// Who was told another size than the transfer was is not made to share its
// fate.
func (s *Store) follow(ctx context.Context, t *transfer, from origin, size int64, part span) (io.ReadCloser, int64, error) {
	f := newFollower(t, from, size, part)
	t.mu.Lock()
	total := f.total()
	t.mu.Unlock()
	if size >= 0 && total != size {
		f.close()
		return s.passThrough(ctx, t.key, size, from, part)
	}
	ctx, cancel := context.WithCancel(ctx)
	return newReader(ctx, cancel, f, false), total, nil
}

// passThrough returns a reader with a transfer of its own, which is not kept.
func (s *Store) passThrough(ctx context.Context, k key, size int64, from origin, part span) (io.ReadCloser, int64, error) {
	own := newAlone(s, k, from, size, part)
	ctx, cancel := context.WithCancel(ctx)
	if err := own.up.open(ctx); err != nil {
		cancel()
		own.close()
		return nil, 0, err
	}
	return newReader(ctx, cancel, own, false), own.up.total, nil
}

// openHeld opens what lies under k. Small content is read and checked here, so
// that what rotted is a miss and no error. size, unless -1, is compared; when
// it differs the content itself tells who is wrong.
func (s *Store) openHeld(ctx context.Context, k key, size int64, from origin, part span) (*reader, int64, error) {
	c, err := s.shelf.open(k)
	if err != nil {
		return nil, 0, err
	}
	total := c.size()
	if total <= holdBack {
		defer c.Close()
		data, err := s.load(k, c)
		if err != nil {
			return nil, 0, err
		}
		if size >= 0 && size != total {
			return nil, 0, &MismatchError{Digest: k.digest(), Size: size, Length: total}
		}
		return verifiedReader(data, part), total, nil
	}
	wrong := size >= 0 && size != total
	if wrong {
		from, part = nil, span{0, -1}
	}
	src, err := s.openLarge(ctx, k, c, from, part)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := newReader(ctx, cancel, src, true)
	if !wrong {
		return r, total, nil
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		if errors.Is(err, ErrRotten) {
			err = k.missing()
		}
		return nil, 0, err
	}
	return nil, 0, &MismatchError{Digest: k.digest(), Size: size, Length: total}
}

// openLarge returns a source of content that is not small, and takes ownership
// of c: by its seal when this process has hashed it before, and otherwise by
// looking at it, together with whoever else wants to.
func (s *Store) openLarge(ctx context.Context, k key, c content, from origin, part span) (source, error) {
	known := s.seals.get(k, c.found())
	if known != nil && known.bad {
		c.Close()
		return nil, k.missing()
	}
	if known != nil {
		return newSealed(s, k, c, known, from, part), nil
	}
	t, err := s.startLook(k, c)
	if err != nil {
		return nil, err
	}
	if err := t.opened(ctx); err != nil {
		t.turnBack()
		return nil, err
	}
	return newFollower(t, from, t.held.size(), part), nil
}

// load reads small content whole and checks it. What is rotten, or cannot be
// read, is removed and counts as missing.
func (s *Store) load(k key, c content) ([]byte, error) {
	data := make([]byte, c.size())
	n, _ := c.ReadAt(data, 0)
	if sha256.Sum256(data[:n]) != k {
		s.rotten(k, c)
		return nil, k.missing()
	}
	return data[:n], nil
}

// rotten removes what was read under k and does not hash to it.
func (s *Store) rotten(k key, c content) {
	s.log.Warn("held content does not match its digest and is removed", "digest", k.String())
	s.drop(k, c)
}

// drop removes what c was opened from, unless k means something newer by now.
// Where it cannot be removed it is not looked at again.
func (s *Store) drop(k key, c content) {
	id, err := c.identity()
	s.shelf.drop(k, c)
	if err == nil {
		s.seals.condemn(k, id)
	}
}

// Put stores content, which must hash to digest (*MismatchError). It is meant
// for what fits in memory, such as manifests. An error says that it is not held, and nothing worse.
func (s *Store) Put(ctx context.Context, digest v1.Hash, data []byte) error {
	k, err := s.check(ctx, digest)
	if err != nil {
		return err
	}
	size := int64(len(data))
	if got := key(sha256.Sum256(data)); got != k {
		return &MismatchError{Digest: digest, Got: got.digest(), Size: size, Length: size}
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.running.Done()
	if s.intact(ctx, k, size) {
		return nil
	}
	if !s.shelf.takes(size) {
		return ErrTooLarge
	}
	d, err := s.shelf.draft(k, size)
	if err != nil {
		return fmt.Errorf("store: put %s: %w", digest, err)
	}
	defer d.Close()
	if _, err := d.Write(data); err != nil {
		d.discard()
		return fmt.Errorf("store: put %s: %w", digest, err)
	}
	id, err := d.commit()
	if err != nil {
		d.discard()
		return fmt.Errorf("store: put %s: %w", digest, err)
	}
	if size > holdBack {
		s.seals.set(k, id, size, appendTags(nil, k, data))
	}
	return nil
}

// intact reports whether k is held, whole and right, at this moment.
func (s *Store) intact(ctx context.Context, k key, size int64) bool {
	r, _, err := s.openHeld(ctx, k, size, nil, span{0, -1})
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err == nil
}
