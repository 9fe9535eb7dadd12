package verifier

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"vidimus/verifier/envelope"
)

// Annotations of a signature's layer that may prove it (cosign,
// pkg/oci/static/signature.go). The signature counts by its key without them, and
// nothing in them is ever taken for a key: they name the signer of a signature that has
// a certificate, and tell when it was made.
const (
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	chainAnnotation       = "dev.sigstore.cosign/chain"
	entryAnnotation       = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
)

// attached is what those annotations of one signature say, unread.
type attached struct {
	certificate, chain, entry, timestamp string
	tooLarge                             string // why nothing of it is read
}

// certified reports whether a certificate is attached, or something that is not read.
func (a attached) certified() bool { return a.certificate != "" || a.tooLarge != "" }

// proves reports whether something is attached that may prove a time.
func (a attached) proves() bool { return a.entry != "" || a.timestamp != "" || a.tooLarge != "" }

// parts are what a has, with the limits of a bundle's.
func (a *attached) parts() []attachedPart {
	return []attachedPart{
		{certificateAnnotation, &a.certificate, envelope.MaxMaterialSize}, {chainAnnotation, &a.chain, envelope.MaxMaterialSize},
		{entryAnnotation, &a.entry, envelope.MaxEntrySize}, {timestampAnnotation, &a.timestamp, envelope.MaxStampSize},
	}
}

type attachedPart struct {
	name  string
	text  *string
	limit int
}

// readAttached reads the annotations of a layer. One that is no string is as if it were
// not there.
func readAttached(annotations map[string]json.RawMessage) attached {
	var a attached
	var sizes []int
	for _, part := range a.parts() {
		raw := annotations[part.name]
		sizes = append(sizes, len(raw))
		if len(raw) <= part.limit && json.Unmarshal(raw, part.text) != nil {
			*part.text = ""
		}
	}
	return a.bounded(sizes)
}

// bounded is a, or what says why nothing of it is read; sizes are those of its parts.
func (a attached) bounded(sizes []int) attached {
	total := 0
	for i, part := range a.parts() {
		if sizes[i] > part.limit {
			return attached{tooLarge: fmt.Sprintf("its annotation %s has more than %d bytes", part.name, part.limit)}
		}
		total += sizes[i]
	}
	if total > envelope.MaxMaterialSize {
		return attached{tooLarge: fmt.Sprintf("its annotations have more than %d bytes", envelope.MaxMaterialSize)}
	}
	return a
}

// proven makes a bundle v0.1 of a signature over payload and what is attached to it.
func (a attached) proven(payload, signature []byte) (*proven, error) {
	m, algorithm, err := a.material()
	if err != nil {
		return nil, err
	}
	// the entry is about the payload's digest by the algorithm of the signature
	digest := &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256}
	hash := crypto.SHA256
	switch algorithm {
	case "sha384":
		digest.Algorithm, hash = protocommon.HashAlgorithm_SHA2_384, crypto.SHA384
	case "sha512":
		digest.Algorithm, hash = protocommon.HashAlgorithm_SHA2_512, crypto.SHA512
	}
	digest.Digest = newMessage(payload).sum(hash)
	p := &proven{signed: payload, message: true, signature: signature}
	return p, p.make(&protobundle.Bundle{
		VerificationMaterial: m,
		Content: &protobundle.Bundle_MessageSignature{
			MessageSignature: &protocommon.MessageSignature{MessageDigest: digest, Signature: signature},
		},
	})
}

// make makes the entity of p, in the version that asks for no more than an annotation
// holds.
func (p *proven) make(b *protobundle.Bundle) error {
	b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	err := guarded(func() (err error) {
		p.entity, err = bundle.NewBundle(b)
		return err
	})
	if err != nil {
		return errors.New("its annotations: " + plain(err))
	}
	return nil
}

// material is what is attached in the form of a bundle. algorithm is that of the digest
// that the log entry, if any, says it is about.
func (a attached) material() (m *protobundle.VerificationMaterial, algorithm string, err error) {
	if a.tooLarge != "" {
		return nil, "", errors.New(a.tooLarge)
	}
	m = &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
	}
	if a.certificate != "" {
		chain, err := a.certificates()
		if err != nil {
			return nil, "", err
		}
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}
	}
	if a.entry != "" {
		entry, of, err := a.logEntry()
		if err != nil {
			return nil, "", fmt.Errorf("annotation %s: %w", entryAnnotation, err)
		}
		m.TlogEntries, algorithm = []*protorekor.TransparencyLogEntry{entry}, of
	}
	if a.timestamp != "" {
		stamp, err := a.stamp()
		if err != nil {
			return nil, "", fmt.Errorf("annotation %s: %w", timestampAnnotation, err)
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
		}
	}
	return m, algorithm, nil
}

// certificates reads the signer's certificate and the chain beside it.
func (a attached) certificates() (*protocommon.X509CertificateChain, error) {
	leaf, err := pemCertificates(certificateAnnotation, a.certificate)
	if err != nil {
		return nil, err
	}
	if len(leaf) != 1 {
		return nil, fmt.Errorf("annotation %s has %d certificates, where one is wanted", certificateAnnotation, len(leaf))
	}
	others, err := pemCertificates(chainAnnotation, a.chain)
	if err != nil {
		return nil, err
	}
	return &protocommon.X509CertificateChain{Certificates: append(leaf, others...)}, nil
}

func pemCertificates(name, text string) ([]*protocommon.X509Certificate, error) {
	var found []*protocommon.X509Certificate
	for rest := []byte(strings.TrimSpace(text)); len(rest) > 0; rest = []byte(strings.TrimSpace(string(rest))) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, fmt.Errorf("annotation %s is not PEM certificates alone", name)
		}
		if found = append(found, &protocommon.X509Certificate{RawBytes: block.Bytes}); len(found) > maxChain {
			return nil, fmt.Errorf("annotation %s has more than %d certificates", name, maxChain)
		}
	}
	return found, nil
}

// logEntry reads cosign's form of a log entry with a promise (SET), and returns besides
// the algorithm of the digest that it says it is about.
func (a attached) logEntry() (entry *protorekor.TransparencyLogEntry, algorithm string, err error) {
	var said struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body                     []byte
			IntegratedTime, LogIndex int64
			LogID                    string
		}
	}
	var body struct {
		APIVersion, Kind string
		Spec             struct {
			Data struct{ Hash struct{ Algorithm string } }
		}
	}
	if err := envelope.CheckJSON([]byte(a.entry), envelope.MaxDepth); err != nil {
		return nil, "", err
	}
	if err := json.Unmarshal([]byte(a.entry), &said); err != nil {
		return nil, "", errors.New("not a log entry as cosign writes it")
	}
	if err := envelope.CheckJSON(said.Payload.Body, envelope.MaxDepth); err != nil {
		return nil, "", fmt.Errorf("body: %w", err)
	}
	if err := json.Unmarshal(said.Payload.Body, &body); err != nil {
		return nil, "", errors.New("body: not the body of a log entry")
	}
	id, err := hex.DecodeString(said.Payload.LogID)
	if err != nil || len(id) == 0 || len(said.SignedEntryTimestamp) == 0 {
		return nil, "", errors.New("it has no log ID or no promise")
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: said.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id},
		KindVersion:       &protorekor.KindVersion{Kind: body.Kind, Version: body.APIVersion},
		IntegratedTime:    said.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: said.SignedEntryTimestamp},
		CanonicalizedBody: said.Payload.Body,
	}, body.Spec.Data.Hash.Algorithm, nil
}

// stamp reads cosign's form of a timestamp.
func (a attached) stamp() ([]byte, error) {
	var said struct{ SignedRFC3161Timestamp string }
	if err := envelope.CheckJSON([]byte(a.timestamp), envelope.MaxDepth); err != nil {
		return nil, err
	}
	if json.Unmarshal([]byte(a.timestamp), &said) != nil || said.SignedRFC3161Timestamp == "" {
		return nil, errors.New("not a timestamp as cosign writes it")
	}
	stamp, err := base64.StdEncoding.DecodeString(said.SignedRFC3161Timestamp)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return stamp, nil
}
