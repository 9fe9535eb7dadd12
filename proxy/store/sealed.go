package store

import (
	"context"
	"fmt"
	"io"
)

// sealed is a source of held content that this process has hashed before. Each
// chunk is compared with its tag as it is read, so that the bytes that are handed
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
	h.buf, h.free = s.buffers.get(min(2*chunkSize, max(known.size, 1)))
	return h
}

func (h *sealed) next(ctx context.Context) ([]byte, error) {
	if h.offset >= h.stop {
		return nil, io.EOF
	}
	first := h.offset / chunkSize
	begin := first * chunkSize
	end := min(begin+int64(len(h.buf)), h.seal.size)
	if last := (h.stop + chunkSize - 1) / chunkSize * chunkSize; end > last {
		end = last // no more than the span needs
	}
	n, err := h.read(ctx, first, h.buf[:end-begin])
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

// read fills p, which begins with chunk number first, as far as its chunks hold.
// It returns at least one chunk, or an error.
func (h *sealed) read(ctx context.Context, first int64, p []byte) (int, error) {
	if h.up != nil {
		return h.fetch(ctx, first, p)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	n, err := h.content.ReadAt(p, first*chunkSize)
	good := h.check(first, p[:n])
	if good > 0 {
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
	h.up = newStream(h.key, h.from, h.seal.size, first*chunkSize)
	return h.fetch(ctx, first, p)
}

// check returns how many bytes of p, in whole chunks from number first on, match
// their tags.
func (h *sealed) check(first int64, p []byte) (good int) {
	for i := first; good < len(p); i++ {
		size := min(chunkSize, h.seal.size-i*chunkSize)
		if int64(len(p)-good) < size || tagOf(h.key, i, p[good:good+int(size)]) != h.seal.tags[i] {
			return good
		}
		good += int(size)
	}
	return good
}

// fetch is read from the origin, one chunk at a time.
func (h *sealed) fetch(ctx context.Context, first int64, p []byte) (int, error) {
	p = p[:min(chunkSize, len(p))]
	for used := 0; used < len(p); {
		n, err := h.up.read(ctx, p[used:])
		if err == io.EOF {
			err = &MismatchError{Digest: h.key.digest(), Size: h.seal.size, Length: first*chunkSize + int64(used)}
		}
		if err != nil {
			return 0, err
		}
		used += n
	}
	if h.check(first, p) < len(p) {
		return 0, &MismatchError{Digest: h.key.digest(), Size: h.seal.size, Length: h.seal.size}
	}
	return len(p), nil
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
	h.free()
	h.content.Close()
}
