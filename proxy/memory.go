package proxy

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What is kept in memory, in bytes as the cost functions count: 24 MiB in all.
// What a revision keeps, everything but manifests, is there twice for as long as
// requests of the revision before go on.
const (
	maxCachedManifests = 6 << 20
	maxCachedDecisions = 10 << 20
	maxNoted           = 2 << 20
	maxEdges           = 5 << 19
	maxAnswers         = 3 << 19
	maxObserved        = 3 << 19
	maxProofs          = 1 << 19
	maxDoubts          = 1 << 19
	maxEvidence        = 1 << 18
)

// memory is a map that is bounded by what its entries cost: the least recently
// used goes first. The latest is held whatever it costs. It is safe for
// concurrent use.
type memory[K comparable, V any] struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[K, sized[V]]
	cost  func(K, V) int
	most  int
	bytes int
}

type sized[V any] struct {
	value V
	bytes int
}

func newMemory[K comparable, V any](most int, cost func(K, V) int) *memory[K, V] {
	return newWatchedMemory(most, cost, func(K, V) {})
}

// newWatchedMemory calls gone, under the lock, with what is no longer held.
func newWatchedMemory[K comparable, V any](most int, cost func(K, V) int, gone func(K, V)) *memory[K, V] {
	m := &memory[K, V]{most: most, cost: cost}
	// The number of entries is bounded by what they cost.
	lru, err := simplelru.NewLRU(most, func(key K, entry sized[V]) {
		m.bytes -= entry.bytes
		gone(key, entry.value)
	})
	if err != nil {
		panic(err) // most is a constant of this file
	}
	m.lru = lru
	return m
}

func (m *memory[K, V]) get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry, ok := m.lru.Get(key)
	return entry.value, ok
}

func (m *memory[K, V]) add(key K, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, value)
}

// put is add, with the lock held.
func (m *memory[K, V]) put(key K, value V) {
	entry := sized[V]{value, m.cost(key, value)}
	m.lru.Remove(key) // Add would replace what is held without a call
	m.bytes += entry.bytes
	m.lru.Add(key, entry)
	for m.bytes > m.most && m.lru.Len() > 1 {
		m.lru.RemoveOldest()
	}
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
	// answers and edges are the short path: see warm.go.
	answers *answers
	edges   *memory[edgeKey, *edge]
	// evidence holds the sizes of the blobs that evidence consists of, as it was
	// served to who may sign: see unadmitted.go.
	evidence *memory[edgeKey, int64]
}

func newMemories() *memories {
	return &memories{
		observed: newDecisionCacheOf(maxObserved),
		noted:    newMemory(maxNoted, func(k notedKey, _ struct{}) int { return notedSize + len(k.reference) }),
		proofs:   newMemory(maxProofs, func(k proofKey, _ v1.Hash) int { return proofSize + len(k.repository) }),
		doubts:   newMemory(maxDoubts, func(name string, _ tagDoubt) int { return doubtSize + len(name) }),
		answers:  newAnswers(),
		edges:    newMemory(maxEdges, func(k edgeKey, _ *edge) int { return edgeSize + len(k.repository) }),
		evidence: newMemory(maxEvidence, func(k edgeKey, _ int64) int { return proofSize + len(k.repository) }),
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
