package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
)

// signPayload signs payload with key and checks the result, so that a faulty
// or misconfigured key is found here and not by whoever pulls.
func signPayload(key crypto.Signer, payload []byte) ([]byte, error) {
	message, opts := payload, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		digest := sha256.Sum256(payload)
		message, opts = digest[:], crypto.SHA256
	}
	signature, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if !verifies(key.Public(), payload, signature) {
		return nil, errors.New("sign: the signature does not verify under the key's own public key")
	}
	return signature, nil
}

// verifies reports whether signature is one over payload that signPayload
// would make with pub's key. It serves to recognise our own signatures; it
// admits nothing.
func verifies(pub crypto.PublicKey, payload, signature []byte) bool {
	digest := sha256.Sum256(payload)
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, payload, signature)
	}
	return false
}
