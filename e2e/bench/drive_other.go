//go:build !linux

package main

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func flushDisks() {}

// loop exists on Linux only, whose /proc the rest of the program needs as well.
type loop struct {
	flows           []*flow
	requests, bytes atomic.Int64
}

type flow struct{ timing timing }

func newLoop(*load, int, int, *atomic.Bool) (*loop, error) { return nil, errors.ErrUnsupported }

func (*loop) run(context.Context) error { return errors.ErrUnsupported }

func (*loop) close() {}
