// Package store keeps content by digest, in a directory or in memory, and
// hints about where it came from.
//
// # Content
//
// A Store lets many readers follow one transfer. Fetch begins a background
// transfer that belongs to nobody's request, and every caller for the same
// digest reads the content, or a part of it, as it grows: the latest of it from
// memory, the rest from the file that it is written to. A transfer that breaks is
// taken up again where it broke; one that nobody reads any more goes on within
// AbandonedTime and AbandonedBytes. At most MaxTransfers run at a time, and of owners
// whose names are alike up to their first slash three quarters of that.
//
// Nothing is believed. Content is hashed on the way in, and it becomes visible
// under its digest only when it hashed right: a temporary file, and a rename. A
// reader is handed the end of what it asked for, the last 64 KiB of it or all if
// it is less, only when the whole has hashed to its digest in this process, so
// that what was cut short or was never right cannot be read to its end.
//
// What is held is not believed either. Content of at most 64 KiB is hashed each
// time, before Fetch or Open return, and heals without an error. Larger content
// is hashed when this process opens it first, once for all who read it meanwhile,
// and each block of 32 KiB is given a tag then, as it is when it arrives.
// Afterwards each block is compared with its tag before it is handed out, and the
// file's identity (device, inode, size, times) with what it was, before and at
// the end: a file that has changed is hashed anew. Blocks that do not match, or
// cannot be read, are fetched from the origin within the answer, and the content
// is removed. How much is tagged at a time is bounded; the rest is hashed again.
//
// A medium that cannot be written to (full, read-only, broken) costs speed, not
// answers: content then passes through, from memory to those who read it, or
// each reader with a transfer of its own. So does what is larger than
// Config.MaxSize, or than a quarter of Config.MaxMemory without a directory, or
// than MaxUnsized when nobody told its size.
//
// # Durability
//
// A process that is killed leaves nothing wrong in sight: the temporary files of
// a dead process are swept by the next one. Files are made durable about a second
// after they are visible, many together, and so is what Open has changed, which
// waits for no medium to do it. A machine that dies may so leave a file
// under a digest with bytes missing: since the next process hashes it before it
// hands out its end, it is found out, removed and fetched again.
//
// # Index
//
// The index of tags, deliveries and parents is a set of hints: written behind,
// about a second late, and lost without harm. A file of it that is damaged is
// put aside and begun anew, which forgets; it never makes anything known. What is
// asked again and again is answered from a bounded memory in front of the file.
//
// # Eviction
//
// Least recently used content is evicted from a directory above Config.MaxSize,
// in the background, never while it is being read. Sizes and times of use are in
// a file, the roster, of 64 bytes for each content in pages found by digest;
// memory and the cost of an eviction do not depend on how much there is, for
// which above some four thousand contents the oldest of a sample goes. After a
// crash the roster is compared with the directory, in the background.
//
// # Trust
//
// The directory belongs to one process at a time (ErrInUse; the lock needs a
// Unix system) and to one user. Rot and every ordinary change to a file are
// noticed, as above. What remains is who may write into the directory as the same
// user: he can make the store forget, can lie in hints, and who changes a file
// through a mapping that was writable before it was hashed, or the temporary file
// of a transfer, to bytes whose CRC-32C is the same, is not noticed until the
// next process hashes it. Files are reached through an os.Root and by checked
// digests alone, and no symbolic link is followed.
// A Directory is a person's view of one, beside the process that has it: it may
// remove content, which counts as missing from then on, and does nothing else.
package store

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Config says where a Store keeps its content, and how much.
type Config struct {
	// Directory holds the content and the index. It is made when it does not
	// exist. Empty: all is kept in memory, and gone after Close.
	Directory string

	// MaxSize bounds the bytes of content in Directory. Arriving content may
	// exceed it for as long as eviction takes. Zero: unbounded.
	MaxSize int64

	// MaxMemory bounds the bytes of content without a Directory, arriving
	// content and what readers hold on to included. Zero: DefaultMemory.
	MaxMemory int64

	// Logger is told what goes wrong without being anybody's error: content
	// that rotted, a disk that is full. Nil: nobody is.
	Logger *slog.Logger

	limits limits            // zero: defaultLimits
	files  func(files) files // wraps the file system; tests inject faults
}

// Store keeps content and hints. It is safe for concurrent use.
type Store struct {
	*index
	shelf  shelf
	log    *slog.Logger
	limits limits

	slots   chan struct{} // one for each running transfer from an origin
	looks   chan struct{} // one for each look at what is held
	seals   *seals
	buffers *buffers

	deferred atomic.Int64 // chunks that wait to be written
	busy     atomic.Int64 // transfers that arrive
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	shares  map[string]*share      // of slots, by the host that owners' names begin with
	flights map[flight]*transfer   // to be joined
	alive   map[*transfer]struct{} // all that have not ended
	waiting int                    // transfers that wait for a slot, and have their share
}

// Stats is what a Store holds.
type Stats struct {
	Bytes     int64 // of content; while a directory is being looked through after a start, of what was seen so far
	Contents  int   // their number
	Transfers int   // under way or waiting, looks at what is held included
}

// Open returns the Store that config describes. With a directory it fails when
// that cannot be used, and with ErrInUse when another process has it. A damaged
// index is no failure.
func Open(config Config) (*Store, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.MaxMemory <= 0 {
		config.MaxMemory = DefaultMemory
	}
	if config.limits == (limits{}) {
		config.limits = defaultLimits()
	}
	s := &Store{
		log:     config.Logger,
		limits:  config.limits,
		slots:   make(chan struct{}, config.limits.transfers),
		looks:   make(chan struct{}, maxLooks),
		seals:   newSeals(maxSeals),
		buffers: newBuffers(),
		shares:  make(map[string]*share),
		flights: make(map[flight]*transfer),
		alive:   make(map[*transfer]struct{}),
	}
	if config.Directory == "" {
		s.shelf = newMemory(config.MaxMemory)
		s.index = &index{hints: newHintMemory()}
		return s, nil
	}
	d, err := openDisk(config)
	if err != nil {
		return nil, err
	}
	s.shelf = d
	s.index = &index{hints: newHintFile(d.root, config.Logger, config.limits)}
	return s, nil
}

// Close ends all transfers and writes what hints wait. Readers of content that
// is held may read on; others get an error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for t := range s.alive {
		t.stop(ErrClosed)
	}
	s.mu.Unlock()
	s.running.Wait()
	err := s.index.close()
	if shut := s.shelf.close(); err == nil {
		err = shut
	}
	return err
}

// Stats returns what is held now.
func (s *Store) Stats() Stats {
	bytes, contents := s.shelf.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Bytes: bytes, Contents: contents, Transfers: len(s.alive)}
}

// check returns the key of digest, unless the store is closed.
func (s *Store) check(ctx context.Context, digest v1.Hash) (key, error) {
	k, err := parseDigest(digest)
	if err != nil {
		return k, err
	}
	if ctx.Err() != nil {
		return k, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return k, ErrClosed
	}
	return k, nil
}

// begin counts work that Close waits for.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.running.Add(1)
	return nil
}

// holds reports whether something lies under k that is not known to be wrong, and
// in its place for want of a way to remove it; whether it is right is for a reader
// to find out.
func (s *Store) holds(k key) bool {
	c, err := s.shelf.open(k)
	if err != nil {
		return false
	}
	defer c.Close()
	known := s.seals.get(k, c.found())
	return known == nil || !known.bad
}
