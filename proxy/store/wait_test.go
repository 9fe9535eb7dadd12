package store

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestABodyThatPanicsLeavesNobodyWaiting(t *testing.T) {
	for name, config := range map[string]func(t *testing.T) Config{
		"in memory":      func(*testing.T) Config { return Config{} },
		"in a directory": func(t *testing.T) Config { return Config{Directory: t.TempDir()} },
		"on a full disk": func(t *testing.T) Config { return Config{Directory: t.TempDir(), files: broken("write")} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mustOpen(t, config(t))
				data := sample(1, 2*muchLost)
				_, err := readFetch(t, s, data, int64(len(data)), func(context.Context, int64) (io.ReadCloser, int64, error) {
					come := 0
					return io.NopCloser(readerFunc(func(p []byte) (int, error) {
						if come >= muchLost {
							panic("a bug")
						}
						n := copy(p, data[come:])
						come += n
						return n, nil
					})), int64(len(data)), nil
				})
				if err == nil {
					t.Error("no error")
				}
				quiet(s)
				if lent, deferred := s.buffers.lent.Load(), s.deferred.Load(); lent != 0 || deferred != 0 {
					t.Errorf("%d bytes are lent, %d chunks wait to be written", lent, deferred)
				}
				mustMiss(t, s, digestOf(data))
			})
		})
	}
}

func TestATransferThatDoesNotEndWhenItIsToldToMakesRoomOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{limits: smallLimits(func(l *limits) { l.transfers = 2 })})
		ended := [4]chan error{}
		for i := range ended {
			ended[i] = make(chan error, 1)
		}
		release := make(chan struct{}) // for the first, whose upstream hangs and heeds no context
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			s.Fetch(ctx, owner, numbered(0), -1, 0, -1, func(context.Context, int64) (io.ReadCloser, int64, error) {
				<-release
				return nil, 0, io.ErrUnexpectedEOF
			})
		}()
		synctest.Wait()
		cancel()
		<-left
		time.Sleep(time.Second)
		fetchWaiting(t, s, 1, ended[1]).Close() // abandoned later than the first

		start := time.Now()
		served := make(chan io.ReadCloser, 2)
		for i := range 2 {
			go func() { served <- fetchWaiting(t, s, 2+i, ended[2+i]) }()
			synctest.Wait()
		}
		if n := len(served); n != 1 {
			t.Errorf("%d of the two are served in the place of the second", n)
		}
		close(release)
		(<-served).Close()
		(<-served).Close()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("they waited for %s", waited)
		}
	})
}
