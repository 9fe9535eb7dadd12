package store

import (
	"context"
	"fmt"
	"io"
)

// sealed is a source of held content that this process has hashed before. Each
// block is compared with its tag as it is read, so that the bytes that are handed
// out are known to be right, the last as well as the first. When the shelf does
// not yield them, and there is an origin, it goes on from there.
type sealed struct {
	store   *Store
	key     key
	content content
	seal    *seal
	from    origin // nil: there is none

	offset, stop int64
	buf          []byte
	free         func()
	up           *stream // once the shelf has failed
}

func newSealed(s *Store, k key, c content, known *seal, from origin, part span) *sealed {
	h := &sealed{store: s, key: k, content: c, seal: known, from: from, stop: part.stop(known.size)}
	h.offset = min(max(part.first, 0), h.stop)
	return h
}

func (h *sealed) next(ctx context.Context) ([]byte, error) {
	h.giveBack()
	if h.offset >= h.stop {
		return nil, io.EOF
	}
	first := h.offset / blockSize
	begin := first * blockSize
	end := min(blocks(h.stop)*blockSize, h.seal.size) // no more than the span needs
	h.buf, h.free = h.store.buffers.get(min(end-begin, h.store.buffers.piece(2*chunkSize)))
	n, err := h.read(ctx, first, h.buf)
	if err != nil {
		return nil, err
	}
	stop := min(begin+int64(n), h.stop)
	if stop == h.stop {
		h.recognise()
	}
	piece := h.buf[h.offset-begin : stop-begin]
	h.offset = stop
	return piece, nil
}

// read fills p, which begins with block number first, as far as its blocks hold.
// It returns at least one block, or an error.
func (h *sealed) read(ctx context.Context, first int64, p []byte) (int, error) {
	if h.up != nil {
		return h.fetch(ctx, first, p)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	n, err := h.content.ReadAt(p, first*blockSize)
	if good := intact(h.key, h.seal.tags, h.seal.size, first, p[:n]); good > 0 {
		return good, nil // the next read begins with what does not hold
	}
	h.store.log.Warn("held content does not match what was hashed, or cannot be read, and is removed", "digest", h.key.String(), "error", err)
	h.store.drop(h.key, h.content)
	if h.from == nil {
		if err == nil || err == io.EOF {
			return 0, ErrRotten
		}
		return 0, fmt.Errorf("%w: %w", ErrRotten, err)
	}
	h.up = newStream(h.key, h.from, h.seal.size, first*blockSize)
	return h.fetch(ctx, first, p)
}

// fetch is read from the origin.
func (h *sealed) fetch(ctx context.Context, first int64, p []byte) (int, error) {
	for used := 0; used < len(p); {
		n, err := h.up.read(ctx, p[used:])
		if err == io.EOF {
			err = &MismatchError{Digest: h.key.digest(), Size: h.seal.size, Length: first*blockSize + int64(used)}
		}
		if err != nil {
			return 0, err
		}
		used += n
	}
	if intact(h.key, h.seal.tags, h.seal.size, first, p) < len(p) {
		return 0, &MismatchError{Digest: h.key.digest(), Size: h.seal.size, Length: h.seal.size}
	}
	return len(p), nil
}

// giveBack ends the use of what was handed out last: a slow client holds memory
// for what it is being sent, and no more.
func (h *sealed) giveBack() {
	if h.free != nil {
		h.free()
		h.buf, h.free = nil, nil
	}
}

// recognise compares the file's identity a second time. What was read is right
// whatever it says; what the file holds by now must be hashed anew when it has
// changed.
func (h *sealed) recognise() {
	if h.up != nil {
		return
	}
	if id, err := h.content.identity(); err != nil || id != h.seal.id {
		h.store.seals.drop(h.key)
	}
}

func (h *sealed) close() {
	if h.up != nil {
		h.up.close()
	}
	h.giveBack()
	h.content.Close()
}
