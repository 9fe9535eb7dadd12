package store

import (
	"context"
	"errors"
	"fmt"
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
	left   bool   // behind: nobody waits for it; likewise
	lent   *chunk // that is being handed out

	back     []byte // what was read back, or copied, last
	freeBack func() // nil when nothing is lent

	alone *alone // once it has parted
}

// newFollower makes a source of a reader that has joined t, which is open.
func newFollower(t *transfer, from origin, want int64, part span) *follower {
	f := &follower{transfer: t, from: from, want: want, part: part, offset: max(part.first, 0)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[f] = struct{}{}
	t.came()
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

// move is what a follower can do now.
type move struct {
	piece []byte
	err   error
	tags  []tag // to read back with: of all blocks that can be
	there int64 // up to where
	stop  int64 // and where to stop handing out
	part  bool  // go on alone

	changed <-chan struct{} // to wait for, when there is nothing else
}

func (f *follower) next(ctx context.Context) ([]byte, error) {
	t := f.transfer
	for f.alone == nil {
		t.mu.Lock()
		f.giveBack()
		m := f.look()
		t.mu.Unlock()
		if m.tags != nil {
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
			case <-m.changed:
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
	case t.phase == failed && (errors.Is(t.err, errLost) || errors.Is(t.err, errDiverted) || errors.Is(t.err, ErrRotten)):
		return move{part: true}
	case t.phase == failed:
		return move{err: t.err}
	case f.left || t.ending && t.phase < complete:
		return move{part: true} // while what it was handed out is still known by its tags
	}
	stop := f.part.stop(f.total())
	if t.phase == complete {
		if f.offset >= stop {
			return move{err: io.EOF}
		}
	} else if stop = f.part.free(t.published, f.total()); f.offset >= stop {
		return move{changed: t.watch()}
	}
	if c := t.at(f.offset); c != nil {
		return move{piece: f.take(c, c.data[f.offset-c.start():min(stop, c.end())-c.start()])}
	}
	if f.offset >= t.readable {
		return move{part: true} // it was left behind
	}
	return move{tags: t.tags, there: t.readable, stop: stop}
}

// take hands out piece, which is of c: itself, or a copy of some of it when much
// is lent, so that a slow reader does not keep a chunk from being used again. The
// mutex is held.
func (f *follower) take(c *chunk, piece []byte) []byte {
	lender := f.transfer.store.buffers
	if size := lender.piece(int64(len(piece))); size < int64(len(piece)) {
		f.borrow(size)
		piece = f.back[:copy(f.back, piece)]
	} else {
		c.refs++
		f.lent = c
	}
	f.advance(len(piece))
	return piece
}

// borrow gets a buffer for what is handed out next, in the place of the last.
func (f *follower) borrow(size int64) {
	if f.freeBack != nil {
		f.freeBack()
	}
	f.back, f.freeBack = f.transfer.store.buffers.get(size)
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

// readBack reads from the medium, checks it, and returns what may be handed out;
// part says that it cannot.
func (f *follower) readBack(m move) (piece []byte, part bool) {
	t := f.transfer
	first := f.offset / blockSize
	start := first * blockSize
	f.borrow(min(t.store.buffers.piece(chunkSize), m.there-start))
	n, err := t.medium.ReadAt(f.back, start)
	good := int64(intact(t.key, m.tags, m.there, first, f.back[:n]))
	stop := min(m.stop, start+good)
	if stop <= f.offset {
		t.store.log.Warn("content cannot be read back", "digest", t.key.String(), "error", err)
		return nil, true
	}
	piece = f.back[f.offset-start : stop-start]
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
		known = int(blocks(f.offset))
	}
	switch {
	case f.from == nil:
		return ErrRotten
	case known > len(t.tags):
		return fmt.Errorf("store: content of %s went away while it was read", t.key)
	}
	f.alone = newAlone(t.store, t.key, f.from, f.total(), f.part)
	f.alone.offset, f.alone.known = f.offset, slices.Clone(t.tags[:known])
	f.alone.rot = errors.Is(t.err, ErrRotten)
	delete(t.followers, f)
	t.heed()
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
	t.heed()
	t.mu.Unlock()
	t.leave()
}
