package store

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
)

// alone is a source with a transfer of its own, which is not kept. It hashes all
// of the content, whatever part of it is handed out.
type alone struct {
	store *Store
	key   key
	up    *stream
	part  span  // what is handed out
	known []tag // of the first blocks, as they were handed out from elsewhere
	rot   bool  // elsewhere is what has turned out to be rotten

	hash     hash.Hash
	received int64 // bytes hashed
	verified bool
	offset   int64  // of what comes next
	begin    int64  // of the buffer
	buf      []byte // bytes that are still to be handed out
	free     func()
}

// newAlone makes a source of content that its reader was told has size total
// (-1: nobody told).
func newAlone(s *Store, k key, from origin, total int64, part span) *alone {
	a := &alone{store: s, key: k, up: newStream(k, from, total, 0), part: part, offset: max(part.first, 0), hash: sha256.New()}
	a.buf, a.free = s.buffers.get(2 * chunkSize)
	a.buf = a.buf[:0]
	return a
}

func (a *alone) next(ctx context.Context) ([]byte, error) {
	if a.known != nil {
		if err := a.compare(ctx); err != nil {
			return nil, err
		}
	}
	for {
		stop := a.part.free(a.received, a.up.total)
		if a.verified {
			stop = a.part.stop(a.received)
		}
		if a.offset < stop {
			piece := a.buf[a.offset-a.begin : stop-a.begin]
			a.offset = stop
			return piece, nil
		}
		if a.verified {
			return nil, io.EOF
		}
		a.trim()
		if err := a.receive(ctx, cap(a.buf)); err != nil {
			return nil, err
		}
		a.trim()
	}
}

// compare reads again what has been handed out already. The rest of the last
// block stays in the buffer.
func (a *alone) compare(ctx context.Context) error {
	for index, want := range a.known {
		a.begin, a.buf = a.received, a.buf[:0]
		for len(a.buf) < blockSize && !a.verified {
			if err := a.receive(ctx, blockSize); err != nil {
				return err
			}
		}
		if tagOf(a.key, int64(index), a.buf) != want {
			if a.rot {
				return ErrRotten
			}
			return a.mismatch(key{})
		}
	}
	a.known = nil
	a.trim()
	return nil
}

// trim leaves in the buffer what is still to be handed out.
func (a *alone) trim() {
	if done := min(a.offset-a.begin, int64(len(a.buf))); done > 0 {
		a.buf = a.buf[:copy(a.buf, a.buf[done:])]
		a.begin += done
	}
	if len(a.buf) == 0 {
		a.begin = a.received
	}
	if stop := a.part.end; stop >= 0 && a.begin+int64(len(a.buf)) > stop {
		a.buf = a.buf[:max(stop-a.begin, 0)]
	}
}

// receive reads until the buffer holds at most so many bytes, and settles at the
// content's end whether it is right.
func (a *alone) receive(ctx context.Context, limit int) error {
	used := len(a.buf)
	n, err := a.up.read(ctx, a.buf[used:limit])
	a.hash.Write(a.buf[used : used+n])
	a.received += int64(n)
	a.buf = a.buf[:used+n]
	if err != io.EOF {
		return err
	}
	var got key
	if a.hash.Sum(got[:0]); got != a.key {
		return a.mismatch(got)
	}
	a.verified = true
	return nil
}

func (a *alone) mismatch(got key) error {
	e := &MismatchError{Digest: a.key.digest(), Size: a.up.total, Length: a.received}
	if got != (key{}) {
		e.Got = got.digest()
	}
	return e
}

func (a *alone) close() {
	a.up.close()
	a.free()
}
