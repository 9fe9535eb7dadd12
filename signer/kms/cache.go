package kms

import (
	"context"
	"crypto"
	"sync"
	"time"
)

const (
	// freshFor is how long an answer is not asked for again.
	freshFor = 5 * time.Minute
	// failedFor is how long a failure is not repeated: a reading that is made twice
	// waits once.
	failedFor = 5 * time.Second
	// patience is how long a key that is not known yet is waited for.
	patience = 5 * time.Second
)

// Cache keeps public keys, so that a service that is out is not missed once it has
// answered in this process. The zero Cache is empty, and may be used by many goroutines.
type Cache struct {
	mu   sync.Mutex
	keys map[string]*cached
}

type cached struct {
	mu     sync.Mutex // held while somebody asks
	public crypto.PublicKey
	err    error
	asked  time.Time
}

// Public returns the public half of a key: what the service says when it has not been
// asked for some minutes, and what it last said when it does not answer now.
func (c *Cache) Public(ctx context.Context, reference string) (crypto.PublicKey, error) {
	c.mu.Lock()
	entry := c.keys[reference]
	if entry == nil {
		if c.keys == nil {
			c.keys = make(map[string]*cached)
		}
		entry = new(cached)
		c.keys[reference] = entry
	}
	c.mu.Unlock()

	entry.mu.Lock()
	defer entry.mu.Unlock()
	lasts := freshFor
	if entry.err != nil {
		lasts = failedFor
	}
	if entry.asked.IsZero() || time.Since(entry.asked) >= lasts {
		public, err := public(ctx, reference, patience)
		entry.asked, entry.err = time.Now(), err
		if err == nil {
			entry.public = public
		}
	}
	if entry.public != nil {
		return entry.public, nil
	}
	return nil, entry.err
}
