package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// The sizes of an RSA key, in bits: the smallest that is worth anything, and
// the largest whose use costs no more than a signature should.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// ErrUnsupportedKey says that a key is of a kind that nothing signs images
// with here.
var ErrUnsupportedKey = errors.New("unsupported key: want ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 to 8192 bits)")

// GenerateKey makes the key that cosign makes: ECDSA on P-256.
func GenerateKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate an ECDSA key: %w", err)
	}
	return key, nil
}

// EncodePrivateKey returns key, encrypted under password, as the content of a
// file that cosign v2 and v3 read. An empty password is accepted, as cosign
// accepts it, and protects nothing.
func EncodePrivateKey(key crypto.Signer, password []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		// The text of x509's errors describes the key; its kind is enough.
		return nil, ErrUnsupportedKey
	}
	defer clear(der)
	body, err := encrypted.Encrypt(der, password)
	if err != nil {
		return nil, fmt.Errorf("encrypt the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemTypeSigstore, Bytes: body}), nil
}

// CheckPrivateKey reports whether data has the form of a private key file, as
// far as that can be told without its password.
func CheckPrivateKey(data []byte) error {
	_, err := parseKeyFile(data)
	return err
}

// ParsePrivateKey decrypts the content of a private key file. Its errors match
// ErrNotKeyFile, ErrKeyParameters, ErrPassword or ErrUnsupportedKey; for the
// first two nothing has been computed yet, and password was not looked at.
func ParsePrivateKey(data, password []byte) (crypto.Signer, error) {
	box, err := parseKeyFile(data)
	if err != nil {
		return nil, err
	}
	// What was checked is what is decrypted, not the file parsed once more.
	body, err := json.Marshal(box)
	if err != nil {
		return nil, fmt.Errorf("%w: its content is not the expected JSON", ErrNotKeyFile)
	}
	der, err := encrypted.Decrypt(body, password)
	if err != nil {
		return nil, ErrPassword
	}
	defer clear(der)
	return parsePKCS8(der)
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: what is encrypted is not PKCS#8", ErrUnsupportedKey)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, ErrUnsupportedKey
	}
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

// EncodePublicKey returns pub as the content of a file that cosign, podman and
// openssl read: PKIX in a PEM block.
func EncodePublicKey(pub crypto.PublicKey) ([]byte, error) {
	if err := checkPublicKey(pub); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupportedKey, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func checkPublicKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize {
			return nil
		}
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits >= minRSABits && bits <= maxRSABits {
			return nil
		}
	}
	return ErrUnsupportedKey
}
