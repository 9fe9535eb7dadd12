package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// ErrNotPlainKey says that a file is not a private key that lies open.
var ErrNotPlainKey = errors.New("not a private key in PEM (PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY)")

// ImportPrivateKey reads a private key that is not encrypted: one PEM block of
// PKCS#8, SEC 1 or PKCS#1, alone but for the parameters that openssl writes before
// a key on an elliptic curve. Its errors match ErrNotPlainKey or
// ErrUnsupportedKey, and hold no byte of the key.
func ImportPrivateKey(data []byte) (crypto.Signer, error) {
	if len(data) > MaxKeyFileSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrNotPlainKey, MaxKeyFileSize)
	}
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	switch {
	case block == nil:
		return nil, ErrNotPlainKey
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%w: there is more in the file than one", ErrNotPlainKey)
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, fmt.Errorf("%w: it is encrypted, `openssl pkey -in FILE -out PLAIN` decrypts it", ErrNotPlainKey)
	case block.Type == pemTypeCosign || block.Type == pemTypeSigstore:
		return nil, fmt.Errorf("%w: it is a key of cosign's already", ErrNotPlainKey)
	}
	defer clear(block.Bytes)
	key, err := parsePlain(block)
	if err != nil {
		return nil, err
	}
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

func parsePlain(block *pem.Block) (crypto.Signer, error) {
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, ErrNotPlainKey
	}
	if err != nil {
		// The text of x509's errors describes the key; its kind is enough.
		return nil, fmt.Errorf("%w: what is in the %s cannot be read", ErrUnsupportedKey, block.Type)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, ErrUnsupportedKey
	}
	return key, nil
}
