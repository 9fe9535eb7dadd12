package store

import "sync/atomic"

// maxLent is from how many bytes on buffers are lent sparingly. Slow clients each
// keep what they are sent at a time for as long as they take.
const maxLent = 24 << 20

// buffers lends memory for a while, and keeps some of what comes back: memory
// that is new to the process costs more to be touched first than to be filled.
type buffers struct {
	block, chunk, pair chan []byte // of blockSize, chunkSize and two chunks
	lent               atomic.Int64
}

// newBuffers returns buffers that keep at most 18 MiB.
func newBuffers() *buffers {
	return &buffers{
		block: make(chan []byte, 2<<20/blockSize),
		chunk: make(chan []byte, 12<<20/chunkSize),
		pair:  make(chan []byte, 4<<20/(2*chunkSize)),
	}
}

// get returns size bytes, at most two chunks, and how to give them back, which
// is for who knows that nobody uses them any more. Little is not worth lending.
func (b *buffers) get(size int64) ([]byte, func()) {
	kept, length := b.block, int64(blockSize)
	switch {
	case size <= blockSize/4:
		return make([]byte, size), func() {}
	case size > chunkSize:
		kept, length = b.pair, 2*chunkSize
	case size > blockSize:
		kept, length = b.chunk, chunkSize
	}
	var lent []byte
	select {
	case lent = <-kept:
	default:
		lent = make([]byte, length)
	}
	b.lent.Add(length)
	return lent[:size], func() {
		b.lent.Add(-length)
		select {
		case kept <- lent:
		default:
		}
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
