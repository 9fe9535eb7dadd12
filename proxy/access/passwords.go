package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"
)

// Passwords checks passwords against an htpasswd file. It is safe for concurrent
// use.
//
// A check costs a bcrypt, for users that do not exist too: with the highest cost
// of the file, so that where all hashes cost the same, time does not tell who
// exists. A password that held is not hashed again for heldFor; it is remembered
// by a keyed hash whose key lives and dies with the Passwords, and never as
// itself. One that does not hold is never remembered.
//
// At most half of the processors hash passwords that are not known to have held
// before, and no more than maxWaiting callers wait for that; those whose password
// held before have a place of their own, so that guesses cannot keep them out.
type Passwords struct {
	users   map[string][]byte
	absent  []byte // what users that do not exist are compared with
	key     []byte
	now     func() time.Time
	compare func(hash, password []byte) error // bcrypt's

	mu   sync.Mutex
	held *simplelru.LRU[fingerprint, time.Time] // until when a password that held need not be hashed

	flights    singleflight.Group
	guessing   chan struct{} // a place for each hashing of a password that is not known
	confirming chan struct{} // and of one that held before
	waiting    chan struct{} // a place for each caller who waits for guessing
}

// fingerprint stands for a user and password.
type fingerprint [sha256.Size]byte

const (
	heldFor    = 30 * time.Second
	maxHeld    = 4096
	maxWaiting = 128
)

// ParsePasswords reads an htpasswd file. All that is wrong with it is one joined
// error of *LineError.
func ParsePasswords(htpasswd []byte) (*Passwords, error) {
	users, err := parseHtpasswd(htpasswd)
	if err != nil {
		return nil, err
	}
	key := make([]byte, sha256.Size)
	rand.Read(key)
	held, err := simplelru.NewLRU[fingerprint, time.Time](maxHeld, nil)
	if err != nil {
		return nil, err
	}
	return &Passwords{
		users: users, absent: absentHash(highestCost(users)), key: key, now: time.Now, compare: bcrypt.CompareHashAndPassword,
		held:       held,
		guessing:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		confirming: make(chan struct{}, 1),
		waiting:    make(chan struct{}, maxWaiting),
	}, nil
}

// absentHash is a hash of cost that no password is known for: it was made of
// random digits, not of a password.
func absentHash(cost int) []byte {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	digits := make([]byte, 22+31) // of the salt, and of the hash
	rand.Read(digits)
	for i, d := range digits {
		digits[i] = alphabet[int(d)%len(alphabet)]
	}
	return append(fmt.Appendf(nil, "$2a$%02d$", cost), digits...)
}

// Users returns the names of all users, sorted.
func (p *Passwords) Users() []string { return sortedNames(p.users) }

// Equal reports whether both were made of the same users and hashes.
func (p *Passwords) Equal(other *Passwords) bool {
	return p != nil && other != nil && maps.EqualFunc(p.users, other.users, bytes.Equal)
}

// Check returns nil when user has this password, ErrCredentials when not,
// ErrBusy when too many others wait, or the error of ctx. A nil Passwords knows
// nobody.
func (p *Passwords) Check(ctx context.Context, user, password string) error {
	if p == nil {
		return ErrCredentials
	}
	print := p.fingerprint(user, password)
	until, known := p.lookUp(print)
	if known && p.now().Before(until) {
		return nil
	}
	places := p.confirming
	if !known {
		select {
		case p.waiting <- struct{}{}:
			defer func() { <-p.waiting }()
		default:
			return ErrBusy
		}
		places = p.guessing
	}
	// who asks for the same waits for one answer
	done := p.flights.DoChan(string(print[:]), func() (any, error) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return nil, p.hash(print, user, password)
	})
	select {
	case result := <-done:
		if result.Err != nil && ctx.Err() == nil && !errors.Is(result.Err, ErrCredentials) {
			return ErrBusy // the first of them left before it was its turn
		}
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hash compares, and remembers a password that holds.
func (p *Passwords) hash(print fingerprint, user, password string) error {
	hash, exists := p.users[user]
	if !exists {
		hash = p.absent
	}
	err := p.compare(hash, []byte(password))
	if err != nil || !exists {
		return ErrCredentials
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held.Add(print, p.now().Add(heldFor))
	return nil
}

func (p *Passwords) lookUp(print fingerprint) (until time.Time, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Get(print)
}

func (p *Passwords) fingerprint(user, password string) fingerprint {
	mac := hmac.New(sha256.New, p.key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(user)))) // or user and password could trade letters
	mac.Write([]byte(user))
	mac.Write([]byte(password))
	return fingerprint(mac.Sum(nil))
}
