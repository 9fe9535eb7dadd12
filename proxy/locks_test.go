package proxy_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"vidimus/proxy"
)

func TestLocksLetOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var locks proxy.Locks
		unlock, err := locks.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if other, err := locks.Lock(t.Context(), "b"); err != nil {
			t.Fatal(err)
		} else {
			other()
		}
		// One who leaves takes nothing from those who wait.
		ctx, cancel := context.WithCancel(t.Context())
		left, entered := make(chan error), make(chan struct{})
		go func() { _, err := locks.Lock(ctx, "a"); left <- err }()
		const waiting = 5
		inside := 0
		for range waiting {
			go func() {
				unlock, err := locks.Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
				}
				if inside++; inside != 1 {
					t.Errorf("%d are inside", inside)
				}
				inside--
				unlock()
				entered <- struct{}{}
			}()
		}
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		select {
		case <-entered:
			t.Error("two are inside")
		default:
		}
		unlock()
		for range waiting {
			<-entered
		}
		if again, err := locks.Lock(t.Context(), "a"); err != nil {
			t.Error(err)
		} else {
			again()
		}
	})
}
