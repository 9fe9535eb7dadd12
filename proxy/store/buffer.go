package store

import "sync"

// buffers lends memory for a while. Its zero value is ready.
type buffers struct {
	chunk, pair sync.Pool // of *[]byte, one and two chunks long
}

// get returns size bytes, at most two chunks, and how to give them back, which
// is for who knows that nobody uses them any more. Little is not worth lending.
func (b *buffers) get(size int64) ([]byte, func()) {
	pool, length := &b.chunk, int64(chunkSize)
	switch {
	case size <= chunkSize/8:
		return make([]byte, size), func() {}
	case size > chunkSize:
		pool, length = &b.pair, 2*chunkSize
	}
	lent, ok := pool.Get().(*[]byte)
	if !ok {
		made := make([]byte, length)
		lent = &made
	}
	return (*lent)[:size], func() { pool.Put(lent) }
}
