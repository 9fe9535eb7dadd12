package sigstore

import (
	"bytes"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"vidimus/signer"
)

// verify verifies what was proven as somebody would who has the same trust root.
func (s Services) verify(b *protobundle.Bundle, signed signer.Signed) error {
	var options []verify.VerifierOption
	stamps, entries := len(b.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps), len(b.VerificationMaterial.TlogEntries)
	if entries > 0 {
		options = append(options, verify.WithTransparencyLog(entries))
	}
	switch {
	case stamps > 0:
		options = append(options, verify.WithSignedTimestamps(stamps))
	case signed.Certificate == nil:
		options = append(options, verify.WithNoObserverTimestamps())
	case entries > 0:
		options = append(options, verify.WithIntegratedTimestamps(entries))
	default:
		options = append(options, verify.WithCurrentTime())
	}
	verifier, err := verify.NewVerifier(trustedKey{s.Trusted, signed}, options...)
	if err != nil {
		return err
	}
	entity, err := bundle.NewBundle(b)
	if err != nil {
		return err
	}
	// The statement is ours: what it is about needs no second look.
	artifact := verify.WithoutArtifactUnsafe()
	if signed.Statement == nil {
		artifact = verify.WithArtifact(bytes.NewReader(signed.Message))
	}
	who := verify.WithoutIdentitiesUnsafe()
	if signed.Certificate == nil {
		who = verify.WithKey()
	}
	_, err = verifier.Verify(entity, verify.NewPolicy(artifact, who))
	return err
}

// trustedKey is a trust root that knows our own key besides.
type trustedKey struct {
	root.TrustedMaterial
	signed signer.Signed
}

// TimestampingAuthorities implements root.TrustedMaterial.
func (k trustedKey) TimestampingAuthorities() []root.TimestampingAuthority {
	var all []root.TimestampingAuthority
	for _, authority := range k.TrustedMaterial.TimestampingAuthorities() {
		all = append(all, stamper{authority, k.signed})
	}
	return all
}

// stamper is a timestamp authority whose timestamps are over what is stamped, which is
// not always the signature in the bundle.
type stamper struct {
	root.TimestampingAuthority
	signed signer.Signed
}

// Verify implements root.TimestampingAuthority.
func (s stamper) Verify(stamp, _ []byte) (*root.Timestamp, error) {
	return s.TimestampingAuthority.Verify(stamp, s.signed.Stamped())
}

// PublicKeyVerifier implements root.TrustedMaterial.
func (k trustedKey) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	verifier, err := signature.LoadVerifier(k.signed.Public, k.signed.Hash)
	if err != nil {
		return nil, err
	}
	return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
}
