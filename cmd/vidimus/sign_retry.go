package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// retryPassing tries again, twice, what failed for a reason that may pass.
func retryPassing(ctx context.Context, try func() error) error {
	for _, wait := range []time.Duration{time.Second, 3 * time.Second} {
		err := try()
		if err == nil || !passing(err) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
	return try()
}

// passing reports whether what failed may work when tried again.
func passing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.Temporary()
	}
	if fault, ok := errors.AsType[net.Error](err); ok && fault.Timeout() {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// absentError says in its own words that there is no such thing.
type absentError struct{ error }

func (e absentError) Unwrap() error { return e.error }

// Is makes it match fs.ErrNotExist.
func (absentError) Is(target error) bool { return target == fs.ErrNotExist }

func absent(err error) error {
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusNotFound {
		return absentError{err}
	}
	return err
}

// notThere makes the name of something that does not exist a misuse.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return misuse(err)
	}
	return err
}

func parseDigest(s string) (v1.Hash, error) {
	digest, err := v1.NewHash(s)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%s: only sha256 digests are supported: %w", s, err)
	}
	return digest, nil
}
