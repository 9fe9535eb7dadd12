package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// gated is an origin that counts what is taken of data, of which it yields the first
// so many bytes, none before its gate is open, and no more until its context ends.
type gated struct {
	data  []byte
	first int
	gate  chan struct{}
	taken atomic.Int64 // bytes
	calls atomic.Int64
}

func newGated(data []byte, first int) *gated {
	return &gated{data: data, first: first, gate: make(chan struct{})}
}

func (g *gated) from(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	first := g.first
	if g.calls.Add(1) > 1 {
		first = len(g.data) // who goes on alone is served
	}
	rest := bytes.NewReader(g.data[offset:first])
	return io.NopCloser(readerFunc(func(p []byte) (int, error) {
		<-g.gate
		n, err := rest.Read(p)
		g.taken.Add(int64(n))
		if err == io.EOF && first < len(g.data) {
			<-ctx.Done()
			err = context.Cause(ctx)
		}
		return n, err
	})), int64(len(g.data)), nil
}

// joined has somebody join the transfer of data, as Fetch does before it follows.
func joined(t *testing.T, s *Store, data []byte, from origin) *transfer {
	t.Helper()
	k, err := parseDigest(digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	it, err := s.start(owner, k, int64(len(data)), from)
	if err != nil {
		t.Fatal(err)
	}
	if err := it.opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	return it
}

// follows has who joined follow, and read all of data.
func follows(t *testing.T, s *Store, it *transfer, data []byte, from origin) {
	t.Helper()
	r, size, err := s.follow(t.Context(), it, from, int64(len(data)), span{0, -1})
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, r, size, data)
}

// fetched is a reader of all of data.
func fetched(t *testing.T, s *Store, data []byte, from origin) io.ReadCloser {
	t.Helper()
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// muchLost is more than is deferred, so that a disk is seen to be full before all
// has come.
const muchLost = (maxDeferred + 20) * chunkSize

func TestWhoHasJoinedAndDoesNotFollowYetIsServedByTheSameTransfer(t *testing.T) {
	for name, size := range map[string]int{"of little": 300 << 10, "of much": muchLost} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
				data := sample(1, size)
				g := newGated(data, size)
				it := joined(t, s, data, g.from)
				close(g.gate)
				synctest.Wait() // as far as it goes without him
				follows(t, s, it, data, g.from)
				if n := g.calls.Load(); n != 1 {
					t.Errorf("the upstream was asked %d times", n)
				}
			})
		})
	}
}

func TestWhoHasJoinedAndDoesNotFollowIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, muchLost)
		g := newGated(data, len(data))
		it := joined(t, s, data, g.from)
		other := fetched(t, s, data, forbidden(t))
		start := time.Now()
		close(g.gate)
		mustRead(t, other, -1, data)
		if waited := time.Since(start); waited > laggardPatience {
			t.Errorf("the other one waited for %s", waited)
		}
		follows(t, s, it, data, g.from)
		if n := g.calls.Load(); n != 2 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}

func TestWhoHasJoinedAndTurnsBackIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, muchLost)
		g := newGated(data, len(data))
		it := joined(t, s, data, g.from)
		other := fetched(t, s, data, forbidden(t))
		start := time.Now()
		close(g.gate)
		it.turnBack()
		mustRead(t, other, -1, data)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the other one waited for %s", waited)
		}
	})
}

func TestATransferThatIsNotKeptEndsWhenTheLastWhoJoinedTurnsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, 2*muchLost)
		g := newGated(data, muchLost)
		it := joined(t, s, data, g.from)
		prefetched := make(chan error, 1)
		go func() {
			prefetched <- s.Prefetch(t.Context(), owner, digestOf(data), int64(len(data)), forbidden(t))
		}()
		synctest.Wait()
		close(g.gate)
		synctest.Wait()
		it.turnBack()
		synctest.Wait()
		if n := s.Stats().Transfers; n != 0 {
			t.Errorf("%d transfers go on for nobody", n)
		}
		if err := <-prefetched; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the prefetch: %v", err)
		}
	})
}

func TestATransferThatIsNotKeptEndsWhenItsOnlyReaderIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, 4*muchLost)
		g := newGated(data, len(data))
		close(g.gate)
		r := fetched(t, s, data, g.from)
		begin := make([]byte, 1)
		if _, err := io.ReadFull(r, begin); err != nil {
			t.Fatal(err)
		}
		time.Sleep(laggardPatience + time.Second)
		synctest.Wait()
		if n := g.taken.Load(); n > muchLost {
			t.Errorf("%d bytes were taken, many of them for nobody", n)
		}
		if n := s.Stats().Transfers; n != 0 {
			t.Errorf("%d transfers", n)
		}
		mustRead(t, r, -1, data[1:]) // goes on alone
		if n := g.calls.Load(); n != 2 || begin[0] != data[0] {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}

func TestATransferThatIsNotKeptEndsWithTheLastWhoKeptUp(t *testing.T) {
	for name, ends := range map[string]func(t *testing.T, s *Store, r io.ReadCloser){
		"when he leaves":             func(_ *testing.T, _ *Store, r io.ReadCloser) { r.Close() },
		"when he is left behind too": func(*testing.T, *Store, io.ReadCloser) { time.Sleep(2 * laggardPatience) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
				data := sample(1, 3*muchLost)
				g := newGated(data, len(data))
				stalled, quick := fetched(t, s, data, g.from), fetched(t, s, data, g.from)
				close(g.gate)
				if _, err := io.ReadFull(quick, make([]byte, muchLost)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if n := s.Stats().Transfers; n != 1 || g.calls.Load() != 1 {
					t.Fatalf("%d transfers", n)
				}
				ends(t, s, quick)
				synctest.Wait()
				if n := s.Stats().Transfers; n != 0 {
					t.Errorf("%d transfers go on for who was left behind", n)
				}
				quick.Close()
				mustRead(t, stalled, -1, data)
			})
		})
	}
}

// Who stands still for a while is not left where nobody knows what he was given,
// however it ends with the others.
func TestWhoIsLeftBehindReadsOnWhateverTheOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, 3*muchLost)
		// It stalls within a chunk, which then is not hashed.
		g := newGated(data, muchLost+chunkSize/2)
		slow, quick := fetched(t, s, data, g.from), fetched(t, s, data, g.from)
		close(g.gate)
		if _, err := io.ReadFull(slow, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(quick, make([]byte, g.first)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, g.first-10)
		if _, err := io.ReadFull(slow, got); err != nil || !bytes.Equal(got, data[10:g.first]) {
			t.Errorf("who was left behind: %v", err)
		}
		quick.Close()
		mustRead(t, slow, -1, data[g.first:])
	})
}

// Whoever reads from a transfer that waits for him has it go on at once.
func TestATransferThatIsNotKeptGoesOnAsItsReaderDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, muchLost)
		g := newGated(data, len(data))
		close(g.gate)
		r := fetched(t, s, data, g.from)
		start := time.Now()
		synctest.Wait()
		if n := g.taken.Load(); n == muchLost {
			t.Fatal("it does not wait to begin with")
		}
		mustRead(t, r, -1, data)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("it waited for %s", waited)
		}
		if n := g.calls.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}

func TestWhatRunsAndCanBeJoinedNoMoreMakesRoomToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{limits: smallLimits(func(l *limits) { l.transfers = 1 })})
		ended := [2]chan error{make(chan error, 1), make(chan error, 1)}
		first := fetchWaiting(t, s, 0, ended[0])
		k, _ := parseDigest(numbered(0))
		s.retire(s.flights[flight{owner: owner, key: k}]) // as when it turns out that it cannot be kept
		first.Close()
		start := time.Now()
		second := fetchWaiting(t, s, 1, ended[1])
		defer second.Close()
		if err := <-ended[0]; !errors.Is(err, errAbandoned) {
			t.Errorf("the first ended by %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the second waited for %s", waited)
		}
	})
}

// What a reader was handed out must have been hashed when he goes on alone.
func TestWhoIsLeftBehindTakesNothingMoreThatIsNotHashed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fillsUp(t)
		data := sample(1, muchLost)
		g := newGated(data, len(data))
		slow, quick := fetched(t, s, data, g.from), fetched(t, s, data, g.from)
		close(g.gate)
		if _, err := io.ReadFull(slow, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(quick, make([]byte, chunkSize+10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(s.limits.patience * 3 / 2) // the slow one is left behind, the quick one waited for
		got := make([]byte, (maxDeferred+7)*chunkSize-10)
		if _, err := io.ReadFull(slow, got); err != nil || !bytes.Equal(got, data[10:10+len(got)]) {
			t.Errorf("who was left behind: %v", err)
		}
		quick.Close()
		mustRead(t, slow, -1, data[10+len(got):])
	})
}

func TestWhoFollowsATransferThatEndsForNobodyTakesNothingOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, muchLost)
		const hashed = (maxDeferred + 4) * chunkSize // before the first waits for who has joined
		come, calls, release := hashed+chunkSize/2, 0, make(chan struct{})
		from := func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			if calls++; calls > 1 {
				return (&upstream{data: data}).from(ctx, offset)
			}
			return io.NopCloser(io.MultiReader(bytes.NewReader(data[:come]), readerFunc(func([]byte) (int, error) {
				<-release // whatever it is told
				return 0, io.ErrUnexpectedEOF
			}))), int64(len(data)), nil
		}
		it := joined(t, s, data, from)
		time.Sleep(laggardPatience + time.Second)
		r, _, err := s.follow(t.Context(), it, from, int64(len(data)), span{hashed + 10, -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		mustRead(t, r, -1, data[hashed+20:])
	})
}
