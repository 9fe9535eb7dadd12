package signer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFileLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "locks")

	t.Run("holders of one name take turns", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var wg sync.WaitGroup
			// Atomic, since the race detector does not know what a lock file orders.
			var inside, seen atomic.Int32
			for range 8 {
				lock, err := NewFileLock(dir)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					unlock, err := lock.Lock(t.Context(), "name")
					if err != nil {
						t.Error(err)
						return
					}
					defer unlock()
					if inside.Add(1) != 1 {
						t.Error("two at once")
					}
					time.Sleep(time.Second)
					inside.Add(-1)
					seen.Add(1)
				})
			}
			wg.Wait()
			if seen.Load() != 8 {
				t.Errorf("%d of 8 had it", seen.Load())
			}
		})
	})
	t.Run("waiting ends with the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lock, err := NewFileLock(dir)
			if err != nil {
				t.Fatal(err)
			}
			unlock, err := lock.Lock(t.Context(), "name")
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := lock.Lock(ctx, "name"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("the files are few and for their owner alone", func(t *testing.T) {
		lock, err := NewFileLock(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			unlock, err := lock.Lock(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			unlock()
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > lockFiles {
			t.Errorf("%d files, %v", len(entries), err)
		}
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})
	t.Run("a directory that cannot be is an error", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFileLock(filepath.Join(file, "locks")); err == nil {
			t.Error("no error")
		}
	})
}
