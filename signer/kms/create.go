package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
)

// Create has the service make a key to sign with, ECDSA on P-256 in all of them, under a
// reference, and returns its public half. A service that has a key there already keeps
// it, and the public half is that one's. Of AWS the reference is to be an alias.
func Create(ctx context.Context, reference string) (crypto.PublicKey, error) {
	p, err := find(reference)
	if err != nil {
		return nil, err
	}
	unopened := &Key{reference: reference, timeout: Timeout}
	return within(ctx, unopened, func(bounded context.Context) (crypto.PublicKey, error) {
		service, err := p.open(context.WithoutCancel(bounded), reference)
		if err != nil {
			return nil, err
		}
		public, err := service.CreateKey(bounded, service.DefaultAlgorithm())
		if err != nil {
			return nil, err
		}
		switch public.(type) {
		case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
			return public, nil
		}
		return nil, fmt.Errorf("a key of type %T, which signs nothing here", public)
	})
}
