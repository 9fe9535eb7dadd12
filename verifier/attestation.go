package verifier

import (
	"fmt"
	"slices"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/root"

	"vidimus/verifier/envelope"
)

// Attestations returns the source of cosign's attestation images: the tag
// sha256-<hex>.att, whose layers are DSSE envelopes. It is asked where
// Subject.Attestations says so, and nowhere else: hardly any image has the tag, and
// every image would cost its upstream a request more. What a layer's annotation says of
// its predicate type is not read, for only the envelope is signed.
func Attestations() Source { return attestationTag }

const attestationTag = tag(".att")

// inTotoArtifact is the artifact type of a referrer that holds attestations as the tag
// does. Source: cosign pkg/oci/remote/write.go, WriteAttestationsReferrer.
const inTotoArtifact = "application/vnd.in-toto+json"

// attestation is the form of the layers of the tag of attestations.
func attestation(mediaType string) string {
	if mediaType == envelope.MediaTypeDSSE {
		return FormAttestation
	}
	return ""
}

// checkEnvelope checks a DSSE envelope that stands by itself. Each of its signatures is
// tried with each key, whatever key it hints at; those that no key verifies take
// nothing from the others. When no key has signed it, the certificate that is attached
// is tried. It is an attestation even where its predicate is that of a signature: cosign
// writes these into bundles.
func (v *verification) checkEnvelope(e Evidence, data []byte, a attached) Evidence {
	parsed, err := envelope.ParseEnvelope(data)
	if err != nil {
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	held := envelope.Envelope{Statement: parsed.Statement}
	m := newMessage(parsed.Signed)
	var first trusted
	for _, signature := range parsed.Signatures {
		if len(signature.Signature) > MaxSignatureSize {
			continue // no key's
		}
		holder, ok := v.holderOf(m, signature.Signature)
		if !ok || slices.Contains(e.KeyIDs(), holder.key.id) {
			continue
		}
		if e.keyID == "" {
			e, first = e.signedBy(holder), holder
		} else {
			e.others = append(e.others, Signer{ID: holder.key.id, KeyID: holder.key.id, Authorities: holder.authorities})
		}
		held.Signatures = append(held.Signatures, signature)
	}
	if e.keyID == "" {
		if !a.certified() || len(v.identities) == 0 {
			return v.byNobody(e)
		}
		return v.checkCertifiedEnvelope(e, data, parsed, a)
	}
	e = v.checkStatement(e, held, e.SignedBy())
	switch {
	case !e.verified || !a.proves():
		return e.unproven()
	case len(e.others) > 0: // a time is proven of one signature, and would be taken for the others', too
		e.untimed = "more than one has signed it"
		return e
	}
	return v.timed(e, first, func() (*proven, error) { return a.enveloped(data, parsed, held.Signatures[0]) })
}

// checkCertifiedEnvelope checks an envelope with the certificate that is attached, which
// does not say whose of several signatures it is about.
func (v *verification) checkCertifiedEnvelope(e Evidence, data []byte, parsed envelope.Envelope, a attached) Evidence {
	if _, err := envelope.ParseStatement(parsed.Statement); err != nil { // sigstore-go reads it, too
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	rejected := e.fails(CheckForm, ReasonUntrusted, fmt.Sprintf("it has a signature of more than %d bytes", MaxSignatureSize))
	for i, signature := range parsed.Signatures {
		if len(signature.Signature) > MaxSignatureSize {
			continue
		}
		p, err := a.enveloped(data, parsed, signature)
		if err != nil {
			return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
		}
		checked, holder, ok := v.checkCertificate(e, p)
		if ok {
			return v.checkStatement(checked, envelope.Envelope{Statement: parsed.Statement, Signatures: parsed.Signatures[i : i+1]}, holder.authorities)
		}
		rejected = checked
	}
	return rejected
}

// payloadInToto is the type of an envelope's payload that is a statement.
const payloadInToto = "application/vnd.in-toto+json"

// enveloped makes a bundle v0.1 of an envelope, which is the layer's data, with one of
// its signatures and what is attached to it.
func (a attached) enveloped(data []byte, parsed envelope.Envelope, signature envelope.EnvelopeSignature) (*proven, error) {
	m, _, err := a.material()
	if err != nil {
		return nil, err
	}
	p := &proven{signed: parsed.Signed, signature: signature.Signature, layer: data}
	if entries := m.TlogEntries; len(entries) > 0 && isOldInToto(entries[0]) {
		if p.old, err = parseInToto(entries[0], data); err != nil {
			return nil, fmt.Errorf("annotation %s: %w", entryAnnotation, err)
		}
		m.TlogEntries = nil
	}
	return p, p.make(&protobundle.Bundle{
		VerificationMaterial: m,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: parsed.Statement, PayloadType: payloadInToto,
			Signatures: []*protodsse.Signature{{Sig: signature.Signature}},
		}},
	})
}

// stamps returns material whose timestamp authorities look at what a timestamp of p is
// over: of an attestation image cosign stamps the envelope, and others the signature in
// it. Both are proven to have been there by then.
func (p *proven) stamps(material root.TrustedMaterial) root.TrustedMaterial {
	if p.layer == nil {
		return material
	}
	return layerMaterial{material, p.layer}
}

// over returns r as it checks p.
func (r *Root) over(p *proven) (*Root, error) {
	if p.layer == nil || len(p.entity.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()) == 0 {
		return r, nil
	}
	other := &Root{id: r.id, material: p.stamps(r.material)}
	return other, other.prepare()
}

// layerMaterial is a trust root whose timestamps may be over a layer.
type layerMaterial struct {
	root.TrustedMaterial
	layer []byte
}

// TimestampingAuthorities implements root.TrustedMaterial.
func (m layerMaterial) TimestampingAuthorities() []root.TimestampingAuthority {
	var all []root.TimestampingAuthority
	for _, authority := range m.TrustedMaterial.TimestampingAuthorities() {
		all = append(all, layerAuthority{authority, m.layer})
	}
	return all
}

type layerAuthority struct {
	root.TimestampingAuthority
	layer []byte
}

// Verify implements root.TimestampingAuthority.
func (a layerAuthority) Verify(stamp, signature []byte) (*root.Timestamp, error) {
	at, err := a.TimestampingAuthority.Verify(stamp, a.layer)
	if err != nil {
		return a.TimestampingAuthority.Verify(stamp, signature)
	}
	return at, nil
}
