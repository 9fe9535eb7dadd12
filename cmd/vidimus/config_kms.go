package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"maps"
	"sync"

	"vidimus/signer"
	"vidimus/signer/kms"
)

// errNotAsked says that a key in a KMS is not known.
var errNotAsked = errors.New("the KMS was not asked")

// askKMS returns the public half of a key in a KMS as a file would hold it.
func (r *reader) askKMS(reference string) ([]byte, error) {
	if r.keys == nil {
		return nil, errNotAsked
	}
	public, err := r.keys.Public(context.Background(), reference)
	if err != nil {
		return nil, err
	}
	return signer.EncodePublicKey(public)
}

// kmsSigner returns a key in a KMS to sign with.
func (r *reader) kmsSigner(reference string) (crypto.Signer, error) {
	if r.keys == nil {
		return nil, errNotAsked
	}
	return r.keys.Signer(context.Background(), reference)
}

// privateKeys are the private keys that were decrypted, by their files and passwords.
type privateKeys struct {
	mu   sync.Mutex
	keys map[[sha256.Size]byte]crypto.Signer
}

// maxPrivateKeys is how many are remembered: those of the present configuration, as a
// rule.
const maxPrivateKeys = 16

// parse is signer.ParsePrivateKey. The nil privateKeys remember nothing.
func (p *privateKeys) parse(data, password []byte) (crypto.Signer, error) {
	if p == nil {
		return signer.ParsePrivateKey(data, password)
	}
	h := sha256.New()
	writeItem(h, string(data), string(password))
	id := [sha256.Size]byte(h.Sum(nil))
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := p.keys[id]; key != nil {
		return key, nil
	}
	key, err := signer.ParsePrivateKey(data, password)
	if err != nil {
		return nil, err
	}
	if p.keys == nil || len(p.keys) >= maxPrivateKeys {
		p.keys = make(map[[sha256.Size]byte]crypto.Signer)
	}
	p.keys[id] = key
	return key, nil
}

// remembering is a source that decrypts no private key twice.
func remembering(from source, privates *privateKeys) source {
	return func(r *reader) (Config, faults, error) {
		r.privates = privates
		return from(r)
	}
}

// askingKMS is a source that knows the keys in a KMS, and remembers them from one
// reading to the next.
func askingKMS(from source, keys *kms.Cache) source {
	return func(r *reader) (Config, faults, error) {
		r.keys = keys
		return from(r)
	}
}

// unreachable are the authorities with a key in a KMS that is not known, and why. The
// configuration holds without them: they are suspended until the KMS answers.
func (l *loaded) unreachable() map[string]string { return maps.Clone(l.withoutKey) }

// lacks notes that an authority has a key in a KMS that is not known.
func (l *loaded) lacks(authority, why string) {
	if l.withoutKey == nil {
		l.withoutKey = make(map[string]string)
	}
	l.withoutKey[authority] = why
}

// sameNames reports whether the same authorities are in both, for whatever reasons.
func sameNames(a, b map[string]string) bool {
	return maps.EqualFunc(a, b, func(string, string) bool { return true })
}
