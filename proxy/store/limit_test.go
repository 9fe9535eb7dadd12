package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// waits is an origin that waits for its context, and tells when it ended.
func waits(ended chan error) origin {
	return func(ctx context.Context, _ int64) (io.ReadCloser, int64, error) {
		r, w := io.Pipe()
		context.AfterFunc(ctx, func() {
			w.CloseWithError(context.Cause(ctx))
			ended <- context.Cause(ctx)
		})
		return r, -1, nil
	}
}

func fetchWaiting(t *testing.T, s *Store, n int, ended chan error) io.ReadCloser {
	t.Helper()
	r, _, err := s.Fetch(t.Context(), owner, numbered(n), -1, 0, -1, waits(ended))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnAbandonedTransferEndsAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{})
		ended := make(chan error, 1)
		for range 3 { // coming back in time keeps it alive
			r := fetchWaiting(t, s, 1, ended)
			r.Close()
			time.Sleep(AbandonedTime - time.Second)
		}
		if len(ended) != 0 {
			t.Fatal("it ended early")
		}
		time.Sleep(2 * time.Second)
		if err := <-ended; !errors.Is(err, errAbandoned) {
			t.Errorf("ended by %v", err)
		}
		quiet(s)
		if n := s.Stats().Transfers; n != 0 {
			t.Errorf("%d transfers", n)
		}
	})
}

func TestATransferThatIsReadDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{})
		ended := make(chan error, 1)
		first := fetchWaiting(t, s, 1, ended)
		second := fetchWaiting(t, s, 1, ended)
		first.Close()
		time.Sleep(10 * AbandonedTime)
		k, _ := parseDigest(numbered(1))
		s.expire(s.flights[flight{owner: owner, key: k}]) // as a timer does that fires while a reader comes
		synctest.Wait()
		if len(ended) != 0 {
			t.Error("it ended")
		}
		second.Close()
	})
}

func TestAnAbandonedTransferEndsAfterSoManyBytes(t *testing.T) {
	s := mustOpen(t, Config{limits: smallLimits(func(l *limits) { l.abandonedBytes = 1 << 20 })})
	from, body, _ := piped(-1)
	r, _, err := s.Fetch(t.Context(), owner, numbered(1), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	written := 0
	for written < 100<<20 {
		n, err := body.Write(make([]byte, 64<<10))
		written += n
		if err != nil {
			break
		}
	}
	if written < 1<<20 || written > 2<<20 {
		t.Errorf("ended after %d bytes", written)
	}
}

func TestTransfersAreBoundedAndAbandonedOnesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{limits: smallLimits(func(l *limits) { l.transfers = 2 })})
		ended := [4]chan error{}
		for i := range ended {
			ended[i] = make(chan error, 1)
		}
		first := fetchWaiting(t, s, 0, ended[0])
		second := fetchWaiting(t, s, 1, ended[1])

		// A third waits for as long as it likes.
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, _, err := s.Fetch(ctx, owner, numbered(2), -1, 0, -1, waits(ended[2])); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("third: %v", err)
		}
		synctest.Wait()
		if n := s.Stats().Transfers; n != 2 {
			t.Errorf("%d transfers", n)
		}

		// An abandoned one makes room for the next, at once.
		start := time.Now()
		first.Close()
		synctest.Wait()
		third := fetchWaiting(t, s, 2, ended[2])
		if err := <-ended[0]; !errors.Is(err, errAbandoned) {
			t.Errorf("first ended by %v", err)
		}

		// So does one that is abandoned while somebody waits.
		go func() {
			synctest.Wait()
			second.Close()
		}()
		fourth := fetchWaiting(t, s, 3, ended[3])
		if err := <-ended[1]; !errors.Is(err, errAbandoned) {
			t.Errorf("second ended by %v", err)
		}
		if len(ended[2])+len(ended[3]) != 0 {
			t.Error("one that is read ended")
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited for %v", waited)
		}
		third.Close()
		fourth.Close()
	})
}

// TestAHostThatDripsLeavesSlotsToOthers: however many of its contents are wanted.
func TestAHostThatDripsLeavesSlotsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{})
		ended := make(chan error, 2*MaxTransfers)
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for n := range 2 * MaxTransfers {
			readers.Go(func() {
				if r, _, err := s.Fetch(ctx, fmt.Sprint("slow.example/", n), numbered(n), -1, 0, -1, waits(ended)); err == nil {
					<-ctx.Done()
					r.Close()
				}
			})
		}
		synctest.Wait()
		data := sample(1, chunkSize)
		start := time.Now()
		r, _, err := s.Fetch(t.Context(), "fast.example/web", digestOf(data), -1, 0, -1, func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(data[offset:])), -1, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if waited := time.Since(start); err != nil || !bytes.Equal(got, data) || waited != 0 {
			t.Errorf("%d bytes after %v: %v", len(got), waited, err)
		}
		r.Close()
		cancel()
		readers.Wait()
	})
}

// Nor do those that wait for it end what goes on of others when a client has left: they
// could not have its slots.
func TestAHostThatDripsEndsNoTransferOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{})
		ended, other := make(chan error, 2*MaxTransfers), make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for n := range MaxTransfers {
			readers.Go(func() {
				if r, _, err := s.Fetch(ctx, fmt.Sprint("slow.example/", n), numbered(n), -1, 0, -1, waits(ended)); err == nil {
					<-ctx.Done()
					r.Close()
				}
			})
		}
		synctest.Wait()
		r, _, err := s.Fetch(t.Context(), "fast.example/web", numbered(MaxTransfers), -1, 0, -1, waits(other))
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		synctest.Wait()
		if len(other) != 0 {
			t.Errorf("it is ended by %v", <-other)
		}
		cancel()
		readers.Wait()
	})
}
