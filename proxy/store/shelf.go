package store

import (
	"errors"
	"io"
)

// shelf is where content lies: a directory or memory. It trusts its callers:
// who commits a draft has hashed it, and who reads hashes again.
type shelf interface {
	// open returns what is held under k. It matches fs.ErrNotExist when that
	// is nothing. What is open is not evicted.
	open(k key) (content, error)

	// takes reports whether content of size (-1: unknown) may be kept at all.
	takes(size int64) bool

	// draft begins content that will be size bytes long (-1: unknown).
	draft(k key, size int64) (draft, error)

	// drop removes what c was opened from, unless k means something newer by
	// now.
	drop(k key, c io.ReaderAt)

	// stats returns the bytes and the number of contents held.
	stats() (bytes int64, contents int)

	// close ends the shelf's own work. Open contents stay readable.
	close() error
}

// content is held and immutable. It is safe for concurrent use.
type content interface {
	io.ReaderAt
	io.Closer
	size() int64

	// found is its identity when it was opened; its size is that of size.
	found() identity

	// identity tells, now, whether the content is in the state that another
	// identity was of.
	identity() (identity, error)
}

// draft is content that is being written. Write appends; what has been written
// may be read at the same time. After the first failed Write nothing more is
// written.
type draft interface {
	io.Writer
	io.ReaderAt
	io.Closer

	// commit makes the draft visible under its key, and durable soon; it
	// returns the identity of what lies there. It stays readable until Close.
	commit() (identity, error)

	// discard gives the draft up. It stays readable until Close.
	discard()
}

// errFull is why a shelf does not take what would exceed its bounds. It is not
// a fault of the medium.
var errFull = errors.New("store: no room within the configured size")
