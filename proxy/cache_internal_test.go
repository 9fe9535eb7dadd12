package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vidimus/policy"
)

func TestTheManifestCacheIsBoundedInBytes(t *testing.T) {
	c := newManifestCache()
	for i := range 100 {
		content := make([]byte, 100<<10)
		content[0] = byte(i)
		c.add(&manifest{digest: digestOf(content), bytes: content})
		c.add(&manifest{digest: digestOf(content), bytes: content}) // again: counted once
		if c.bytes > maxCachedManifests {
			t.Fatalf("%d bytes after %d", c.bytes, i+1)
		}
		if _, ok := c.get(digestOf(content)); !ok {
			t.Fatalf("the latest is not held after %d", i+1)
		}
	}
	if c.lru.Len() < 20 {
		t.Errorf("only %d are held", c.lru.Len())
	}
}

func TestTheDecisionCacheForgetsInTime(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		decision policy.Decision
		kept     time.Duration
	}{
		"allowed":                         {policy.Decision{Allowed: true}, 24 * time.Hour},
		"denied":                          {policy.Decision{}, 5 * time.Second},
		"allowed by an exception":         {policy.Decision{Allowed: true, Expires: now.Add(time.Minute)}, time.Minute},
		"allowed by one that ends later":  {policy.Decision{Allowed: true, Expires: now.Add(48 * time.Hour)}, 24 * time.Hour},
		"allowed by one that ended":       {policy.Decision{Allowed: true, Expires: now.Add(-time.Minute)}, 0},
		"denied, with an end of its own":  {policy.Decision{Expires: now.Add(time.Second)}, time.Second},
		"denied, but served all the same": {policy.Decision{Enforcement: policy.Warn}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := newDecisionCache()
			key := decisionKey{repository: "r"}
			c.add(key, test.decision, now)
			if _, ok := c.get(key, now.Add(test.kept-1)); !ok && test.kept > 0 {
				t.Error("forgotten early")
			}
			if _, ok := c.get(key, now.Add(test.kept)); ok {
				t.Error("held too long")
			}
			if _, ok := c.get(decisionKey{repository: "r", tag: "v1"}, now); ok {
				t.Error("held for another tag")
			}
		})
	}
}

var errLeft = errors.New("left")

func TestAFlight(t *testing.T) {
	t.Run("outlives who leaves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var group flights
			until, runs := make(chan struct{}), 0
			run := func(ctx context.Context) (string, error) {
				runs++
				<-until
				return "done", ctx.Err()
			}
			ctx, leave := context.WithCancelCause(t.Context())
			var waiting sync.WaitGroup
			waiting.Go(func() {
				if _, err := flight(ctx, &group, "key", time.Minute, run); !errors.Is(err, errLeft) {
					t.Errorf("who leaves gets %v", err)
				}
			})
			synctest.Wait()
			for range 5 {
				waiting.Go(func() {
					if got, err := flight(t.Context(), &group, "key", time.Minute, run); got != "done" || err != nil {
						t.Errorf("who stays gets %q, %v", got, err)
					}
				})
			}
			synctest.Wait()
			leave(errLeft)
			synctest.Wait()
			close(until)
			waiting.Wait()
			if runs != 1 {
				t.Errorf("ran %d times", runs)
			}
		})
	})
	t.Run("ends in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var group flights
			_, err := flight(t.Context(), &group, "key", time.Minute, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("that many have left is bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var group flights
			var running atomic.Int32
			hang := func(ctx context.Context) (int, error) {
				running.Add(1)
				defer running.Add(-1)
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			stays, leave := context.WithCancel(t.Context())
			var waiting sync.WaitGroup
			waiting.Go(func() { flight(stays, &group, "stays", time.Hour, hang) })
			for n := range 10 * maxLeft {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				flight(ctx, &group, fmt.Sprint(n), time.Hour, hang)
				cancel()
			}
			synctest.Wait()
			if n := running.Load(); n != maxLeft+1 {
				t.Errorf("%d run, want the first %d that were left and the one that is waited for", n, maxLeft)
			}
			// who comes back gets what goes on, or a new one
			for _, key := range []string{"0", fmt.Sprint(10*maxLeft - 1)} {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLeft)
				if _, err := flight(ctx, &group, key, time.Hour, hang); !errors.Is(err, errLeft) {
					t.Errorf("%s: %v", key, err)
				}
				cancel()
			}
			leave()
			waiting.Wait()
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := running.Load(); n != 0 || len(group.under) != 0 || group.left != 0 {
				t.Errorf("%d run, %d are known, %d of them left", n, len(group.under), group.left)
			}
		})
	})
	t.Run("a panic is an error to all", func(t *testing.T) {
		var group flights
		_, err := flight(t.Context(), &group, "key", time.Minute, func(context.Context) (int, error) { panic("boom") })
		if err == nil || asError(err, wanted{endpoint: endpointManifest}).Status != 503 {
			t.Errorf("%v", err)
		}
	})
}
