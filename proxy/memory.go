package proxy

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Limits of what a revision remembers beside its decisions.
const (
	maxNoted  = 100_000
	maxProofs = 10_000
	maxDoubts = 10_000
)

// memory is a bounded map, the least recently used entry first to go. It is
// safe for concurrent use.
type memory[K comparable, V any] struct {
	mu  sync.Mutex
	lru *simplelru.LRU[K, V]
}

func newMemory[K comparable, V any](size int) *memory[K, V] {
	return &memory[K, V]{lru: newLRU[K, V](size, nil)}
}

func (m *memory[K, V]) get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lru.Get(key)
}

func (m *memory[K, V]) add(key K, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Add(key, value)
}

func (m *memory[K, V]) remove(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Remove(key)
}

// memories are what a revision in use remembers beside its decisions.
type memories struct {
	refusals refusals
	// observed holds what is known of decisions behind answers: see observe.
	observed *decisionCache
	// noted holds under which references each decision is recorded.
	noted *memory[notedKey, struct{}]
	// proofs holds the subjects that evidence was proven to be about: see
	// provenSubject.
	proofs *memory[proofKey, v1.Hash]
	// doubts holds the tags that their upstream could not be asked about, by
	// repository and tag.
	doubts *memory[string, tagDoubt]
}

func newMemories() *memories {
	return &memories{
		observed: newDecisionCache(),
		noted:    newMemory[notedKey, struct{}](maxNoted),
		proofs:   newMemory[proofKey, v1.Hash](maxProofs),
		doubts:   newMemory[string, tagDoubt](maxDoubts),
	}
}

type notedKey struct {
	id, reference string
}

// proofKey is what a proof about a manifest's bytes depends on: which repository
// delivered the layers, and which subject was asked about, or none.
type proofKey struct {
	repository         string
	manifest, expected v1.Hash
}
