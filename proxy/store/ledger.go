package store

import "container/list"

// ledger keeps the sizes of things and the order in which they were last used.
// It is not safe for concurrent use.
type ledger[K comparable] struct {
	lines map[K]*line[K]
	order list.List // of *line[K], the most recently used first
	bytes int64
	count int // of what is held
}

// line is one thing in a ledger. One that is pinned is in use and no candidate
// for eviction.
type line[K comparable] struct {
	key  K
	size int64
	kept bool // false for a placeholder of what may not be held at all
	pins int
	at   *list.Element // nil once the line has left the ledger
}

func newLedger[K comparable]() *ledger[K] {
	return &ledger[K]{lines: make(map[K]*line[K])}
}

// note records that k is held, has this size, and was used just now.
func (l *ledger[K]) note(k K, size int64) {
	at := l.line(k)
	l.order.MoveToFront(at.at)
	l.keep(at, size)
}

// line returns the line of k, a new placeholder when there is none.
func (l *ledger[K]) line(k K) *line[K] {
	at := l.lines[k]
	if at == nil {
		at = &line[K]{key: k}
		at.at = l.order.PushFront(at)
		l.lines[k] = at
	}
	return at
}

// keep makes a line one of what is held.
func (l *ledger[K]) keep(at *line[K], size int64) {
	if !at.kept {
		at.kept = true
		l.count++
	}
	l.bytes += size - at.size
	at.size = size
}

// pin keeps k from eviction until unpin. It makes a placeholder for what the
// ledger does not know.
func (l *ledger[K]) pin(k K) *line[K] {
	at := l.line(k)
	at.pins++
	return at
}

// unpin undoes one pin; the line may have left the ledger meanwhile.
func (l *ledger[K]) unpin(at *line[K]) {
	at.pins--
	if at.pins == 0 && !at.kept {
		l.forget(at)
	}
}

// forget takes a line out.
func (l *ledger[K]) forget(at *line[K]) {
	if at.at == nil {
		return
	}
	l.order.Remove(at.at)
	at.at = nil
	l.bytes -= at.size
	if at.kept {
		l.count--
	}
	delete(l.lines, at.key)
}

// oldest returns the least recently used line that nobody has pinned, or nil.
func (l *ledger[K]) oldest() *line[K] {
	for e := l.order.Back(); e != nil; e = e.Prev() {
		if at := e.Value.(*line[K]); at.pins == 0 {
			return at
		}
	}
	return nil
}
