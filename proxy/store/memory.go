package store

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// memory is a shelf without a directory. Its bound covers what is held, what
// arrives, and what readers still hold on to after it was evicted.
type memory struct {
	max int64

	serial atomic.Uint64

	mu     sync.Mutex
	used   int64
	ledger *ledger[key] // sizes as chunks take them
	held   map[key]*chunks
}

// contentOverhead is what an entry costs besides its bytes.
const contentOverhead = 512

func newMemory(limit int64) *memory {
	return &memory{max: limit, ledger: newLedger[key](), held: make(map[key]*chunks)}
}

func (m *memory) takes(size int64) bool { return size <= m.max/4 }

func (m *memory) open(k key) (content, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.held[k]
	if c == nil {
		return nil, k.missing()
	}
	c.refs++
	m.ledger.note(k, c.cost)
	return &memoryContent{chunks: c, memory: m, pin: m.ledger.pin(k)}, nil
}

func (m *memory) draft(k key, size int64) (draft, error) {
	d := &memoryDraft{memory: m, key: k, total: size, chunks: &chunks{refs: 1, serial: m.serial.Add(1)}}
	if !m.reserve(d.chunks, contentOverhead) {
		return nil, errFull
	}
	return d, nil
}

// reserve makes n bytes more available to c, by eviction where needed.
func (m *memory) reserve(c *chunks, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.used+n > m.max {
		at := m.ledger.oldest()
		if at == nil {
			return false
		}
		m.removeLocked(at.key)
	}
	m.used += n
	c.cost += n
	return true
}

// removeLocked takes k off the shelf. Its bytes are free when nobody reads it.
func (m *memory) removeLocked(k key) {
	c := m.held[k]
	if c == nil {
		return
	}
	delete(m.held, k)
	m.ledger.forget(m.ledger.lines[k])
	m.releaseLocked(c)
}

// releaseLocked undoes one reference: the shelf's own, a draft's, a reader's.
func (m *memory) releaseLocked(c *chunks) {
	c.refs--
	if c.refs == 0 {
		m.used -= c.cost
	}
}

func (m *memory) drop(k key, c io.ReaderAt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var of *chunks
	switch c := c.(type) {
	case *memoryContent:
		of = c.chunks
	case *memoryDraft:
		of = c.chunks
	}
	if of != nil && m.held[k] == of {
		m.removeLocked(k)
	}
}

func (m *memory) stats() (bytes int64, contents int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.held {
		bytes += c.length
	}
	return bytes, len(m.held)
}

func (m *memory) close() error { return nil }

// chunks is content in memory that only grows, so that what has been written
// may be read at the same time.
type chunks struct {
	serial uint64 // tells it from others of its digest
	cost   int64  // under the shelf's mutex
	refs   int    // likewise

	mu     sync.RWMutex
	list   [][]byte
	starts []int64
	length int64
}

// identity is the identity of what does not change.
func (c *chunks) identity() identity { return identity{ino: c.serial, size: c.length} }

// ReadAt reads across chunks. It implements io.ReaderAt.
func (c *chunks) ReadAt(p []byte, offset int64) (int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if offset < 0 || offset >= c.length {
		return 0, io.EOF
	}
	i, exact := slices.BinarySearch(c.starts, offset)
	if !exact {
		i--
	}
	n := 0
	for ; i < len(c.list) && n < len(p); i++ {
		n += copy(p[n:], c.list[i][offset+int64(n)-c.starts[i]:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// extend writes into the room of the last chunk and returns how much fitted.
func (c *chunks) extend(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return 0
	}
	last := &c.list[len(c.list)-1]
	n := min(len(p), cap(*last)-len(*last))
	*last = append(*last, p[:n]...)
	c.length += int64(n)
	return n
}

// grow adds an empty chunk.
func (c *chunks) grow(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, make([]byte, 0, size))
	c.starts = append(c.starts, c.length)
}

// memoryContent is one reader's hold on content.
type memoryContent struct {
	*chunks
	memory *memory
	pin    *line[key]
}

func (c *memoryContent) size() int64 { return c.length }

func (c *memoryContent) found() identity { return c.chunks.identity() }

func (c *memoryContent) identity() (identity, error) { return c.chunks.identity(), nil }

func (c *memoryContent) Close() error {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	c.memory.ledger.unpin(c.pin)
	c.memory.releaseLocked(c.chunks)
	return nil
}

// memoryDraft is content that is being written to memory.
type memoryDraft struct {
	*chunks
	memory *memory
	key    key
	total  int64
	pin    *line[key] // once committed
}

func (d *memoryDraft) Write(p []byte) (int, error) {
	if !d.memory.takes(d.length + int64(len(p))) {
		return 0, errFull
	}
	n := d.extend(p)
	for n < len(p) {
		size := d.next(int64(len(p) - n))
		if !d.memory.reserve(d.chunks, size) {
			return n, errFull
		}
		d.grow(size)
		n += d.extend(p[n:])
	}
	return n, nil
}

// next is the size of the next chunk: what is still to come, but never much
// more than has come, for the size is somebody's word.
func (d *memoryDraft) next(need int64) int64 {
	size := max(need, min(d.length, 2*chunkSize))
	if rest := d.total - d.length; d.total >= 0 && rest >= need {
		size = min(size, rest)
	}
	return size
}

func (d *memoryDraft) commit() (identity, error) {
	m := d.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(d.key)
	d.refs++
	m.held[d.key] = d.chunks
	m.ledger.note(d.key, d.cost)
	d.pin = m.ledger.pin(d.key)
	return d.identity(), nil
}

func (d *memoryDraft) discard() {}

func (d *memoryDraft) Close() error {
	d.memory.mu.Lock()
	defer d.memory.mu.Unlock()
	if d.pin != nil {
		d.memory.ledger.unpin(d.pin)
	}
	d.memory.releaseLocked(d.chunks)
	return nil
}
