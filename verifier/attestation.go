package verifier

import (
	"slices"

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
// nothing from the others. It is an attestation even where its predicate is that of a
// signature: cosign writes these into bundles.
func (v *verification) checkEnvelope(e Evidence, data []byte) Evidence {
	parsed, err := envelope.ParseEnvelope(data)
	if err != nil {
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	held := envelope.Envelope{Statement: parsed.Statement}
	m := newMessage(parsed.Signed)
	for _, signature := range parsed.Signatures {
		if len(signature.Signature) > MaxSignatureSize {
			continue // no key's
		}
		holder, ok := v.holderOf(m, signature.Signature)
		if !ok || slices.Contains(e.KeyIDs(), holder.key.id) {
			continue
		}
		if e.keyID == "" {
			e = e.signedBy(holder)
		} else {
			e.others = append(e.others, Signer{ID: holder.key.id, KeyID: holder.key.id, Authorities: holder.authorities})
		}
		held.Signatures = append(held.Signatures, signature)
	}
	if e.keyID == "" {
		return v.byNobody(e)
	}
	return v.checkStatement(e.unproven(), held, e.SignedBy())
}
