package verifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for message.sum
	_ "crypto/sha512" // for message.sum
)

// message is what a signature is over. It keeps its digests, so that several
// keys can be tried on it.
type message struct {
	data []byte
	sums map[crypto.Hash][]byte
}

func newMessage(data []byte) *message {
	return &message{data: data, sums: make(map[crypto.Hash][]byte, 1)}
}

func (m *message) sum(hash crypto.Hash) []byte {
	sum, ok := m.sums[hash]
	if !ok {
		h := hash.New()
		h.Write(m.data)
		sum = h.Sum(nil)
		m.sums[hash] = sum
	}
	return sum
}

// verifies reports whether signature is one by k over m, in a form that cosign
// writes:
//
//   - ECDSA in strict DER (SEC 1, X.690), over the digests of hashesOf,
//   - Ed25519 (RFC 8032) over the message, as cosign did before v2.6, or
//     Ed25519ph over its SHA-512, as it does since,
//   - RSA PKCS #1 v1.5 (RFC 8017) over SHA-256.
//
// The bytes of a signature identify nothing: for (r, s) there is (r, n-s).
func (k Key) verifies(m *message, signature []byte) bool {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		for _, hash := range hashesOf(public) {
			if ecdsa.VerifyASN1(public, m.sum(hash), signature) {
				return true
			}
		}
	case ed25519.PublicKey:
		prehashed := &ed25519.Options{Hash: crypto.SHA512}
		return ed25519.Verify(public, m.data, signature) ||
			ed25519.VerifyWithOptions(public, m.sum(crypto.SHA512), signature, prehashed) == nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, m.sum(crypto.SHA256), signature) == nil
	}
	return false
}
