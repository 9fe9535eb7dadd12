package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for sum
	_ "crypto/sha512" // for sum
	"encoding/json"
	"errors"
	"fmt"

	"vidimus/verifier/envelope"
)

// Signed is a signature that a Prover is to get proof for.
type Signed struct {
	// Format is of what the proof is to go into.
	Format Format

	// Message is what the signature is over: a payload, or what DSSE signs of
	// Statement.
	Message   []byte
	Statement []byte // nil when Message is not of one

	Signature []byte
	Hash      crypto.Hash // by which it was signed; zero for Ed25519

	// Envelope is what holds Statement and Signature under a tag, nil elsewhere. There
	// a timestamp is over all of it: cosign takes the layer's bytes for the signature
	// (pkg/cosign/verify.go, VerifyRFC3161Timestamp).
	Envelope []byte

	Public      crypto.PublicKey
	Certificate []byte // DER; nil where the key is known by itself
}

// Proof is what others said of a signature.
type Proof struct {
	// Entries are those of transparency logs, in protobuf's JSON form of a
	// TransparencyLogEntry.
	Entries []json.RawMessage
	// LogBundle is what cosign keeps beside a signature of an entry: the log's
	// signed promise. nil where no log made one.
	LogBundle []byte
	// Timestamps are RFC 3161 responses.
	Timestamps [][]byte
}

// Stamped is what a timestamp of s is over.
func (s Signed) Stamped() []byte {
	if s.Envelope != nil {
		return s.Envelope
	}
	return s.Signature
}

// Prover gets proof of when a signature was made: an entry in a transparency
// log, a timestamp.
type Prover interface {
	Prove(ctx context.Context, s Signed) (Proof, error)
}

// fixedHash is implemented by keys that sign by one hash alone, as those in a
// KMS may.
type fixedHash interface{ Hash() crypto.Hash }

// hashOf is the hash by which a key signs: SHA-256 whatever the size of the key,
// for that is what everybody accepts.
func hashOf(key crypto.Signer) crypto.Hash {
	if fixed, ok := key.(fixedHash); ok {
		return fixed.Hash()
	}
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return 0
	}
	return crypto.SHA256
}

// signMessage signs message and checks the result, so that a faulty or
// misconfigured key is found here and not by whoever pulls.
func signMessage(key crypto.Signer, message []byte, hash crypto.Hash) ([]byte, error) {
	signature, err := key.Sign(rand.Reader, sum(hash, message), hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if !verifies(key.Public(), message, signature, hash) {
		return nil, errors.New("sign: the signature does not verify under the key's own public key")
	}
	return signature, nil
}

// verifies reports whether signature is one over message by hash that
// signMessage would make with pub's key. It serves to recognise our own
// signatures; it admits nothing.
func verifies(pub crypto.PublicKey, message, signature []byte, hash crypto.Hash) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, sum(hash, message), signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, hash, sum(hash, message), signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, message, signature)
	}
	return false
}

func sum(hash crypto.Hash, message []byte) []byte {
	if hash == 0 {
		return message
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// sign signs and gets the proof that is wanted.
func (s *Signer) sign(ctx context.Context, signed Signed) (Signed, Proof, error) {
	var err error
	if signed.Signature, err = signMessage(s.key, signed.Message, signed.Hash); err != nil {
		return Signed{}, Proof{}, err
	}
	signed.Public = s.key.Public()
	if len(s.chain) > 0 {
		signed.Certificate = s.chain[0]
	}
	if signed.Format == FormatTag && signed.Statement != nil {
		signed.Envelope, err = envelope.EncodeEnvelope(envelope.Envelope{
			Statement: signed.Statement, Signatures: []envelope.EnvelopeSignature{{Signature: signed.Signature}},
		})
		if err != nil {
			return Signed{}, Proof{}, err
		}
	}
	if s.prover == nil {
		return signed, Proof{}, nil
	}
	proof, err := s.prover.Prove(ctx, signed)
	return signed, proof, err
}

// said returns what is signed for a request: a payload, or a statement.
func said(format Format, r Request) ([]byte, error) {
	document, err := documentOf(format, r)
	if err == nil && len(document) > maxPayloadSize {
		return nil, fmt.Errorf("what is signed would be larger than %d bytes", maxPayloadSize)
	}
	return document, err
}

func documentOf(format Format, r Request) ([]byte, error) {
	if r.PredicateType != "" {
		return attestation(r)
	}
	var annotations map[string]any
	if len(r.Annotations) > 0 {
		annotations = make(map[string]any, len(r.Annotations))
		for k, v := range r.Annotations {
			annotations[k] = v
		}
	}
	if format == FormatBundle {
		return envelope.SignatureStatement(r.Subject.String(), r.Reference, annotations)
	}
	return envelope.EncodePayload(envelope.Payload{
		Form: envelope.Modern, Reference: r.Reference, Digest: r.Subject.String(), Annotations: annotations,
	})
}

// Statement returns the in-toto statement that a bundle for r is over.
func Statement(r Request) ([]byte, error) { return said(FormatBundle, r) }

func attestation(r Request) ([]byte, error) {
	switch {
	case r.PredicateType == envelope.PredicateCosignSign:
		return nil, fmt.Errorf("%s is the predicate type of a signature, and no attestation's", r.PredicateType)
	case len(r.Annotations) > 0:
		return nil, errors.New("an attestation has no annotations")
	}
	subject, err := envelope.NewSubject(r.Subject.String(), r.Reference, nil)
	if err != nil {
		return nil, err
	}
	return envelope.EncodeStatement(envelope.Statement{
		PredicateType: r.PredicateType, Subjects: []envelope.StatementSubject{subject},
	}, r.Predicate)
}
