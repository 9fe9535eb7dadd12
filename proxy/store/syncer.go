package store

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"
	"time"
)

const (
	// syncDelay is how long committed content waits to be made durable together
	// with others.
	syncDelay = time.Second
	// maxUnsynced is how much of it may wait; beyond, the oldest is left to the
	// system, which writes it in its own time.
	maxUnsynced = 1 << 12
)

// syncer makes committed content durable a little later, off every request's
// path: files first, then the directories that name them. Before the first of them
// it does so with what the start left to it: a start waits for no medium. A crash of the machine
// before that loses content, or leaves some that does not hash right, whose end no
// reader is given.
type syncer struct {
	disk *disk
	kick chan struct{}

	mu      sync.Mutex
	waiting []key
	founded bool // the layout has been made durable
}

// newSyncer makes a syncer that has the layout to make durable.
func newSyncer(d *disk) *syncer {
	s := &syncer{disk: d, kick: make(chan struct{}, 1)}
	signal(s.kick)
	return s
}

// add has k made durable soon.
func (s *syncer) add(k key) {
	s.mu.Lock()
	if len(s.waiting) == maxUnsynced {
		s.waiting = s.waiting[1:]
	}
	s.waiting = append(s.waiting, k)
	s.mu.Unlock()
	signal(s.kick)
}

// run syncs until ctx ends, and once more then.
func (s *syncer) run(ctx context.Context) {
	for {
		select {
		case <-s.kick:
		case <-ctx.Done():
			s.flush()
			return
		}
		timer := time.NewTimer(syncDelay)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		s.flush()
	}
}

// flush makes all durable that waits. What the medium does not take is removed.
func (s *syncer) flush() {
	if err := s.disk.roster.confess(); err != nil {
		s.disk.log.Warn("it cannot be made durable that the roster is open", "error", err)
	}
	s.mu.Lock()
	all, founded := s.waiting, s.founded
	s.waiting, s.founded = nil, true
	s.mu.Unlock()
	dirs := make(map[string]bool)
	if !founded {
		dirs["."], dirs[path.Dir(blobsDir)] = true, true
	}
	for _, k := range all {
		if s.sync(k) {
			dirs[k.dir()] = true
		}
	}
	if len(dirs) > 0 {
		dirs[blobsDir] = true // where a directory may be new
	}
	for dir := range dirs {
		if err := s.disk.files.syncDir(dir); err != nil {
			s.disk.log.Warn("directory cannot be synced", "directory", dir, "error", err)
			if !founded {
				s.mu.Lock()
				s.founded = false
				s.mu.Unlock()
			}
		}
	}
}

func (s *syncer) sync(k key) bool {
	f, _, err := s.disk.openFile(k)
	if errors.Is(err, fs.ErrNotExist) {
		return false // evicted already
	}
	if err != nil {
		s.disk.log.Warn("content cannot be opened to be synced", "digest", k.String(), "error", err)
		return false
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		s.disk.log.Warn("content cannot be synced and is removed", "digest", k.String(), "error", err)
		s.disk.dropFile(k, f)
		return false
	}
	return true
}
