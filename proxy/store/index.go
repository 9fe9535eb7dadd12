package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// table is one kind of hint.
type table byte

const (
	tableTags         table = iota // repository, tag -> digest and time
	tableDelivered                 // repository, digest -> nothing
	tableParents                   // repository, child -> digests of manifests
	tableRepositories              // repository -> nothing
	tableCount
)

// hints keeps the tables of an index: pairs of strings that may be lost at any
// time, and are never invented.
type hints interface {
	get(t table, name string) (value []byte, ok bool)
	set(t table, name string, value []byte) // nil forgets

	// names returns up to n names of a table after last, sorted.
	names(t table, n int, last string) []string

	close() error
}

// index implements the methods of a Store that remember where content came
// from. What is remembered is a hint, written behind: a crash may lose the last
// second of it, and a full table its oldest lines.
type index struct {
	hints hints
	mu    sync.RWMutex // held for writing by what reads, changes and writes
	shut  bool
}

// Tag returns what tag meant when it was last confirmed. It matches
// fs.ErrNotExist when nothing is known.
func (x *index) Tag(_ context.Context, repository, tag string) (v1.Hash, time.Time, error) {
	name, err := join(repository, tag)
	if err != nil {
		return v1.Hash{}, time.Time{}, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.shut {
		return v1.Hash{}, time.Time{}, ErrClosed
	}
	var k key
	var confirmed time.Time
	value, ok := x.hints.get(tableTags, name)
	if !ok || len(value) < len(k) || confirmed.UnmarshalBinary(value[len(k):]) != nil {
		return v1.Hash{}, time.Time{}, fmt.Errorf("store: tag %s:%s: %w", repository, tag, fs.ErrNotExist)
	}
	copy(k[:], value)
	return k.digest(), confirmed, nil
}

// SetTag remembers what tag means; the zero digest forgets it.
func (x *index) SetTag(_ context.Context, repository, tag string, digest v1.Hash, confirmed time.Time) error {
	name, err := join(repository, tag)
	if err != nil {
		return err
	}
	var value []byte
	if digest != (v1.Hash{}) {
		k, err := parseDigest(digest)
		if err != nil {
			return err
		}
		stamp, err := confirmed.UTC().MarshalBinary()
		if err != nil {
			return fmt.Errorf("store: tag %s:%s: %w", repository, tag, err)
		}
		value = append(k[:], stamp...)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shut {
		return ErrClosed
	}
	x.hints.set(tableTags, name, value)
	return nil
}

// Delivered remembers that repository's upstream delivered digest; with edges
// also that the manifest digest, which was admitted, references each of them.
// It does not make the edges delivered.
func (x *index) Delivered(_ context.Context, repository string, digest v1.Hash, edges ...v1.Hash) error {
	parent, err := parseDigest(digest)
	if err != nil {
		return err
	}
	name, err := join(repository, string(parent[:]))
	if err != nil {
		return err
	}
	children := make([]key, len(edges))
	for i, edge := range edges {
		if children[i], err = parseDigest(edge); err != nil {
			return err
		}
	}
	err = x.change(func() {
		x.learn(tableDelivered, name)
		if len(children) > 0 {
			x.learn(tableRepositories, repository)
		}
	})
	// A manifest has room for tens of thousands, and everybody else waits meanwhile.
	for some := range slices.Chunk(children, adoptedAtOnce) {
		if err != nil {
			break
		}
		err = x.change(func() {
			for _, child := range some {
				x.adopt(repository+separator+string(child[:]), parent)
			}
		})
	}
	return err
}

// adoptedAtOnce is how many children get a parent while nobody else is let in.
const adoptedAtOnce = 64

// change lets f read, change and write hints.
func (x *index) change(f func()) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shut {
		return ErrClosed
	}
	f()
	return nil
}

// learn sets a name that has no value, unless that is known.
func (x *index) learn(t table, name string) {
	if _, ok := x.hints.get(t, name); !ok {
		x.hints.set(t, name, []byte{})
	}
}

// adopt puts parent in front of the parents of a child.
func (x *index) adopt(child string, parent key) {
	old, _ := x.hints.get(tableParents, child)
	if bytes.HasPrefix(old, parent[:]) {
		return
	}
	value := append(make([]byte, 0, len(old)+len(parent)), parent[:]...)
	for other := range digests(old) {
		if other != parent && len(value) < MaxParents*len(parent) {
			value = append(value, other[:]...)
		}
	}
	x.hints.set(tableParents, child, value)
}

// digests yields the digests that value is a row of.
func digests(value []byte) func(yield func(key) bool) {
	return func(yield func(key) bool) {
		for len(value) >= sha256.Size {
			if !yield(key(value)) {
				return
			}
			value = value[sha256.Size:]
		}
	}
}

// Known reports whether repository delivered digest, and at most MaxParents
// manifests of repository that reference it, the most recently admitted first.
func (x *index) Known(_ context.Context, repository string, digest v1.Hash) (bool, []v1.Hash, error) {
	k, err := parseDigest(digest)
	if err != nil {
		return false, nil, err
	}
	if err := checkName(repository); err != nil {
		return false, nil, err
	}
	name := repository + separator + string(k[:])
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.shut {
		return false, nil, ErrClosed
	}
	_, delivered := x.hints.get(tableDelivered, name)
	value, _ := x.hints.get(tableParents, name)
	if len(value) == 0 {
		return delivered, nil, nil
	}
	parents := make([]v1.Hash, 0, len(value)/sha256.Size)
	for parent := range digests(value) {
		parents = append(parents, parent.digest())
	}
	return delivered, parents, nil
}

// Repositories returns the repositories with admitted manifests, sorted, at
// most n after the name last; none when n is not positive.
func (x *index) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.shut {
		return nil, ErrClosed
	}
	if n <= 0 {
		return nil, nil
	}
	return x.hints.names(tableRepositories, n, last), nil
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shut {
		return nil
	}
	x.shut = true
	return x.hints.close()
}

// separator cannot be part of a repository's name.
const separator = "\x00"

// join makes one name of a repository and what belongs to it, so that no two
// pairs make the same.
func join(repository, of string) (string, error) {
	if err := checkName(repository); err != nil {
		return "", err
	}
	if of == "" || len(of) > MaxName {
		return "", fmt.Errorf("store: %.80q is no tag", of)
	}
	return repository + separator + of, nil
}

func checkName(repository string) error {
	if repository == "" || len(repository) > MaxName || strings.Contains(repository, separator) {
		return fmt.Errorf("store: %.80q is no repository", repository)
	}
	return nil
}
