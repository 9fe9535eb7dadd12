package store

import (
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// seal is what this process remembers of content that it has hashed to its
// digest: how to know the same bytes again without hashing all of them.
type seal struct {
	id   identity
	size int64
	tags []tag // one for each block
	bad  bool  // it did not hash to its digest, and could not be removed
}

// sealOverhead is what a seal costs in memory besides its tags.
const sealOverhead = 256

// seals keeps the most recently used seals, within maxSeals bytes. What has none
// is hashed anew. It is safe for concurrent use.
type seals struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[key, *seal]
	bytes int
	max   int
}

func newSeals(max int) *seals {
	s := &seals{max: max}
	// One of at least one entry cannot fail.
	s.lru, _ = simplelru.NewLRU(1<<30, func(_ key, old *seal) { s.bytes -= old.cost() })
	return s
}

func (s *seal) cost() int { return 4*len(s.tags) + sealOverhead }

// get returns the seal of k when that was made of a file with this identity.
func (s *seals) get(k key, id identity) *seal {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.lru.Get(k)
	if !ok || found.id != id {
		return nil
	}
	return found
}

// set remembers that content of k with this identity has hashed to k, and was
// tagged meanwhile.
func (s *seals) set(k key, id identity, size int64, tags []tag) {
	s.add(k, &seal{id: id, size: size, tags: slices.Clip(tags)})
}

func (s *seals) add(k key, made *seal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(k)
	s.lru.Add(k, made)
	s.bytes += made.cost()
	for s.bytes > s.max && s.lru.Len() > 1 {
		s.lru.RemoveOldest()
	}
}

// condemn remembers that content of k with this identity is not what it should
// be.
func (s *seals) condemn(k key, id identity) { s.add(k, &seal{id: id, bad: true}) }

// drop forgets k.
func (s *seals) drop(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(k)
}
