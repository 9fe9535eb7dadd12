package proxy

import (
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
)

// How long decisions are kept.
const (
	positiveDecisionKept = 24 * time.Hour
	negativeDecisionKept = 5 * time.Second
)

// manifestCache holds parsed manifests. Its content was hashed by this process,
// so it is believed.
type manifestCache struct {
	*memory[v1.Hash, *manifest]
}

func newManifestCache() *manifestCache {
	return &manifestCache{newMemory(maxCachedManifests, func(_ v1.Hash, m *manifest) int { return m.cost() })}
}

func (c *manifestCache) add(m *manifest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lru.Contains(m.digest) {
		c.put(m.digest, m)
	}
}

// What is counted of each thing that is kept, in bytes: with its place in a map
// and a list, and what allocations waste, without the texts and lists that are
// counted one by one. A test compares them with what the runtime says.
const (
	manifestSize   = 1024
	descriptorSize = 320
	platformSize   = 256
	listedSize     = 32  // an element of a list of strings
	mapSize        = 256 // a map of strings that is not empty
	mappedSize     = 104 // a pair in it
	decisionSize   = 896
	evidenceSize   = 640
	claimedSize    = 192 // what it claims of its signer
	weightSize     = 96
	remedySize     = 64
	answerSize     = 448
	edgeSize       = 832 // with its two header values
	notedSize      = 224
	proofSize      = 768
	doubtSize      = 1024 // with the error
)

// cost is what a manifest holds, which depends on what its bytes say.
func (m *manifest) cost() int {
	n := manifestSize + len(m.bytes)
	for d := range m.descriptors {
		n += descriptorCost(d)
	}
	if m.subject != nil {
		n += descriptorCost(*m.subject)
	}
	return n
}

func descriptorCost(d v1.Descriptor) int {
	n := descriptorSize + len(d.MediaType) + len(d.ArtifactType) + len(d.Data)
	for _, url := range d.URLs {
		n += listedSize + len(url)
	}
	if len(d.Annotations) > 0 {
		n += mapSize
	}
	for name, value := range d.Annotations {
		n += mappedSize + len(name) + len(value)
	}
	if p := d.Platform; p != nil {
		n += platformSize + len(p.Architecture) + len(p.OS) + len(p.OSVersion) + len(p.Variant)
		for _, feature := range p.OSFeatures {
			n += listedSize + len(feature)
		}
		for _, feature := range p.Features {
			n += listedSize + len(feature)
		}
	}
	return n
}

// decisionKey is what a decision is bound to; the policy revision is bound by
// the cache's belonging to one.
type decisionKey struct {
	repository string
	digest     v1.Hash
	tag        string // empty unless the policy reads it
	via        string // identifier of the decision about the index that lists it
}

// standing is a decision in use. It is not changed once it is cached, but for
// gone.
type standing struct {
	decision policy.Decision
	until    time.Time
	// from is the decision that this one was derived from, and stands no longer
	// than. Nil: it stands by itself.
	from *standing
	// gone says that the cache does not hold it any more, or holds another
	// decision in its place.
	gone atomic.Bool
}

// stands reports whether the decision, and what it was derived from, would be
// found in the cache and be used at now.
func (s *standing) stands(now time.Time) bool {
	for ; s != nil; s = s.from {
		if s.gone.Load() || !now.Before(s.until) {
			return false
		}
	}
	return true
}

// decisionCache holds decisions that were reached, never the failure to.
type decisionCache struct {
	*memory[decisionKey, *standing]
	byID map[string]*standing
}

func newDecisionCache() *decisionCache { return newDecisionCacheOf(maxCachedDecisions) }

func newDecisionCacheOf(most int) *decisionCache {
	c := &decisionCache{byID: make(map[string]*standing)}
	c.memory = newWatchedMemory(most, standingCost, func(_ decisionKey, s *standing) {
		s.gone.Store(true)
		if c.byID[s.decision.ID] == s {
			delete(c.byID, s.decision.ID)
		}
	})
	return c
}

func (c *decisionCache) get(key decisionKey, now time.Time) (policy.Decision, bool) {
	s, ok := c.memory.get(key)
	if !ok || !now.Before(s.until) {
		return policy.Decision{}, false
	}
	return s.decision, true
}

// standing returns the cached decision of this identifier, nil when there is
// none.
func (c *decisionCache) standing(id string) *standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *decisionCache) add(key decisionKey, d policy.Decision, now time.Time) {
	c.keep(key, &standing{decision: d}, now, always)
}

// addWhile keeps a decision when what it was reached on still is as it was then: still is
// asked in turn with what forgets decisions.
func (c *decisionCache) addWhile(key decisionKey, d policy.Decision, now time.Time, still func() bool) {
	c.keep(key, &standing{decision: d}, now, still)
}

func always() bool { return true }

// addDerived keeps a decision that was derived from the one with this
// identifier. When that has left the cache meanwhile, it does not stand.
func (c *decisionCache) addDerived(key decisionKey, d policy.Decision, from string, now time.Time) {
	s := &standing{decision: d, from: c.standing(from)}
	if s.from == nil {
		s.from = &standing{}
	}
	c.keep(key, s, now, always)
}

func (c *decisionCache) keep(key decisionKey, s *standing, now time.Time, still func() bool) {
	d := &s.decision
	s.until = now.Add(negativeDecisionKept)
	if d.Allowed {
		s.until = now.Add(positiveDecisionKept)
	}
	if !d.Expires.IsZero() && d.Expires.Before(s.until) {
		s.until = d.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !still() {
		return
	}
	c.put(key, s)
	c.byID[d.ID] = s
}

// forgetDenials drops the denials of what digest names in a repository.
func (c *decisionCache) forgetDenials(repository string, digest v1.Hash) {
	c.forgetWhere(repository, digest, func(d policy.Decision) bool { return !d.Allowed })
}

// forget drops all decisions about what digest names in a repository, or about anything
// in it when digest is zero.
func (c *decisionCache) forget(repository string, digest v1.Hash) {
	c.forgetWhere(repository, digest, func(policy.Decision) bool { return true })
}

func (c *decisionCache) forgetWhere(repository string, digest v1.Hash, fits func(policy.Decision) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.lru.Keys() {
		if key.repository != repository || key.digest != digest && !isZero(digest) {
			continue
		}
		if entry, ok := c.lru.Peek(key); ok && fits(entry.value.decision) {
			c.lru.Remove(key)
		}
	}
}

// standingCost counts what a decision holds, and those that it was derived from
// again, for it may outlast them here.
func standingCost(key decisionKey, s *standing) int {
	n := len(key.repository) + len(key.tag)
	for ; s != nil; s = s.from {
		n += decisionCost(s.decision)
	}
	return n
}

// decisionCost leaves out what the decisions of a policy share.
func decisionCost(d policy.Decision) int {
	n := decisionSize + len(d.ID) + len(d.Explained) + len(d.Hint) + len(d.Via) + len(d.About)
	for _, list := range [][]string{d.Causes, d.Satisfied, d.Subject.Aliases} {
		for _, text := range list {
			n += listedSize + len(text)
		}
	}
	for _, e := range d.Evidence {
		n += evidenceCost(e)
	}
	for _, w := range d.Weights {
		n += weightSize + listedSize*len(w.Counts) + len(w.Failed())
	}
	return n + remediesCost(d.Remedies)
}

func remediesCost(remedies []policy.Remedy) int {
	n := 0
	for _, r := range remedies {
		n += remedySize + len(r.Do) + len(r.Command) + len(r.Config)
	}
	return n
}

func evidenceCost(e verifier.Evidence) int {
	n := evidenceSize + mapSize + len(e.Source()) + len(e.Detail()) + len(e.Signer()) + len(e.Untimed()) + len(e.ClaimedName())
	if c, ok := e.Claimed(); ok {
		n += claimedSize + len(c.Issuer) + len(c.Subject) + len(c.Source) + len(c.Key) + len(c.PredicateType) + len(c.Detail)
	}
	for name, value := range e.Annotations() {
		n += mappedSize + len(name) + annotationCost(value)
	}
	return n
}

// annotationCost counts a value as verifier.Evidence.Annotations describes it.
func annotationCost(value any) int {
	n := listedSize
	switch value := value.(type) {
	case map[string]any:
		n += mapSize
		for name, value := range value {
			n += mappedSize + len(name) + annotationCost(value)
		}
	case []any:
		for _, value := range value {
			n += annotationCost(value)
		}
	case string:
		n += len(value)
	case interface{ String() string }: // json.Number
		n += len(value.String())
	}
	return n
}
