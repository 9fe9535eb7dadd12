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

// broken is a file system on which these operations fail as on a full disk.
func broken(ops ...string) func(files) files {
	return func(under files) files {
		return &faulty{files: under, fault: func(op, _ string) (bool, error) {
			for _, it := range ops {
				if op == it {
					return false, syscall.ENOSPC
				}
			}
			return true, nil
		}}
	}
}

// stalling is an origin that delivers the first bytes of data and no more until
// its context ends.
func stalling(data []byte, first int) origin {
	return func(ctx context.Context, _ int64) (io.ReadCloser, int64, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:first]), readerFunc(func([]byte) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}))), int64(len(data)), nil
	}
}

// divertedHalfWay returns a store on a full disk, and a reader of a transfer that
// has come so far that this was seen, and stalls. It belongs in a bubble.
func divertedHalfWay(t *testing.T, change func(*limits)) (*Store, io.ReadCloser) {
	t.Helper()
	s := mustOpen(t, Config{Directory: t.TempDir(), limits: smallLimits(change), files: broken("write")})
	const half = (maxDeferred + 6) * chunkSize // what is not deferred is written
	data := sample(1, 2*half)
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, stalling(data, half))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, half)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flights) != 0 || len(s.alive) != 1 {
		t.Fatalf("%d transfers can be joined, of %d", len(s.flights), len(s.alive))
	}
	return s, r
}

func TestCloseEndsATransferThatIsNotKeptAndStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := divertedHalfWay(t, func(*limits) {})
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
				t.Errorf("read: %v", err)
			}
			r.Close()
		default:
			t.Error("it waits for the upstream")
			r.Close()
			<-closed // when nobody reads it any more
		}
	})
}

func TestATransferThatIsNotKeptEndsWithItsLastReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := divertedHalfWay(t, func(l *limits) { l.transfers = 1 })
		r.Close()
		synctest.Wait()
		if n := s.Stats().Transfers; n != 0 {
			t.Errorf("%d transfers", n)
		}
		start := time.Now()
		other := sample(2, 1000)
		mustFetch(t, s, other, (&upstream{data: other}).from) // in the one slot
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the next one waited for %s", waited)
		}
	})
}

func TestAClientThatStallsOnAFullDiskIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		data := sample(1, (maxDeferred+20)*chunkSize)
		size := int64(len(data))
		from, body, _ := piped(size)
		quick, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, from)
		if err != nil {
			t.Fatal(err)
		}
		u := &upstream{data: data}
		stalled, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, u.from)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		go func() {
			body.Write(data)
			body.Close()
		}()
		begin := make([]byte, 1)
		if _, err := io.ReadFull(stalled, begin); err != nil {
			t.Fatal(err)
		}
		mustRead(t, quick, -1, data)
		if waited := time.Since(start); waited > laggardPatience {
			t.Errorf("the other client waited for %s", waited)
		}
		if n := u.calls.Load(); n != 0 {
			t.Error("who stalls was not given what he could have")
		}
		mustRead(t, stalled, -1, data[1:])
		if n := u.calls.Load(); n != 1 || begin[0] != data[0] {
			t.Errorf("who was left behind asked the upstream %d times", n)
		}
	})
}

func TestWhoIsToldTheRightSizeDoesNotShareTheFateOfWhoIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{})
		data := sample(1, 300<<10)
		size := int64(len(data))
		answer := make(chan struct{})
		wrong, right := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := readFetch(t, s, data, size+1, func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
				<-answer
				return (&upstream{data: data}).from(ctx, offset)
			})
			wrong <- err
		}()
		synctest.Wait() // until the first has asked, and waits
		go func() {
			got, err := readFetch(t, s, data, size, (&upstream{data: data}).from)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("other bytes")
			}
			right <- err
		}()
		synctest.Wait()
		close(answer)
		if err := <-right; err != nil {
			t.Errorf("the right size: %v", err)
		}
		if _, ok := errors.AsType[*MismatchError](<-wrong); !ok {
			t.Error("the wrong size was accepted")
		}
	})
}

func TestAPrefetchOfWhatCannotBeKeptEndsAndSaysSo(t *testing.T) {
	data := sample(1, (maxDeferred+50)*chunkSize)
	const tried = (maxDeferred + 6) * chunkSize // by then something is written
	for op, most := range map[string]int{"create": tried, "write": tried, "rename": len(data)} {
		t.Run(op, func(t *testing.T) {
			s := mustOpen(t, Config{Directory: t.TempDir(), files: broken(op)})
			var taken atomic.Int64
			err := s.Prefetch(t.Context(), owner, digestOf(data), int64(len(data)), func(context.Context, int64) (io.ReadCloser, int64, error) {
				rest := bytes.NewReader(data)
				return io.NopCloser(readerFunc(func(p []byte) (int, error) {
					n, err := rest.Read(p)
					taken.Add(int64(n))
					return n, err
				})), int64(len(data)), nil
			})
			quiet(s)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v does not say why", err)
			}
			if n := taken.Load(); n > int64(most) {
				t.Errorf("%d bytes were fetched for nobody", n)
			}
			mustMiss(t, s, digestOf(data))
		})
	}
}

func TestWhoJoinsAPrefetchOnAFullDiskIsServed(t *testing.T) {
	data := sample(1, (maxDeferred+20)*chunkSize)
	size := int64(len(data))
	// begin prefetches, and returns when the transfer can be joined.
	begin := func(t *testing.T) (s *Store, body io.WriteCloser, ended chan error) {
		s = mustOpen(t, Config{Directory: t.TempDir(), files: broken("write")})
		from, w, _ := piped(size)
		ended = make(chan error, 1)
		go func() { ended <- s.Prefetch(t.Context(), owner, digestOf(data), size, from) }()
		if _, err := w.Write(data[:chunkSize]); err != nil {
			t.Error(err)
		}
		return s, w, ended
	}
	rest := func(body io.WriteCloser) {
		body.Write(data[chunkSize:])
		body.Close()
	}
	t.Run("from the same transfer while he reads it", func(t *testing.T) {
		s, body, ended := begin(t)
		r, got, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, forbidden(t))
		if err != nil {
			t.Fatal(err)
		}
		go rest(body)
		mustRead(t, r, got, data)
		if err := <-ended; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the prefetch: %v", err)
		}
	})
	t.Run("from one of his own when he comes too late", func(t *testing.T) {
		s, body, ended := begin(t)
		s.limits.patience = time.Millisecond
		k, _ := parseDigest(digestOf(data))
		joined, err := s.join(owner, k) // as Fetch does
		if err != nil || joined == nil {
			t.Fatal(err)
		}
		if err := joined.opened(t.Context()); err != nil {
			t.Fatal(err)
		}
		rest(body)
		if err := <-ended; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the prefetch: %v", err)
		}
		r, got, err := s.follow(t.Context(), joined, (&upstream{data: data}).from, size, span{0, -1})
		if err != nil {
			t.Fatal(err)
		}
		mustRead(t, r, got, data)
	})
}
