package main

import (
	"context"
	"crypto"
	"io"
	"sync/atomic"
)

// onceKey is a key for one push, which makes many signatures: once it has failed it
// goes on to fail, and it is not asked after the push has ended. A KMS that hangs is
// waited for once then, and not for each signature.
type onceKey struct {
	crypto.Signer
	ended  func() error // of the push
	failed atomic.Pointer[error]
}

// fixedOnceKey is an onceKey that signs by one hash alone.
type fixedOnceKey struct {
	*onceKey
	hash interface{ Hash() crypto.Hash }
}

// Hash is what it signs by.
func (k fixedOnceKey) Hash() crypto.Hash { return k.hash.Hash() }

func failingOnce(ctx context.Context, key crypto.Signer) crypto.Signer {
	once := &onceKey{Signer: key, ended: ctx.Err}
	if fixed, ok := key.(interface{ Hash() crypto.Hash }); ok {
		return fixedOnceKey{once, fixed}
	}
	return once
}

// Sign implements crypto.Signer.
func (k *onceKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if failed := k.failed.Load(); failed != nil {
		return nil, *failed
	}
	if err := k.ended(); err != nil {
		return nil, err
	}
	signature, err := k.Signer.Sign(random, digest, opts)
	if err != nil {
		k.failed.Store(&err)
	}
	return signature, err
}
