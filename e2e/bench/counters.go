package main

import (
	"maps"
	"sync"
)

// Kinds of requests that the origin tells apart.
const (
	kindPing      = "ping"      // of /v2/
	kindManifest  = "manifest"  // by tag or by digest
	kindSignature = "signature" // a sha256-<hex>.sig tag
	kindLegacy    = "legacy"    // a sha256-<hex>.cosign tag
	kindReferrers = "referrers" // the API, and the sha256-<hex> tag that stands in for it
	kindPayload   = "payload"   // a blob of a signature image
	kindBlob      = "blob"      // a blob of an image
	kindOther     = "other"
)

// counters are what the origin counts since it began.
type counters struct {
	// Requests are by kind, in one repository; those of no repository are in
	// every answer.
	Requests map[string]int `json:"requests"`
	// Bytes are those of the bodies of blobs, by digest, in one repository.
	Bytes map[string]int64 `json:"bytes"`
	// Connections are all that were opened.
	Connections int `json:"connections"`
	// InFlight are the requests that are being answered.
	InFlight int `json:"inFlight"`
}

// total is how many requests were counted, of all kinds but those in except.
func (c counters) total(except ...string) int {
	total := 0
	for kind, n := range c.Requests {
		counts := true
		for _, e := range except {
			counts = counts && kind != e
		}
		if counts {
			total += n
		}
	}
	return total
}

// since returns what was counted after earlier.
func (c counters) since(earlier counters) counters {
	later := counters{Requests: maps.Clone(c.Requests), Bytes: maps.Clone(c.Bytes), InFlight: c.InFlight}
	for kind, n := range earlier.Requests {
		later.Requests[kind] -= n
	}
	for digest, n := range earlier.Bytes {
		later.Bytes[digest] -= n
	}
	later.Connections = c.Connections - earlier.Connections
	return later
}

// tally counts. It is safe for concurrent use.
type tally struct {
	mu           sync.Mutex
	repositories map[string]counters // "" has what belongs to none
	connections  int
	inFlight     int
}

func newTally() *tally { return &tally{repositories: map[string]counters{}} }

// of returns the counters of a repository. The caller holds mu.
func (t *tally) of(repository string) counters {
	c, known := t.repositories[repository]
	if !known {
		c = counters{Requests: map[string]int{}, Bytes: map[string]int64{}}
		t.repositories[repository] = c
	}
	return c
}

func (t *tally) connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connections++
}

// begin counts a request. The caller calls end when it has been answered.
func (t *tally) begin(repository, kind string) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(repository).Requests[kind]++
	t.inFlight++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.inFlight--
	}
}

func (t *tally) sent(repository, digest string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(repository).Bytes[digest] += n
}

// read returns what has been counted of repository.
func (t *tally) read(repository string) counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	counted := t.of(repository)
	c := counters{
		Requests:    maps.Clone(counted.Requests),
		Bytes:       maps.Clone(counted.Bytes),
		Connections: t.connections,
		InFlight:    t.inFlight,
	}
	if repository != "" {
		for kind, n := range t.of("").Requests {
			c.Requests[kind] += n
		}
	}
	return c
}
