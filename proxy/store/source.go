package store

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// held is a source of content on the shelf. When that cannot be read, and there
// is an origin, it goes on with a transfer of its own, where it is.
type held struct {
	store   *Store
	key     key
	content content
	from    origin // nil: there is none
	offset  int64
	own     *stream
}

func (h *held) read(ctx context.Context, p []byte) (int, error) {
	if h.own != nil {
		return h.own.read(ctx, p)
	}
	rest := h.size() - h.offset
	if rest <= 0 {
		return 0, io.EOF
	}
	n, err := h.content.ReadAt(p[:min(int64(len(p)), rest)], h.offset)
	h.offset += int64(n)
	if n > 0 {
		return n, nil
	}
	h.store.log.Warn("held content cannot be read and is removed", "digest", h.key.String(), "error", err)
	h.store.shelf.drop(h.key, h.content)
	if h.from == nil {
		return 0, fmt.Errorf("%w: %w", ErrRotten, err)
	}
	h.own = newStream(h.key, h.from, h.size(), h.offset)
	return h.own.read(ctx, p)
}

func (h *held) size() int64 { return h.content.size() }

func (h *held) mismatch(key, int64) error {
	h.store.rotten(h.key, h.content)
	return ErrRotten
}

func (h *held) close() {
	if h.own != nil {
		h.own.close()
	}
	h.content.Close()
}

// arrival is a source of content that a transfer brings. When that cannot be
// kept it goes on with a transfer of its own, where it is.
type arrival struct {
	transfer *transfer
	draft    draft
	from     origin
	want     int64 // the size that this reader was told, or -1
	offset   int64
	own      *stream
}

// newArrival makes a source of a reader that has joined t, which is open.
func newArrival(t *transfer, from origin, want int64) *arrival {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &arrival{transfer: t, draft: t.draft, from: from, want: want}
}

func (a *arrival) read(ctx context.Context, p []byte) (int, error) {
	if a.own != nil {
		return a.own.read(ctx, p)
	}
	for {
		now, changed := a.transfer.watch()
		diverted := now.phase == failed && errors.Is(now.err, errDiverted)
		switch {
		case a.want >= 0 && (now.written > a.want || now.phase == complete && now.written < a.want):
			return 0, &MismatchError{Digest: a.transfer.key.digest(), Size: a.want, Length: now.written}
		case now.phase == failed && !diverted:
			return 0, now.err
		case a.offset < now.written:
			n, err := a.draft.ReadAt(p[:min(int64(len(p)), now.written-a.offset)], a.offset)
			a.offset += int64(n)
			if n > 0 {
				return n, nil
			}
			return a.part(ctx, p, err)
		case diverted:
			return a.part(ctx, p, nil)
		case now.phase == complete:
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// part goes on without the transfer.
func (a *arrival) part(ctx context.Context, p []byte, why error) (int, error) {
	if why != nil {
		a.transfer.store.log.Warn("arriving content cannot be read back", "digest", a.transfer.key.String(), "error", why)
	}
	a.own = newStream(a.transfer.key, a.from, a.size(), a.offset)
	return a.own.read(ctx, p)
}

func (a *arrival) size() int64 {
	if a.own != nil && a.own.total >= 0 {
		return a.own.total
	}
	a.transfer.mu.Lock()
	defer a.transfer.mu.Unlock()
	if a.transfer.total >= 0 {
		return a.transfer.total
	}
	return a.want
}

// mismatch is reached when the transfer's own hash held, so that it was the
// medium that changed the bytes; or without a transfer, by the origin's fault.
func (a *arrival) mismatch(got key, length int64) error {
	if a.own != nil {
		return &MismatchError{Digest: a.transfer.key.digest(), Got: got.digest(), Size: a.size(), Length: length}
	}
	a.transfer.store.rotten(a.transfer.key, a.draft)
	return ErrRotten
}

func (a *arrival) close() {
	if a.own != nil {
		a.own.close()
	}
	a.transfer.leave()
}

// direct is a source of content that is not kept, from a transfer of its own.
type direct struct{ *stream }

func (d direct) size() int64 { return d.total }

func (d direct) mismatch(got key, length int64) error {
	return &MismatchError{Digest: d.key.digest(), Got: got.digest(), Size: d.total, Length: length}
}
