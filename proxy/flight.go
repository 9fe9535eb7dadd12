package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sync/singleflight"
)

// flight runs f once for all callers that come with the same key while it
// runs. f gets a context of its own, bounded by limit: a caller that leaves
// takes nothing from the others. A panic in f is an error to all of them: what
// was being decided is not served, and the process lives.
func flight[T any](ctx context.Context, group *singleflight.Group, key string, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	var zero T
	results := group.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return guarded(ctx, f)
	})
	select {
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	case result := <-results:
		if result.Err != nil {
			return zero, result.Err
		}
		return result.Val.(T), nil
	}
}

func guarded[T any](ctx context.Context, f func(context.Context) (T, error)) (result T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f(ctx)
}
