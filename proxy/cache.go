package proxy

import (
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"vidimus/policy"
)

// Limits of what is kept in memory.
const (
	maxCachedManifests     = 64 << 20 // bytes
	maxCachedDecisions     = 100_000
	positiveDecisionKept   = 24 * time.Hour
	negativeDecisionKept   = 5 * time.Second
	manifestCacheOverheads = 1024 // bytes counted for each entry beside its content
)

// manifestCache holds parsed manifests, the least recently used first to go.
// Its content was hashed by this process, so it is believed.
type manifestCache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[v1.Hash, *manifest]
	bytes int
}

func newManifestCache() *manifestCache {
	c := &manifestCache{}
	c.lru = newLRU(1<<20, func(_ v1.Hash, m *manifest) { c.bytes -= cost(m) })
	return c
}

// cost estimates what a manifest holds: its bytes and, about as much again,
// what was parsed from them.
func cost(m *manifest) int { return 2*len(m.bytes) + manifestCacheOverheads }

func (c *manifestCache) get(digest v1.Hash) (*manifest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Get(digest)
}

func (c *manifestCache) add(m *manifest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lru.Contains(m.digest) {
		return
	}
	c.lru.Add(m.digest, m)
	c.bytes += cost(m)
	for c.bytes > maxCachedManifests && c.lru.Len() > 1 {
		c.lru.RemoveOldest()
	}
}

// newLRU returns an LRU of at least one entry, for which simplelru cannot fail.
func newLRU[K comparable, V any](size int, evicted func(K, V)) *simplelru.LRU[K, V] {
	lru, err := simplelru.NewLRU(size, evicted)
	if err != nil {
		panic(err) // size is a constant of this file
	}
	return lru
}

// decisionKey is what a decision is bound to; the policy revision is bound by
// the cache's belonging to one.
type decisionKey struct {
	repository string
	digest     v1.Hash
	tag        string // empty unless the policy reads it
	via        string // identifier of the decision about the index that lists it
}

type decisionEntry struct {
	decision policy.Decision
	until    time.Time
}

// decisionCache holds decisions that were reached, never the failure to.
type decisionCache struct {
	mu  sync.Mutex
	lru *simplelru.LRU[decisionKey, decisionEntry]
}

func newDecisionCache() *decisionCache {
	return &decisionCache{lru: newLRU[decisionKey, decisionEntry](maxCachedDecisions, nil)}
}

func (c *decisionCache) get(key decisionKey, now time.Time) (policy.Decision, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.lru.Get(key)
	if !ok || !now.Before(entry.until) {
		return policy.Decision{}, false
	}
	return entry.decision, true
}

func (c *decisionCache) add(key decisionKey, d policy.Decision, now time.Time) {
	until := now.Add(negativeDecisionKept)
	if d.Allowed {
		until = now.Add(positiveDecisionKept)
	}
	if !d.Expires.IsZero() && d.Expires.Before(until) {
		until = d.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Add(key, decisionEntry{decision: d, until: until})
}
