package main

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"hash"
	"math/rand/v2"
	"sync"
)

// ownSize is how many bytes of a blob are nobody else's. No blob is smaller.
const ownSize = sha256.Size

// library makes blobs that cannot be told from random ones, for the price of
// the few bytes in which each of them ends: what comes before is the beginning
// of one base that all share. The same name gives the same blob in every run.
type library struct {
	base []byte

	mu     sync.Mutex
	hashed map[int64][]byte // SHA-256's state after that much of the base
}

// newLibrary returns a library of blobs of up to largest bytes.
func newLibrary(largest int64) *library {
	random := rand.NewChaCha8(sha256.Sum256([]byte("vidimus/e2e/bench")))
	l := &library{base: make([]byte, max(0, largest-ownSize)), hashed: map[int64][]byte{}}
	_, _ = random.Read(l.base) // never fails
	return l
}

// blob returns the blob of that name and size, which is at least ownSize and at
// most what the library was made for.
func (l *library) blob(name string, size int64) blob {
	own := sha256.Sum256([]byte(name))
	shared := l.base[:size-ownSize]
	h := l.after(shared)
	h.Write(own[:])
	return blob{digest: digestOf(h), shared: shared, own: own[:]}
}

// after returns a SHA-256 that has seen shared. Each length is hashed once.
func (l *library) after(shared []byte) hash.Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := sha256.New()
	size := int64(len(shared))
	state, known := l.hashed[size]
	if known && h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state) == nil {
		return h
	}
	h.Reset()
	h.Write(shared)
	if state, err := h.(encoding.BinaryMarshaler).MarshalBinary(); err == nil {
		l.hashed[size] = state
	}
	return h
}

// blob is the content of one digest: shared, and then own. Neither is written
// to.
type blob struct {
	digest string
	shared []byte
	own    []byte
}

func blobOf(data []byte) blob {
	h := sha256.New()
	h.Write(data)
	return blob{digest: digestOf(h), own: data}
}

func (b blob) size() int64 { return int64(len(b.shared) + len(b.own)) }

// at returns bytes from offset on, at most n and at least one, as one piece.
func (b blob) at(offset, n int64) []byte {
	piece := b.own
	if shared := int64(len(b.shared)); offset < shared {
		piece = b.shared[offset:]
	} else {
		piece = piece[offset-shared:]
	}
	return piece[:min(n, int64(len(piece)))]
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }
