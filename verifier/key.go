package verifier

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Key is a public key that can verify signatures. The zero Key verifies none.
type Key struct {
	id     string
	public crypto.PublicKey
}

// Sizes of the moduli of RSA keys that are taken, in bits.
const (
	minRSA = 2048
	maxRSA = 8192
)

const publicKeyType = "PUBLIC KEY"

// ParseKey reads a public key: exactly one PEM block of type "PUBLIC KEY"
// (PKIX) with nothing but white space around it, or the base64 body of such a
// block alone, as cosign v0.1 took with --key. It takes ECDSA keys on P-256,
// P-384 and P-521, Ed25519 keys, and RSA keys of 2048 to 8192 bits.
//
// An error says what was found instead; it never quotes the key's bytes, for
// they may be a private key's.
func ParseKey(data []byte) (Key, error) {
	if len(data) > MaxKeySize {
		return Key{}, fmt.Errorf("public key: more than %d bytes", MaxKeySize)
	}
	key, err := parseKey(bytes.TrimSpace(data))
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	return key, nil
}

func parseKey(data []byte) (Key, error) {
	if len(data) == 0 {
		return Key{}, errors.New("empty")
	}
	der, err := decodeKey(data)
	if err != nil {
		return Key{}, err
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return Key{}, explainDER(der)
	}
	return NewKey(public)
}

// NewKey returns the Key for public, under ParseKey's rules.
func NewKey(public crypto.PublicKey) (Key, error) {
	if err := checkKey(public); err != nil {
		return Key{}, err
	}
	// The identifier is of the key, not of the bytes it was read from: one key
	// has several DER encodings that a lenient parser takes.
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, err
	}
	sum := sha256.Sum256(der)
	return Key{id: hex.EncodeToString(sum[:]), public: public}, nil
}

// ID returns the lower-case hexadecimal SHA-256 of the key's PKIX encoding; it
// is empty for the zero Key.
func (k Key) ID() string { return k.id }

// Public returns the key: *ecdsa.PublicKey, ed25519.PublicKey or
// *rsa.PublicKey. It must not be changed.
func (k Key) Public() crypto.PublicKey { return k.public }

// Algorithm names the key's kind for people, as "ECDSA P-256".
func (k Key) Algorithm() string {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + public.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", public.N.BitLen())
	}
	return "none"
}

func decodeKey(data []byte) ([]byte, error) {
	begin := []byte("-----BEGIN")
	switch count := bytes.Count(data, begin); {
	case count == 0:
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), ""))
		if err != nil {
			return nil, errors.New("neither a PEM block nor the base64 body of one")
		}
		return der, nil
	case !bytes.HasPrefix(data, begin):
		return nil, errors.New("text before the PEM block")
	case count > 1:
		return nil, errors.New("several PEM blocks, where one is wanted: give each key a file of its own")
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("a PEM block that cannot be decoded")
	}
	if err := checkType(block.Type); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("text after the PEM block")
	}
	if len(block.Headers) > 0 {
		return nil, errors.New("a PEM block with headers")
	}
	return block.Bytes, nil
}

// checkType wants "PUBLIC KEY", and says what the usual other types are.
func checkType(kind string) error {
	switch {
	case kind == publicKeyType:
		return nil
	case kind == "CERTIFICATE" || kind == "TRUSTED CERTIFICATE":
		return errCertificate
	case kind == "CERTIFICATE REQUEST" || kind == "NEW CERTIFICATE REQUEST":
		return errors.New("a certificate request, where a public key is wanted")
	case strings.HasSuffix(kind, "PRIVATE KEY"):
		return fmt.Errorf("%w (%s)", errPrivate, shorten(kind))
	case kind == "RSA PUBLIC KEY":
		return errPKCS1
	}
	return fmt.Errorf("a PEM block of type %s, where %q is wanted", shorten(kind), publicKeyType)
}

var (
	errPrivate     = errors.New("a private key, where its public key is wanted: keep it away from here")
	errCertificate = errors.New("a certificate, where a public key is wanted: `openssl x509 -pubkey -noout` prints the key in it")
	errPKCS1       = errors.New("an RSA key in PKCS #1 form, where PKIX is wanted: `openssl rsa -RSAPublicKey_in -pubout` converts it")
)

// explainDER says what the bytes are that are not a PKIX public key.
func explainDER(der []byte) error {
	if _, err := x509.ParseCertificate(der); err == nil {
		return errCertificate
	}
	if _, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return errPKCS1
	}
	_, errPKCS8 := x509.ParsePKCS8PrivateKey(der)
	_, errRSA := x509.ParsePKCS1PrivateKey(der)
	_, errEC := x509.ParseECPrivateKey(der)
	if errPKCS8 == nil || errRSA == nil || errEC == nil {
		return errPrivate
	}
	return errors.New("not a PKIX public key of a known kind")
}

func checkKey(public crypto.PublicKey) error {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		if hashesOf(public) == nil {
			return fmt.Errorf("an ECDSA key on %s, where P-256, P-384 or P-521 is wanted", public.Curve.Params().Name)
		}
		return nil
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return errors.New("an Ed25519 key of a wrong size")
		}
		return nil
	case *rsa.PublicKey:
		return checkRSA(public)
	case *ecdh.PublicKey:
		return fmt.Errorf("an %s key, which cannot sign", public.Curve())
	}
	return fmt.Errorf("a key of type %T, where ECDSA, Ed25519 or RSA is wanted", public)
}

func checkRSA(public *rsa.PublicKey) error {
	switch bits := public.N.BitLen(); {
	case bits < minRSA:
		return fmt.Errorf("an RSA key of %d bits, where %d are the least", bits, minRSA)
	case bits > maxRSA:
		return fmt.Errorf("an RSA key of %d bits, where %d are the most", bits, maxRSA)
	case public.E < 3 || public.E%2 == 0:
		return fmt.Errorf("an RSA key with exponent %d", public.E)
	case public.N.Bit(0) == 0:
		return errors.New("an RSA key with an even modulus")
	}
	return nil
}

// hashesOf returns the hashes under which a signature by an ECDSA key is taken,
// the likely one first: cosign since v2.6 signs with the one that fits the curve,
// before with SHA-256 always. None is weaker than SHA-256.
func hashesOf(public *ecdsa.PublicKey) []crypto.Hash {
	switch public.Curve {
	case elliptic.P256():
		return []crypto.Hash{crypto.SHA256}
	case elliptic.P384():
		return []crypto.Hash{crypto.SHA384, crypto.SHA256}
	case elliptic.P521():
		return []crypto.Hash{crypto.SHA512, crypto.SHA256}
	}
	return nil
}

// shorten quotes untrusted text for an error: on one line, in ASCII, bounded.
func shorten(s string) string { return shortenTo(s, 64) }

func shortenTo(s string, limit int) string {
	if len(s) > limit {
		return fmt.Sprintf("%+q...", s[:limit])
	}
	return fmt.Sprintf("%+q", s)
}
