package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"time"
)

// roster knows how large the contents of a directory are, and when each was last
// used, without holding more of it in memory than has changed within the last
// second. For content the file system is the truth; what the roster says of it
// only decides what is evicted.
//
// News waits in memory and is written together. The file is marked as open while
// it is, so that after a crash it is compared with the directory.
type roster struct {
	root *os.Root
	log  *slog.Logger
	kick chan struct{} // there is news
	full chan struct{} // and much of it

	news struct {
		sync.Mutex
		of   map[key]news
		lost bool // there was too much of it
	}

	mu     sync.Mutex
	slots  *slotFile // nil: there is none that works
	posing bool      // on the medium the file may still be one that was closed in order
	told   bool      // that something is wrong

	noGrowth time.Time // when growing may be tried again
}

// news is what happened to a content last.
type news struct {
	size int64 // -1: it was not there
	at   time.Time
}

const (
	rosterFile = "roster"
	// doubtFile, when it is there, says that content was removed without the
	// roster's knowledge: it is to be compared with the directory.
	doubtFile = "roster.doubt"
	// maxNews is how much news may wait.
	maxNews = 1 << 14
	// newsDelay is how long news gathers before it is written together.
	newsDelay = time.Second
	// growthPause is how long a roster that could not grow is not tried again.
	growthPause = time.Minute
)

// openRoster opens the roster of a directory; survey says that it has to be
// compared with what is there. Without a file nothing is evicted.
func openRoster(root *os.Root, log *slog.Logger) (r *roster, survey bool) {
	r = &roster{root: root, log: log, kick: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	r.news.of = make(map[key]news)
	if err := r.open(); err != nil {
		r.warn("the roster cannot be opened; nothing will be evicted", err)
		return r, false
	}
	survey = !r.slots.clean
	r.posing = r.slots.clean
	err := r.slots.mark(false)
	if _, missing := r.root.Lstat(doubtFile); err == nil && missing == nil {
		if err = r.confess(); err == nil && r.root.Remove(doubtFile) == nil {
			survey = true // and not clean until that has been done
		}
	}
	if err != nil {
		r.warn("the roster cannot be written", err)
	}
	return r, survey
}

// confess makes durable that the file is open, unless it is already: after a loss
// of power the roster is then compared with the directory, as after the end of the
// process. It comes before any content is made durable that the file may not know.
func (r *roster) confess() error {
	r.mu.Lock()
	if !r.posing || r.slots == nil {
		r.mu.Unlock()
		return nil
	}
	file := r.slots.file
	r.mu.Unlock() // nobody is to wait for the medium
	if err := file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("write the roster: %w", err)
	} // what was closed has been replaced by a larger one that never was in order
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posing = false
	return nil
}

func (r *roster) open() error {
	if info, err := r.root.Lstat(rosterFile); err == nil && !info.Mode().IsRegular() {
		if err := r.root.RemoveAll(rosterFile); err != nil {
			return err
		}
	}
	file, err := r.root.OpenFile(rosterFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if r.slots, err = openSlotFile(file); err != nil {
		file.Close()
	}
	return err
}

// warn tells of the first of several failures.
func (r *roster) warn(message string, err error) {
	if !r.told {
		r.log.Warn(message, "error", err)
	}
	r.told = true
}

// note hears that k is held, of this size, and was used at a time; of size -1,
// that it was not there then. It does not wait for the file.
func (r *roster) note(k key, size int64, at time.Time) {
	r.news.Lock()
	old, known := r.news.of[k]
	switch {
	case known && at.Before(old.at):
	case known || len(r.news.of) < maxNews:
		r.news.of[k] = news{size, at}
	default:
		r.news.lost = true
	}
	waiting := len(r.news.of)
	r.news.Unlock()
	if !known && waiting == 1 {
		signal(r.kick)
	}
	if !known && waiting == maxNews/2 {
		signal(r.full)
	}
}

// signal wakes who waits for c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// settle writes what news there is. The mutex is held.
func (r *roster) settle() {
	r.news.Lock()
	var all map[key]news
	if len(r.news.of) > 0 {
		all, r.news.of = r.news.of, make(map[key]news)
	}
	if r.news.lost && r.slots != nil {
		r.slots.damaged, r.news.lost = true, false // a survey will find it
	}
	r.news.Unlock()
	for k, n := range all {
		if n.size < 0 {
			r.do(func() error { return r.slots.remove(k, n.at.UnixNano()) })
		} else {
			r.set(record{key: k, size: n.size, used: n.at.UnixNano()}, false)
		}
	}
}

// do does something with the table, if there is one.
func (r *roster) do(f func() error) {
	if r.slots == nil {
		return
	}
	if err := f(); err != nil {
		r.slots.damaged = true
		r.warn("the roster fails", err)
	}
}

// set records one content, in a larger table if need be.
func (r *roster) set(rec record, recall bool) {
	r.do(func() error {
		err := r.slots.set(rec, recall)
		if err != nil && !errors.Is(err, errOverflow) {
			return err
		}
		if !r.slots.crowded() || time.Now().Before(r.noGrowth) {
			return err
		}
		if grown := r.grow(); grown != nil {
			r.noGrowth = time.Now().Add(growthPause)
			return errors.Join(err, grown)
		}
		if err != nil {
			err = r.slots.set(rec, recall)
		}
		return err
	})
}

// grow replaces the table by one that is twice as large.
func (r *roster) grow() error {
	name := path.Join(tempDir, rosterFile)
	if err := r.root.RemoveAll(name); err != nil {
		return err
	}
	file, err := r.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	larger, err := r.slots.double(file)
	if err == nil {
		err = r.root.Rename(name, rosterFile)
	}
	if err != nil {
		return errors.Join(err, file.Close(), r.root.RemoveAll(name))
	}
	larger.damaged = r.slots.damaged
	r.slots.file.Close()
	r.slots = larger
	return nil
}

// totals returns what is held.
func (r *roster) totals() (bytes, count int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	if r.slots == nil {
		return 0, 0
	}
	return r.slots.bytes, r.slots.count
}

// oldest returns what was used longest ago, among what is not in use.
func (r *roster) oldest(inUse func(key) bool) (found record, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.do(func() (err error) {
		found, ok, err = r.slots.oldest(inUse)
		return err
	})
	return found, ok
}

// beginSurvey counts what the roster holds, and from now on tells what is seen
// from what is not.
func (r *roster) beginSurvey() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.do(func() error {
		r.slots.generation++
		if err := r.slots.save(false); err != nil { // no two surveys have one number
			return err
		}
		err := r.slots.recount()
		r.slots.damaged = false // what did not hold is cleared
		return err
	})
}

// recall hears what a survey has found.
func (r *roster) recall(found []record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	for _, rec := range found {
		r.set(rec, true)
	}
}

// failed reports whether the roster does not work, so that nothing can be said of
// what is held.
func (r *roster) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots == nil || r.slots.damaged
}

// doubt makes sure that there is a survey after the next start.
func (r *roster) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots != nil {
		r.slots.damaged = true
	}
}

// endSurvey forgets what was not seen. It reports false when it is not done yet.
func (r *roster) endSurvey(from int64) (next int64, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	const step = 256
	for range step {
		if r.slots == nil || from >= r.slots.pages {
			return from, false
		}
		r.do(func() error { return r.slots.sweep(from) })
		from++
	}
	return from, true
}

func (r *roster) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	if r.slots == nil {
		return nil
	}
	var err error
	if !r.slots.damaged {
		err = r.slots.save(true)
	}
	err = errors.Join(err, r.slots.file.Close())
	r.slots = nil
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
