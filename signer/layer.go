package signer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// Annotations of a layer that holds a payload or an envelope. Source: cosign
// pkg/oci/static/signature.go.
const (
	// signatureAnnotation holds the signature over the layer's bytes, in
	// base64; it is empty for an envelope, which holds its own.
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	chainAnnotation       = "dev.sigstore.cosign/chain"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	predicateAnnotation   = "predicateType"
)

// maxTried is how many of what is there are looked at to find one that is ours;
// verifiers try no more.
const maxTried = 64

// layerAddition adds a layer to the image under a .sig or .att tag: payload
// with its signature, or the envelope of statement.
type layerAddition struct {
	signer     *Signer
	repository string
	subject    v1.Hash

	payload       []byte
	statement     []byte
	predicateType string

	layer v1.Descriptor // once it is prepared
}

func (a *layerAddition) read(raw []byte) (document, error) {
	if raw == nil {
		return newSignatureImage(a.signer.dockerMediaTypes), nil
	}
	img, err := parseSignatureImage(raw)
	if err != nil {
		return nil, fmt.Errorf("a signature image that could be added to: %w", err)
	}
	return img, nil
}

func (a *layerAddition) in(d document) bool {
	img := d.(signatureImage)
	if a.payload != nil {
		return img.holds(a.signer, a.payload, digestOf(a.payload))
	}
	for _, layer := range img.layers {
		if layer.digest == a.layer.Digest.String() && layer.mediaType == string(a.layer.MediaType) {
			return true
		}
	}
	return false
}

func (a *layerAddition) to(d document) (document, error) {
	img, err := d.(signatureImage).with(a.layer)
	if a.signer.recordTime {
		img.created = time.Now().UTC().Truncate(time.Second)
	}
	return img, err
}

func (a *layerAddition) prepare(ctx context.Context) error {
	s := a.signer
	signed := Signed{Message: a.payload, Hash: hashOf(s.key)}
	if a.statement != nil {
		signed = Signed{Message: envelope.SignedStatement(a.statement), Statement: a.statement, Hash: hashOf(s.key)}
	}
	signed, proof, err := s.sign(ctx, signed)
	if err != nil {
		return err
	}
	data, annotations := a.payload, s.annotations(proof)
	mediaType := types.MediaType(envelope.MediaTypeSimpleSigning)
	if a.statement != nil {
		mediaType = envelope.MediaTypeDSSE
		annotations[signatureAnnotation], annotations[predicateAnnotation] = "", a.predicateType
		if data = signed.Envelope; len(data) > maxPayloadSize {
			return fmt.Errorf("the envelope would be larger than %d bytes", maxPayloadSize)
		}
	} else {
		annotations[signatureAnnotation] = base64.StdEncoding.EncodeToString(signed.Signature)
	}
	a.layer = describe(mediaType, data)
	a.layer.Annotations = annotations
	if err := s.registry.PutBlob(ctx, a.repository, a.layer.Digest, data); err != nil {
		return fmt.Errorf("upload the payload: %w", err)
	}
	return nil
}

// annotations are what goes with a signature besides itself.
func (s *Signer) annotations(proof Proof) map[string]string {
	all := make(map[string]string)
	if len(s.chain) > 0 {
		all[certificateAnnotation] = encodeCertificates(s.chain[:1])
	}
	if len(s.chain) > 1 {
		all[chainAnnotation] = encodeCertificates(s.chain[1:])
	}
	if proof.LogBundle != nil {
		all[logAnnotation] = string(proof.LogBundle)
	}
	if len(proof.Timestamps) > 0 {
		all[timestampAnnotation] = `{"SignedRFC3161Timestamp":"` + base64.StdEncoding.EncodeToString(proof.Timestamps[0]) + `"}`
	}
	return all
}

func encodeCertificates(chain [][]byte) string {
	var text bytes.Buffer
	for _, der := range chain {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return text.String()
}

// findAttestation returns the digest of an envelope with this very statement, signed
// by our key, among the attestations under tag; empty for none.
func (s *Signer) findAttestation(ctx context.Context, repository, tag string, statement []byte) (string, error) {
	if len(s.chain) > 0 || s.prover != nil {
		return "", nil // what a certified key signed, nobody else did
	}
	raw, err := s.registry.Manifest(ctx, repository, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", tag, err)
	}
	img, err := parseSignatureImage(raw)
	if err != nil {
		return "", fmt.Errorf("what is under %s is not a signature image that could be added to: %w", tag, err)
	}
	tried := 0
	for _, layer := range img.layers {
		digest, err := v1.NewHash(layer.digest)
		if layer.mediaType != envelope.MediaTypeDSSE || err != nil || tried == maxTried {
			continue
		}
		tried++
		data, err := s.registry.Blob(ctx, repository, digest, maxPayloadSize)
		if isNone(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read attestation %s: %w", digest, err)
		}
		if digestOf(data) == digest && s.isOurs(data, statement) {
			return layer.digest, nil
		}
	}
	return "", nil
}

// isOurs reports whether an envelope is of statement and signed by our key.
func (s *Signer) isOurs(data, statement []byte) bool {
	var found struct {
		Payload    []byte `json:"payload"`
		Signatures []struct {
			Signature []byte `json:"sig"`
		} `json:"signatures"`
	}
	if json.Unmarshal(data, &found) != nil || len(found.Signatures) != 1 || !bytes.Equal(found.Payload, statement) {
		return false
	}
	return verifies(s.key.Public(), envelope.SignedStatement(statement), found.Signatures[0].Signature, hashOf(s.key))
}
