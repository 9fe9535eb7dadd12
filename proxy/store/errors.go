package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var (
	// ErrClosed is returned by a closed Store and by a closed reader. It
	// matches fs.ErrClosed.
	ErrClosed = fmt.Errorf("store: %w", fs.ErrClosed)

	// ErrRotten is what a reader returns when held content turns out not to
	// match its digest. The content has then been removed, and the next Fetch
	// fetches it anew: so it matches fs.ErrNotExist.
	ErrRotten = fmt.Errorf("store: held content does not match its digest and is removed: %w", fs.ErrNotExist)

	// ErrInUse is returned by Open when another process has the directory.
	ErrInUse = errors.New("store: the directory is in use by another process")

	// ErrTooLarge is returned by Put and Prefetch for content that the store is
	// too small to keep.
	ErrTooLarge = errors.New("store: content is larger than this store keeps")
)

var (
	errHeld      = errors.New("store: content is held already")
	errDiverted  = errors.New("store: content cannot be kept")
	errAbandoned = errors.New("store: transfer abandoned")
)

// MismatchError says that what was delivered is not what was asked for: it has
// another digest, or another size than the caller or the upstream told.
type MismatchError struct {
	Digest v1.Hash // what was asked for
	Got    v1.Hash // what came; zero when the size alone was seen to be wrong
	Size   int64   // the size that was told; -1 when none was
	Length int64   // the size that came, as far as it was read or announced
}

// Error names both digests, or both sizes.
func (e *MismatchError) Error() string {
	if e.Got != (v1.Hash{}) {
		return fmt.Sprintf("store: content of %s has digest %s", e.Digest, e.Got)
	}
	return fmt.Sprintf("store: content of %s has %d bytes or more instead of %d", e.Digest, e.Length, e.Size)
}

// Kind classes the error among the faults of an upstream, as the proxy does.
func (e *MismatchError) Kind() string { return "mismatch" }

// RetryAfter is zero: the upstream asked for no delay.
func (e *MismatchError) RetryAfter() time.Duration { return 0 }
