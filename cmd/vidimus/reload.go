package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vidimus/signer/kms"
)

// How the files of the running configuration are watched. A change that comes
// to rest takes effect after two looks at most, one that does not after four:
// within two seconds.
const (
	lookEvery  = 500 * time.Millisecond
	mostLooks  = 3                // at files that go on changing, before they are read anyway
	retryEvery = 10 * time.Second // an invalid configuration is tried again
	// confirmAfter is when what was read is read once more. A file that was
	// written twice within one tick of the file system's clock looks the same
	// both times; after this it can no longer be the same tick.
	confirmAfter = 2 * time.Second
)

// reloadConfig is what a reloader is made of.
type reloadConfig struct {
	From      source
	Lookup    func(name string) (string, bool) // of the environment
	Observers observers
	Log       *slog.Logger
}

// reloader keeps the running revision, and replaces it when its files change:
//
//   - a valid configuration takes effect;
//   - an invalid one changes nothing, is logged once and tried again;
//   - but a key file of the running configuration that is gone, unreadable, no key
//     any more or another key suspends its authorities, until it holds its key
//     again or a valid configuration takes effect. Missing files do so at the
//     first look, the others as soon as they are read.
//
// One goroutine runs Run; everything else may be called by any.
type reloader struct {
	config  reloadConfig
	current atomic.Pointer[revision]
	wake    chan struct{}

	mu     sync.Mutex
	status reloadStatus

	// Of Run alone.
	use     func(*revision) error
	files   watched // as they were last seen
	moves   int     // looks in a row that found a change
	retry   time.Time
	confirm time.Time
	logged  string // the faults that the log has
	asked   bool   // for the present reading, whose outcome is logged whatever it is
}

// reloadStatus is how the last reading of the configuration went.
type reloadStatus struct {
	Revision  string
	Since     time.Time         // when the revision took effect
	Fault     string            // what was wrong with the last configuration; empty: nothing
	Suspended map[string]string // authorities whose keys cannot be used: why
}

// Successful reports whether what runs is what the files say.
func (s reloadStatus) Successful() bool { return s.Fault == "" }

// openReloader reads the configuration for the first time; nothing that is wrong
// with it is overlooked then, a missing key neither.
func openReloader(c reloadConfig) (*reloader, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.From = askingKMS(c.From, new(kms.Cache))
	l, err := load(c.From, c.Lookup, time.Now())
	if err != nil {
		return nil, err
	}
	first, err := l.build(c.Observers, l.unreachable(), nil)
	if err != nil {
		return nil, err
	}
	r := &reloader{config: c, wake: make(chan struct{}, 1)}
	r.settle(first)
	r.logSuspended(nil)
	return r, nil
}

// Revision returns the running revision.
func (r *reloader) Revision() *revision { return r.current.Load() }

// Status returns how the last reading went.
func (r *reloader) Status() reloadStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Suspended = maps.Clone(s.Suspended)
	return s
}

// Reload asks Run to read the configuration now, changed or not, and to log what
// came of it.
func (r *reloader) Reload() {
	select {
	case r.wake <- struct{}{}:
	default: // asked already
	}
}

// Run watches until ctx ends. use puts a new revision into effect; the first one
// is not given to it.
func (r *reloader) Run(ctx context.Context, use func(*revision) error) {
	r.use = use
	r.logExceptions()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			r.logged, r.asked = "", true
			r.read()
			r.asked = false
		case <-ticker.C:
			r.look()
		}
	}
}

// look reads the configuration when its files have changed and come to rest, or
// when it is time to read it anyway.
func (r *reloader) look() {
	seen := r.files.now()
	r.suspendMissing(seen)
	now := time.Now()
	switch {
	case !seen.equal(r.files):
		r.files = seen
		r.moves++
		if r.moves >= mostLooks {
			r.read()
		}
	case r.moves > 0, isDue(r.retry, now), isDue(r.confirm, now):
		r.read()
	}
}

func isDue(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// read reads the configuration, and puts it into effect when it holds.
func (r *reloader) read() {
	confirming := r.moves == 0 && !r.confirm.IsZero()
	r.moves, r.retry, r.confirm = 0, time.Time{}, time.Time{}
	if !confirming {
		r.confirm = time.Now().Add(confirmAfter)
	}
	running := r.current.Load()
	g, err := gather(r.config.From, r.config.Lookup)
	r.files = running.watched.now().with(g.reader.seen())
	if err == nil {
		err = r.judge(running, g)
	}
	if err == nil {
		return
	}
	r.retry = time.Now().Add(retryEvery)
	r.suspend(keyTrouble(running, g.reader))
	r.report(err)
}

// judge puts g into effect when it holds. What is read has gone through compilers and
// parsers of others: a panic in one of them says that it does not hold, and ends nothing
// that runs.
func (r *reloader) judge(running *revision, g gathered) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("judging the configuration panicked: %v\n%s", value, debug.Stack())
		}
	}()
	next, err := judge(g, time.Now())
	if err != nil {
		return err
	}
	return r.replace(running, next)
}

// replace puts next into effect, unless it is what runs already.
func (r *reloader) replace(running *revision, next *loaded) error {
	if len(next.unreachable()) > 0 {
		r.retry = time.Now().Add(retryEvery)
	}
	if next.sum == running.sum && sameNames(running.Suspended, next.unreachable()) {
		r.recovered()
		if r.asked {
			r.config.Log.Info("configuration read again, unchanged", "revision", running.ID)
			r.logExceptions()
		}
		return nil
	}
	revision, err := next.build(r.config.Observers, next.unreachable(), running)
	if err != nil {
		return err
	}
	if err := r.use(revision); err != nil {
		return err
	}
	if names := needsRestart(running.loaded, next); len(names) > 0 {
		r.config.Log.Warn("these settings take effect after a restart", "settings", strings.Join(names, ", "))
	}
	r.config.Log.Info("configuration is in effect", "revision", revision.ID)
	r.settle(revision)
	r.logSuspended(running.Suspended)
	r.logExceptions()
	closeUnused(running, revision)
	return nil
}

// settle makes revision, which is in effect, the running one.
func (r *reloader) settle(revision *revision) {
	if r.files.files == nil {
		r.files = revision.watched
		r.confirm = time.Now().Add(confirmAfter)
	}
	if len(revision.unreachable()) > 0 {
		r.retry = time.Now().Add(retryEvery)
	}
	r.current.Store(revision)
	r.logged = ""
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = reloadStatus{Revision: revision.ID, Since: time.Now(), Suspended: revision.Suspended}
}

// recovered notes that the files say again what is running.
func (r *reloader) recovered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Fault != "" {
		r.config.Log.Info("configuration is again the running one", "revision", r.status.Revision)
	}
	r.status.Fault, r.logged = "", ""
}

// closeUnused ends the idle connections of clients that were replaced. Requests
// that began with them go on.
func closeUnused(before, after *revision) {
	for name, client := range before.Clients {
		if after.Clients[name] != client {
			client.Close()
		}
	}
}
