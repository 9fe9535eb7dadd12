package store

import (
	"context"
	"errors"
	"io"
	"slices"
)

// follower is a source of content that a transfer passes. When it cannot have
// from there what it needs, it goes on alone, where it is.
type follower struct {
	transfer *transfer
	from     origin // nil: there is none
	want     int64  // the size that its reader was told, or -1
	part     span

	offset int64  // of what comes next; under the transfer's mutex
	lent   *chunk // that is being handed out

	back      []byte // the chunk that was read back last
	backIndex int64
	freeBack  func() // nil as long as none was read back

	alone *alone // once it has parted
}

// newFollower makes a source of a reader that has joined t, which is open.
func newFollower(t *transfer, from origin, want int64, part span) *follower {
	f := &follower{transfer: t, from: from, want: want, part: part, offset: max(part.first, 0)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[f] = struct{}{}
	return f
}

// total returns the content's size, -1 when it is not known yet. The transfer's
// mutex is held.
func (f *follower) total() int64 {
	if f.transfer.total >= 0 {
		return f.transfer.total
	}
	return f.want
}

// move is what a follower can do now. The zero move is to wait.
type move struct {
	piece []byte
	err   error
	back  bool  // read the chunk back and hand out
	tag   tag   // its
	size  int64 // and its size
	stop  int64 // where to stop handing out
	part  bool  // go on alone
}

func (f *follower) next(ctx context.Context) ([]byte, error) {
	t := f.transfer
	for f.alone == nil {
		t.mu.Lock()
		f.giveBack()
		m := f.look()
		changed := t.watch()
		t.mu.Unlock()
		if m.back {
			m.piece, m.part = f.readBack(m)
		}
		switch {
		case m.part:
			if err := f.leaveFor(); err != nil {
				return nil, err
			}
		case m.piece != nil || m.err != nil:
			return m.piece, m.err
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
	return f.alone.next(ctx)
}

// look finds the next move. The transfer's mutex is held.
func (f *follower) look() move {
	t := f.transfer
	switch {
	case f.want >= 0 && (t.published > f.want || t.phase == complete && t.published < f.want):
		return move{err: &MismatchError{Digest: t.key.digest(), Size: f.want, Length: t.published}}
	case t.phase == failed && errors.Is(t.err, errLost):
		return move{part: true}
	case t.phase == failed:
		return move{err: t.err}
	}
	stop := f.part.stop(f.total())
	if t.phase == complete {
		if f.offset >= stop {
			return move{err: io.EOF}
		}
	} else if stop = f.part.free(t.published, f.total()); f.offset >= stop {
		return move{}
	}
	if c := t.at(f.offset); c != nil {
		c.refs++
		f.lent = c
		piece := c.data[f.offset-c.start() : min(stop, c.end())-c.start()]
		f.advance(len(piece))
		return move{piece: piece}
	}
	index := f.offset / chunkSize
	if index >= int64(t.readable) {
		return move{part: true} // it was left behind
	}
	return move{back: true, tag: t.tags[index], size: min(chunkSize, t.published-index*chunkSize), stop: stop}
}

// advance moves on. The transfer's mutex is held.
func (f *follower) advance(n int) {
	f.offset += int64(n)
	if !f.transfer.kept() {
		f.transfer.wake() // it may wait for that
	}
}

// giveBack ends the use of what was handed out last. The mutex is held.
func (f *follower) giveBack() {
	if f.lent != nil {
		f.transfer.release(f.lent)
		f.lent = nil
	}
}

// readBack reads a chunk from the medium, checks it, and returns what may be
// handed out; part says that it cannot.
func (f *follower) readBack(m move) (piece []byte, part bool) {
	t, index := f.transfer, f.offset/chunkSize
	if f.freeBack == nil {
		f.back, f.freeBack = t.store.buffers.get(chunkSize)
		f.backIndex = -1
	}
	if f.backIndex != index {
		f.backIndex = -1
		f.back = f.back[:m.size]
		n, err := t.medium.ReadAt(f.back, index*chunkSize)
		if int64(n) < m.size || tagOf(t.key, index, f.back) != m.tag {
			t.store.log.Warn("content cannot be read back", "digest", t.key.String(), "error", err)
			return nil, true
		}
		f.backIndex = index
	}
	start := index * chunkSize
	piece = f.back[f.offset-start : min(m.stop, start+m.size)-start]
	t.mu.Lock()
	defer t.mu.Unlock()
	f.advance(len(piece))
	return piece, false
}

// leaveFor parts from the transfer. What was handed out must be known by its
// tags, so that it can be compared with what comes.
func (f *follower) leaveFor() error {
	t := f.transfer
	t.mu.Lock()
	defer t.mu.Unlock()
	known := 0
	if f.offset > max(f.part.first, 0) {
		known = int((f.offset + chunkSize - 1) / chunkSize)
	}
	if f.from == nil || known > len(t.tags) {
		return ErrRotten
	}
	f.alone = newAlone(t.store, t.key, f.from, f.total(), f.part)
	f.alone.offset, f.alone.known = f.offset, slices.Clone(t.tags[:known])
	delete(t.followers, f)
	t.wake()
	return nil
}

func (f *follower) close() {
	if f.alone != nil {
		f.alone.close()
	}
	if f.freeBack != nil {
		f.freeBack()
	}
	t := f.transfer
	t.mu.Lock()
	f.giveBack()
	delete(t.followers, f)
	t.wake()
	t.mu.Unlock()
	t.leave()
}
