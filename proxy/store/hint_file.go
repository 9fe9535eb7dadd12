package store

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// hintFile keeps hints in a file and writes them behind: a hint waits in
// memory, where it is seen at once, and goes to the file with others.
type hintFile struct {
	root   *os.Root
	log    *slog.Logger
	limits limits

	// recent is what was read or set last: what there is of a hint in it is what
	// the maps and the file below say, nil that there is none. It is changed with
	// mu held.
	recent *hintMemory

	kick chan struct{}
	stop chan struct{}
	done chan struct{}

	mu      sync.RWMutex
	db      *database // nil while there is none that works
	pending map[hint][]byte
	writing map[hint][]byte // pending, on its way
	told    bool            // that something is wrong, since the last success

	flushing sync.Mutex // held by the one flush that runs; taken before mu
}

// hint is the full name of a hint.
type hint struct {
	table table
	name  string
}

// newHintFile opens or makes the index file below root. It does not fail:
// without a file, hints are kept in memory, as far as there is room.
func newHintFile(root *os.Root, log *slog.Logger, limits limits) *hintFile {
	h := &hintFile{
		root: root, log: log, limits: limits, recent: newHintMemoryOf(recentMemory),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		pending: make(map[hint][]byte),
	}
	h.reopen()
	go h.run()
	return h
}

func (h *hintFile) get(t table, name string) ([]byte, bool) {
	if value, ok := h.recent.get(t, name); ok {
		return value, value != nil
	}
	value, db, err := h.find(t, name)
	h.failed(db, err)
	return value, value != nil
}

func (h *hintFile) find(t table, name string) ([]byte, *database, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, waiting := range []map[hint][]byte{h.pending, h.writing} {
		if value, ok := waiting[hint{t, name}]; ok {
			h.recent.keep(t, name, value)
			return value, nil, nil
		}
	}
	if h.db == nil {
		return nil, nil, nil
	}
	value, err := h.db.get(t, name)
	if err == nil {
		h.recent.keep(t, name, value)
	}
	return value, h.db, err
}

func (h *hintFile) set(t table, name string, value []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := hint{t, name}
	if _, ok := h.pending[at]; !ok && len(h.pending) >= h.limits.pending {
		return // which a request must not wait for
	}
	h.pending[at] = value
	h.recent.keep(t, name, value)
	h.wake()
}

func (h *hintFile) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// warn tells of the first of several failures in a row.
func (h *hintFile) warn(message string, err error) {
	if !h.told {
		h.log.Warn(message, "error", err)
	}
	h.told = true
}

func (h *hintFile) names(t table, n int, last string) []string {
	names, db, err := h.list(t, n, last)
	h.failed(db, err)
	return names
}

// list merges what waits with what is written. Names are never forgotten in
// the tables that it is used for.
func (h *hintFile) list(t table, n int, last string) ([]string, *database, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var names []string
	for _, waiting := range []map[hint][]byte{h.pending, h.writing} {
		for at, value := range waiting {
			if at.table == t && at.name > last && value != nil {
				names = append(names, at.name)
			}
		}
	}
	var err error
	if h.db != nil {
		var written []string
		written, err = h.db.names(t, n, last)
		names = append(names, written...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(n, len(names))], h.db, err
}

// run writes hints, a while after the first of them came.
func (h *hintFile) run() {
	defer close(h.done)
	for {
		select {
		case <-h.kick:
		case <-h.stop:
			return
		}
		timer := time.NewTimer(flushDelay)
		select {
		case <-timer.C:
			h.flush()
		case <-h.stop:
			timer.Stop()
			return
		}
	}
}

// flush writes what waits. What cannot be written waits on, unless there is a
// newer hint of that name.
func (h *hintFile) flush() error {
	h.flushing.Lock()
	defer h.flushing.Unlock()
	db := h.begin()
	if db == nil {
		return nil
	}
	size, err := db.write(h.writing)

	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.warn("index cannot be written", err)
		for at, value := range h.writing {
			if _, ok := h.pending[at]; !ok {
				h.pending[at] = value
			}
		}
		h.wake()
	} else {
		h.told = false
	}
	h.writing = nil
	if errors.Is(err, errDamaged) || size > h.limits.indexFile {
		h.replace(db, err)
	}
	return err
}

// begin moves what waits to where it is written from, and returns where to;
// nil when there is nothing to do, or no file to do it in.
func (h *hintFile) begin() *database {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == 0 {
		return nil
	}
	if h.db == nil {
		h.reopen()
	}
	if h.db == nil {
		h.wake()
		return nil
	}
	h.writing, h.pending = h.pending, make(map[hint][]byte)
	return h.db
}

// failed begins a new file when err says that this one is damaged.
func (h *hintFile) failed(db *database, err error) {
	if !errors.Is(err, errDamaged) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replace(db, err)
}

// replace begins a new file instead of db, which is damaged (err says how) or
// too large.
func (h *hintFile) replace(db *database, err error) {
	if h.db != db {
		return // somebody else did
	}
	if err != nil {
		h.log.Warn("index is damaged, is put aside and begins empty", "error", err)
		db.abandon()
	} else {
		h.log.Warn("index has outgrown its limit, is put aside and begins empty")
		if err := db.close(); err != nil {
			db.abandon()
		}
	}
	h.db = nil
	h.recent.clear() // what waits is found where it waits
	if err := putAside(h.root); err != nil {
		h.warn("index cannot be put aside", err)
		return
	}
	h.reopen()
}

// reopen opens the file. Without one, hints wait in memory.
func (h *hintFile) reopen() {
	db, err := openDatabase(h.root, h.log)
	if err != nil {
		h.warn("index cannot be opened", err)
		return
	}
	h.db = db
}

func (h *hintFile) close() error {
	close(h.stop)
	<-h.done
	err := h.flush()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.db == nil {
		return err
	}
	return errors.Join(err, h.db.close())
}
