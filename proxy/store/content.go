package store

import (
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
	r, size, err := s.openHeld(ctx, k, -1, nil)
	if err != nil {
		return nil, 0, err
	}
	return r, size, nil
}

// Fetch is Open, and when the content is not held it is fetched: from is
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
func (s *Store) Fetch(ctx context.Context, owner string, digest v1.Hash, size int64, from func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)) (io.ReadCloser, int64, error) {
	k, err := s.check(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	size = max(size, -1)
	for range 3 {
		r, got, err := s.fetch(ctx, owner, k, size, from)
		if !errors.Is(err, errHeld) {
			return r, got, err
		}
	}
	return s.passThrough(ctx, k, size, from)
}

// fetch is one attempt of Fetch. It returns errHeld when another is due, since
// the content came to be held while it was looked for.
func (s *Store) fetch(ctx context.Context, owner string, k key, size int64, from origin) (io.ReadCloser, int64, error) {
	t, err := s.join(owner, k)
	if err != nil {
		return nil, 0, err
	}
	if t == nil {
		r, got, err := s.openHeld(ctx, k, size, from)
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
			return s.passThrough(ctx, k, size, from)
		}
		if t, err = s.start(owner, k, size, from); err != nil {
			return nil, 0, err
		}
	}
	if err := t.opened(ctx); err != nil {
		t.leave()
		if errors.Is(err, errDiverted) {
			return s.passThrough(ctx, k, size, from)
		}
		return nil, 0, err
	}
	return s.follow(ctx, t, from, size)
}

// follow returns a reader of t, which the caller has joined and which is open.
// Who was told another size than the transfer was is not made to share its
// fate.
func (s *Store) follow(ctx context.Context, t *transfer, from origin, size int64) (io.ReadCloser, int64, error) {
	source := newArrival(t, from, size)
	total := source.size()
	if size >= 0 && total != size {
		t.leave()
		return s.passThrough(ctx, t.key, size, from)
	}
	ctx, cancel := context.WithCancel(ctx)
	return newReader(ctx, cancel, t.key, source), total, nil
}

// passThrough returns a reader with a transfer of its own, which is not kept.
func (s *Store) passThrough(ctx context.Context, k key, size int64, from origin) (io.ReadCloser, int64, error) {
	own := newStream(k, from, size, 0)
	ctx, cancel := context.WithCancel(ctx)
	if err := own.open(ctx); err != nil {
		cancel()
		return nil, 0, err
	}
	return newReader(ctx, cancel, k, direct{own}), own.total, nil
}

// openHeld opens what lies under k. Small content is read and checked here, so
// that what rotted is a miss and no error. size, unless -1, is compared; when
// it differs the content itself tells who is wrong.
func (s *Store) openHeld(ctx context.Context, k key, size int64, from origin) (*reader, int64, error) {
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
		return verifiedReader(data), total, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	if size < 0 || size == total {
		return newReader(ctx, cancel, k, &held{store: s, key: k, content: c, from: from}), total, nil
	}
	r := newReader(ctx, cancel, k, &held{store: s, key: k, content: c})
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		if errors.Is(err, ErrRotten) {
			err = k.missing()
		}
		return nil, 0, err
	}
	return nil, 0, &MismatchError{Digest: k.digest(), Size: size, Length: total}
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
func (s *Store) rotten(k key, c io.ReaderAt) {
	s.log.Warn("held content does not match its digest and is removed", "digest", k.String())
	s.shelf.drop(k, c)
}

// Put stores content, which must hash to digest (*MismatchError). It is meant
// for what fits in memory, such as manifests, and is durable on return. An
// error says that it is not held, and nothing worse.
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
	if err := d.commit(); err != nil {
		d.discard()
		return fmt.Errorf("store: put %s: %w", digest, err)
	}
	return nil
}

// intact reports whether k is held, whole and right, at this moment.
func (s *Store) intact(ctx context.Context, k key, size int64) bool {
	r, _, err := s.openHeld(ctx, k, size, nil)
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err == nil
}
