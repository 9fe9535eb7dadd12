package store

import (
	"sync"
	"sync/atomic"
)

// maxLent is from how many bytes on buffers are lent sparingly. Slow clients each
// keep what they are sent at a time for as long as they take.
const maxLent = 24 << 20

// buffers lends memory for a while. Its zero value is ready.
type buffers struct {
	block, chunk, pair sync.Pool // of *[]byte: blockSize, chunkSize, two chunks
	lent               atomic.Int64
}

// get returns size bytes, at most two chunks, and how to give them back, which
// is for who knows that nobody uses them any more. Little is not worth lending.
func (b *buffers) get(size int64) ([]byte, func()) {
	pool, length := &b.block, int64(blockSize)
	switch {
	case size <= blockSize/4:
		return make([]byte, size), func() {}
	case size > chunkSize:
		pool, length = &b.pair, 2*chunkSize
	case size > blockSize:
		pool, length = &b.chunk, chunkSize
	}
	lent, ok := pool.Get().(*[]byte)
	if !ok {
		made := make([]byte, length)
		lent = &made
	}
	b.lent.Add(length)
	return (*lent)[:size], func() {
		b.lent.Add(-length)
		pool.Put(lent)
	}
}

// piece returns in what size content is handed out to one reader: as large as
// asked for, or a block when much is lent already.
func (b *buffers) piece(size int64) int64 {
	if b.lent.Load() > maxLent {
		return min(size, blockSize)
	}
	return size
}
