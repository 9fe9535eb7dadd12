package main

import (
	"context"
	"errors"
	"maps"

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
