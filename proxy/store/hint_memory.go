package store

import (
	"slices"
	"sync"
)

// hintOverhead is what a hint costs in memory besides its bytes.
const hintOverhead = 256

// hintMemory keeps hints in memory, the most recently used of them.
type hintMemory struct {
	most   func(table) int64 // bytes
	mu     sync.Mutex
	tables [tableCount]hintTable
}

type hintTable struct {
	ledger *ledger[string]
	values map[string][]byte
}

func newHintMemory() *hintMemory { return newHintMemoryOf(tableMemory) }

// newHintMemoryOf bounds each table in bytes.
func newHintMemoryOf(most func(table) int64) *hintMemory {
	h := &hintMemory{most: most}
	h.clear()
	return h
}

// clear forgets everything.
func (h *hintMemory) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tables {
		h.tables[t] = hintTable{newLedger[string](), make(map[string][]byte)}
	}
}

func (h *hintMemory) get(t table, name string) ([]byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, ok := h.tables[t].values[name]
	if ok {
		h.tables[t].ledger.note(name, hintSize(name, value))
	}
	return value, ok
}

func (h *hintMemory) set(t table, name string, value []byte) {
	if value == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tables[t].remove(name)
		return
	}
	h.keep(t, name, value)
}

// keep keeps a value; nil, too, which get then returns as one.
func (h *hintMemory) keep(t table, name string, value []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.tables[t]
	of.values[name] = value
	of.ledger.note(name, hintSize(name, value))
	for of.ledger.bytes > h.most(t) {
		of.remove(of.ledger.oldest().key)
	}
}

func (of hintTable) remove(name string) {
	if at := of.ledger.lines[name]; at != nil {
		of.ledger.forget(at)
		delete(of.values, name)
	}
}

func (h *hintMemory) names(t table, n int, last string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.tables[t].values {
		if name > last {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(n, len(names))]
}

func (h *hintMemory) close() error { return nil }

func hintSize(name string, value []byte) int64 {
	return int64(len(name) + len(value) + hintOverhead)
}
