package lying

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of sigstore bundles.
const (
	Bundle01 types.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	Bundle02 types.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.2"
	Bundle03 types.MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// Predicate types of statements: of a signature, and of one kind of attestation.
const (
	PredicateSign = "https://sigstore.dev/cosign/sign/v1"
	PredicateSLSA = "https://slsa.dev/provenance/v1"
)

// Statement returns an in-toto statement about digest, as cosign v3 writes it.
func Statement(digest v1.Hash, predicateType string, annotations map[string]any) []byte {
	subject := map[string]any{"digest": map[string]string{digest.Algorithm: digest.Hex}}
	set(subject, "annotations", annotations, annotations != nil)
	return encode(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "subject": []any{subject},
		"predicateType": predicateType, "predicate": map[string]any{},
	})
}

// SignStatement returns the DSSE envelope of a statement, signed by key.
func SignStatement(key Key, statement []byte) map[string]any {
	const payloadType = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement)
	return map[string]any{
		"payload": statement, "payloadType": payloadType,
		"signatures": []any{map[string]any{"sig": key.SignPayload(pae)}},
	}
}

// BundleFields are those of a bundle of this media type around a DSSE envelope, for
// tests to change before Encode.
func BundleFields(mediaType types.MediaType, key Key, statement []byte) map[string]any {
	return map[string]any{
		"mediaType":            mediaType,
		"verificationMaterial": key.material(),
		"dsseEnvelope":         SignStatement(key, statement),
	}
}

// MessageFields are those of a bundle with a signature over message itself.
func MessageFields(key Key, message []byte) map[string]any {
	sum := sha256.Sum256(message)
	return map[string]any{
		"mediaType":            Bundle03,
		"verificationMaterial": key.material(),
		"messageSignature": map[string]any{
			"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
			"signature":     key.SignPayload(message),
		},
	}
}

// material names the key as cosign does, by a hint.
func (k Key) material() map[string]any {
	sum := sha256.Sum256(k.pkix())
	return map[string]any{"publicKey": map[string]any{"hint": base64.StdEncoding.EncodeToString(sum[:])}}
}

// Encode returns fields as JSON.
func Encode(fields map[string]any) []byte { return encode(fields) }

// BundleArtifact returns the artifact that carries a bundle about subject; predicateType
// is what its annotation says, none when it is empty.
func BundleArtifact(subject v1.Descriptor, mediaType types.MediaType, bundle []byte, predicateType string) Content {
	annotations := map[string]string{"dev.sigstore.bundle.content": "dsse-envelope"}
	if predicateType != "" {
		annotations["dev.sigstore.bundle.predicateType"] = predicateType
	}
	return ImageManifest{
		ArtifactType: string(mediaType),
		Config:       Layer{MediaType: EmptyConfig, Data: []byte("{}")},
		Layers:       []Layer{{MediaType: mediaType, Data: bundle}},
		Subject:      &subject,
		Annotations:  annotations,
	}.Build()
}

// SignatureArtifact returns a signature image with a subject, as cosign's experimental
// oci-1-1 mode writes it.
func SignatureArtifact(subject v1.Descriptor, layers ...Layer) Content {
	const config = "application/vnd.dev.cosign.artifact.sig.v1+json"
	return ImageManifest{
		ArtifactType: config,
		Config:       Layer{MediaType: config, Data: []byte("{}")},
		Layers:       layers,
		Subject:      &subject,
	}.Build()
}

// SignBundle pushes a signature of content by key as a bundle, as cosign v3 does.
func (r *Registry) SignBundle(repository string, content Content, key Key) Content {
	return r.Bundle(repository, content, key, PredicateSign)
}

// Attest pushes an attestation about content by key as a bundle.
func (r *Registry) Attest(repository string, content Content, key Key) Content {
	return r.Bundle(repository, content, key, PredicateSLSA)
}

// Bundle pushes a statement about content by key as a bundle.
func (r *Registry) Bundle(repository string, content Content, key Key, predicateType string) Content {
	bundle := encode(BundleFields(Bundle03, key, Statement(content.Digest(), predicateType, nil)))
	artifact := BundleArtifact(content.Descriptor(), Bundle03, bundle, predicateType)
	r.PushReferrer(repository, content.Digest(), artifact)
	return artifact
}
