package signer

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// A Locker lets writers of one signature image take turns. It is a courtesy
// that spares them collisions: nothing is lost without one, or when writers do
// not share it.
type Locker interface {
	// Lock waits until nobody else holds the lock called name, or until ctx
	// ends. The function that it returns gives the lock back.
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// lockFiles is how many files stand for all names: enough that two names
// rarely wait for one another, and few, for they are never removed (to remove
// a lock file is a race with whoever is about to lock it).
const lockFiles = 256

// lockPoll is about how often a lock that is held is tried again. A blocking
// flock cannot be given up when a context ends.
const lockPoll = 20 * time.Millisecond

// FileLock is a Locker for the processes, and the goroutines, of one host that
// use the same directory. The system drops a lock when its process ends.
type FileLock struct{ dir string }

// NewFileLock returns a lock whose files are in dir, which is made if needed,
// for its owner alone. It takes a lock once, so that a directory that cannot
// serve is found now. The error matches errors.ErrUnsupported where the system
// has no such locks.
func NewFileLock(dir string) (*FileLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &FileLock{dir: dir}
	ctx, cancel := context.WithTimeout(context.Background(), lockPoll)
	defer cancel()
	unlock, err := l.Lock(ctx, "probe")
	switch {
	case err == nil:
		unlock()
	case !errors.Is(err, context.DeadlineExceeded):
		return nil, err
	}
	return l, nil
}

// Lock implements Locker. A name stands for one of lockFiles files, so that no
// goroutine may hold two locks at once.
func (l *FileLock) Lock(ctx context.Context, name string) (func(), error) {
	h := fnv.New32a()
	h.Write([]byte(name))
	path := filepath.Join(l.dir, fmt.Sprintf("%02x.lock", h.Sum32()%lockFiles))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		locked, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if locked {
			return func() { f.Close() }, nil
		}
		if err := pause(ctx, lockPoll/2+rand.N(lockPoll)); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
