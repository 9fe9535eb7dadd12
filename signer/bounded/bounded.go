// Package bounded calls what may hang: the services that take part in a signature are
// others', and their libraries do not all listen to a context.
package bounded

import (
	"context"
	"errors"
	"time"
)

// ErrLate says that a call failed, and that its time had passed by then.
var ErrLate = errors.New("no answer in time")

// Call returns what do returns, and gives up when that takes longer than limit, whether
// do listens to its context or not; one that does not goes on by itself. The error is
// that of ctx when ctx has ended. When limit has passed it is what do made of that, or
// context.DeadlineExceeded, and matches ErrLate as well.
func Call[T any](ctx context.Context, limit time.Duration, do func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := do(bounded)
		done <- outcome{value, err}
	}()
	var got outcome
	select {
	case got = <-done:
	case <-bounded.Done():
		got.err = bounded.Err()
	}
	var none T
	switch {
	case got.err == nil:
		return got.value, nil
	case ctx.Err() != nil:
		return none, ctx.Err()
	case bounded.Err() != nil:
		return none, late{got.err}
	}
	return none, got.err
}

// late is an error of a call whose time has passed.
type late struct{ error }

func (e late) Unwrap() error        { return e.error }
func (e late) Is(target error) bool { return target == ErrLate }
