package store

import (
	"context"
	"errors"
	"io/fs"
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
// path: files first, then the directories that name them. A crash of the machine
// before that loses content, or leaves some that does not hash right, whose end no
// reader is given.
type syncer struct {
	disk *disk
	kick chan struct{}

	mu      sync.Mutex
	waiting []key
}

func newSyncer(d *disk) *syncer { return &syncer{disk: d, kick: make(chan struct{}, 1)} }

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
	s.mu.Lock()
	all := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	dirs := make(map[string]bool)
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
