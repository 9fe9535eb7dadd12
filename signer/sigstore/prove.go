package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/digitorus/timestamp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// Prove implements signer.Prover. Every timestamp authority and every log gives its
// proof; but beside a layer there is room only for a log's promise, and the logs that
// make none are not asked.
func (s Services) Prove(ctx context.Context, signed signer.Signed) (signer.Proof, error) {
	b, keyText, err := unproven(signed)
	if err != nil {
		return signer.Proof{}, err
	}
	var proof signer.Proof
	for _, stamper := range s.Stampers {
		stamp, err := s.stamp(ctx, stamper, signed.Stamped())
		if err != nil {
			return signer.Proof{}, err
		}
		proof.Timestamps = append(proof.Timestamps, stamp)
		data := b.VerificationMaterial.TimestampVerificationData
		data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: stamp})
	}
	for _, log := range s.Logs {
		if signed.Format == signer.FormatTag && log.Version != 1 {
			continue
		}
		if why := untakable(log, signed); why != "" {
			return signer.Proof{}, fmt.Errorf("transparency log %s: %s", log.URL, why)
		}
		entry, err := s.entry(ctx, log, keyText, b)
		if err != nil {
			return signer.Proof{}, err
		}
		encoded, err := encodeEntry(entry)
		if err != nil {
			return signer.Proof{}, err
		}
		proof.Entries = append(proof.Entries, encoded)
		if proof.LogBundle == nil {
			if proof.LogBundle, err = promise(entry); err != nil {
				return signer.Proof{}, err
			}
		}
	}
	if s.Trusted != nil {
		if err := s.verify(b, signed); err != nil {
			return signer.Proof{}, fmt.Errorf("what was proven does not hold under the trusted root: %w", err)
		}
	}
	return proof, nil
}

// untakable says why a log does not take a signature, "" when it does. A log of version
// 1 checks envelopes by SHA-256, and one of version 2 keeps digests by the hash that goes
// with the key.
func untakable(log Log, signed signer.Signed) string {
	_, edwards := signed.Public.(ed25519.PublicKey)
	fitting := crypto.SHA256
	if public, ok := signed.Public.(*ecdsa.PublicKey); ok {
		switch public.Curve {
		case elliptic.P384():
			fitting = crypto.SHA384
		case elliptic.P521():
			fitting = crypto.SHA512
		}
	}
	switch {
	case edwards && log.Version == 2:
		return "version 2 takes only signatures of digests, which those of an Ed25519 key are not"
	case log.Version == 2 && signed.Hash != fitting:
		return fmt.Sprintf("version 2 takes signatures of this key by %v alone, and cosign and podman those by %v", fitting, signed.Hash)
	case !edwards && log.Version == 1 && signed.Statement != nil && signed.Hash != crypto.SHA256:
		return fmt.Sprintf("version 1 takes statements that are signed by SHA-256 alone, and this key signs by %v", signed.Hash)
	}
	return ""
}

// unproven is the bundle that the proof is about, and its signer in PEM.
func unproven(signed signer.Signed) (*protobundle.Bundle, []byte, error) {
	material := &protobundle.VerificationMaterial{TimestampVerificationData: &protobundle.TimestampVerificationData{}}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed.Certificate})
	if signed.Certificate != nil {
		material.Content = &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: signed.Certificate},
		}
	} else {
		der, err := x509.MarshalPKIXPublicKey(signed.Public)
		if err != nil {
			return nil, nil, err
		}
		keyText = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		material.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}
	}
	b := &protobundle.Bundle{MediaType: envelope.MediaTypeBundle, VerificationMaterial: material}
	if signed.Statement != nil {
		b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: signed.Statement, PayloadType: "application/vnd.in-toto+json",
			Signatures: []*protodsse.Signature{{Sig: signed.Signature}},
		}}
		return b, keyText, nil
	}
	algorithm, ok := map[crypto.Hash]protocommon.HashAlgorithm{
		0:             protocommon.HashAlgorithm_SHA2_256,
		crypto.SHA256: protocommon.HashAlgorithm_SHA2_256,
		crypto.SHA384: protocommon.HashAlgorithm_SHA2_384,
		crypto.SHA512: protocommon.HashAlgorithm_SHA2_512,
	}[signed.Hash]
	if !ok {
		return nil, nil, fmt.Errorf("no log takes a signature by %v", signed.Hash)
	}
	hash := signed.Hash
	if hash == 0 {
		hash = crypto.SHA256
	}
	h := hash.New()
	h.Write(signed.Message)
	b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: algorithm, Digest: h.Sum(nil)},
		Signature:     signed.Signature,
	}}
	return b, keyText, nil
}

// stamp gets a timestamp of a signature, or of what holds it.
func (s Services) stamp(ctx context.Context, stamper string, signature []byte) ([]byte, error) {
	return within(ctx, s.timeout(), "timestamp authority "+stamper, func(ctx context.Context) ([]byte, error) {
		client := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: stamper, Timeout: s.timeout(), Transport: s.Stamping})
		answer, err := client.GetTimestamp(ctx, signature)
		if err != nil {
			return nil, err
		}
		parsed, err := timestamp.ParseResponse(answer)
		if err != nil {
			return nil, err
		}
		h := parsed.HashAlgorithm
		if h != crypto.SHA256 || !bytes.Equal(parsed.HashedMessage, digestOf(h, signature)) {
			return nil, errors.New("its timestamp is of something else")
		}
		return answer, nil
	})
}

func digestOf(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}

// entry gets an entry in a log, and adds it to b.
func (s Services) entry(ctx context.Context, log Log, keyText []byte, b *protobundle.Bundle) (*protorekor.TransparencyLogEntry, error) {
	return within(ctx, s.timeout(), "transparency log "+log.URL, func(ctx context.Context) (*protorekor.TransparencyLogEntry, error) {
		client := sign.NewRekor(&sign.RekorOptions{BaseURL: log.URL, Version: log.Version, Timeout: s.timeout(), Client: logClient{log.URL}})
		if err := client.GetTransparencyLogEntry(ctx, keyText, b); err != nil {
			return nil, err
		}
		entries := b.VerificationMaterial.TlogEntries
		return entries[len(entries)-1], nil
	})
}

// encodeEntry returns an entry in protobuf's JSON form, of which the white space is
// left to chance by its encoder.
func encodeEntry(entry *protorekor.TransparencyLogEntry) (json.RawMessage, error) {
	data, err := protojson.Marshal(entry)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, data)
	return out.Bytes(), err
}

// promise returns what cosign keeps beside a signature of an entry with a promise, nil
// for one without. Source: cosign pkg/cosign/bundle.
func promise(entry *protorekor.TransparencyLogEntry) ([]byte, error) {
	signed := entry.GetInclusionPromise().GetSignedEntryTimestamp()
	if len(signed) == 0 {
		return nil, nil
	}
	var b struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	b.SignedEntryTimestamp = signed
	b.Payload.Body = entry.GetCanonicalizedBody()
	b.Payload.IntegratedTime = entry.GetIntegratedTime()
	b.Payload.LogIndex = entry.GetLogIndex()
	b.Payload.LogID = hex.EncodeToString(entry.GetLogId().GetKeyId())
	return json.Marshal(b)
}
