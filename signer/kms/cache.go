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

// Cache keeps keys, so that a service that is out is not missed once it has answered in
// this process. The zero Cache is empty, and may be used by many goroutines.
type Cache struct {
	mu      sync.Mutex
	publics map[string]*answer[crypto.PublicKey] // by reference
	signers map[string]*answer[crypto.Signer]
}

// Public returns the public half of a key: what the service says when it has not been
// asked for some minutes, and what it last said when it does not answer now.
func (c *Cache) Public(ctx context.Context, reference string) (crypto.PublicKey, error) {
	return answerOf(&c.mu, &c.publics, reference).get(func() (crypto.PublicKey, error) { return public(ctx, reference, patience) })
}

// Signer returns a key to sign with, as Open does, and as Public returns its public
// half. Many may sign with it at once. While the service is out it can be had, but
// signs nothing.
func (c *Cache) Signer(ctx context.Context, reference string) (crypto.Signer, error) {
	return answerOf(&c.mu, &c.signers, reference).get(func() (crypto.Signer, error) { return openSigner(ctx, reference, patience) })
}

// answer is what a service last said of a key.
type answer[T any] struct {
	mu    sync.Mutex // held while somebody asks
	value T
	known bool // that is, the value
	err   error
	asked time.Time
}

// answerOf finds or makes the answer about a key in a map that mu guards.
func answerOf[T any](mu *sync.Mutex, all *map[string]*answer[T], reference string) *answer[T] {
	mu.Lock()
	defer mu.Unlock()
	if *all == nil {
		*all = make(map[string]*answer[T])
	}
	a := (*all)[reference]
	if a == nil {
		a = new(answer[T])
		(*all)[reference] = a
	}
	return a
}

// get asks when it is time to, and returns the last answer, or why there is none.
func (a *answer[T]) get(ask func() (T, error)) (T, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lasts := freshFor
	if a.err != nil {
		lasts = failedFor
	}
	if a.asked.IsZero() || time.Since(a.asked) >= lasts {
		value, err := ask()
		a.asked, a.err = time.Now(), err
		if err == nil {
			a.value, a.known = value, true
		}
	}
	if a.known {
		return a.value, nil
	}
	var none T
	return none, a.err
}
