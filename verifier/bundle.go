package verifier

import (
	"context"
	"errors"
	"fmt"

	"vidimus/verifier/envelope"
)

// checkBundle checks a sigstore bundle with the keys, each of which is tried: the
// hint at a key that is in it is not even read. What is signed is parsed once a key
// has vouched for it. An error means that nobody could tell.
func (v *verification) checkBundle(e Evidence, mediaType string, data []byte) (Evidence, error) {
	b, err := envelope.ParseBundle(mediaType, data)
	if err != nil {
		return e.rejected(ReasonPayloadInvalid, err.Error()), nil
	}
	e.form = FormBundleDSSE
	if b.Statement == nil {
		e.form = FormBundleMessage
	}
	switch {
	case len(b.Signature) > MaxSignatureSize:
		return e.rejected(ReasonPayloadInvalid, fmt.Sprintf("it has a signature of more than %d bytes", MaxSignatureSize)), nil
	case b.Certificate:
		return e.rejected(ReasonUntrusted, "it is signed with a certificate (keyless), which is not supported yet"), nil
	case b.Statement == nil:
		return v.checkMessage(e, b)
	}
	holder, ok := v.holder(b.Signed, b.Signature)
	if !ok {
		return v.byNobody(e), nil
	}
	e.keyID = holder.key.id
	signed := envelope.Envelope{Statement: b.Statement, Signatures: []envelope.EnvelopeSignature{{Signature: b.Signature}}}
	return v.checkStatement(e, signed, holder.authorities), nil
}

// checkMessage checks a signature over the manifest itself. It says nothing besides.
func (v *verification) checkMessage(e Evidence, b envelope.Bundle) (Evidence, error) {
	if b.Digest != v.subject.Digest.String() {
		return e.rejected(ReasonUntrusted, "its signature is over other bytes than the manifest's, of which only the digest is known: "+b.Digest), nil
	}
	manifest := v.manifest()
	if manifest.err != nil {
		return Evidence{}, fmt.Errorf("%s: the manifest that it signs: %w", e.source, manifest.err)
	}
	holder, ok := v.holder(manifest.data, b.Signature)
	if !ok {
		return v.byNobody(e), nil
	}
	e.keyID, e.verified, e.authorities = holder.key.id, true, holder.authorities
	return e, nil
}

// fetchManifest fetches the subject, whose hash alone is believed.
func (v *verification) fetchManifest(ctx context.Context) payload {
	data, err := v.registry.Manifest(ctx, v.subject.Repository, v.subject.Digest.String())
	if err == nil && hashOf(data) != v.subject.Digest {
		err = errors.New("the registry delivered other bytes")
	}
	return payload{data, err}
}

// checkStatement parses what a key of these authorities has signed.
func (v *verification) checkStatement(e Evidence, signed envelope.Envelope, authorities []string) Evidence {
	statement, err := envelope.ParseStatement(signed.Statement)
	if err != nil {
		return e.rejected(ReasonPayloadInvalid, err.Error())
	}
	if e.form == FormAttestation || statement.PredicateType != envelope.PredicateCosignSign {
		e.form, e.predicateType = FormAttestation, statement.PredicateType
	}
	said, ours := statement.Subjects[0], 0
	for _, subject := range statement.Subjects {
		if subject.Digest == v.subject.Digest.String() {
			if ours == 0 {
				said = subject
			}
			ours++
		}
	}
	if e.claimedName, e.annotations, err = said.Claims(); err != nil {
		return e.rejected(ReasonPayloadInvalid, err.Error())
	}
	switch {
	case ours == 0:
		return e.astray(said.Digest)
	case ours > 1 && e.form != FormAttestation: // which lists a manifest under each of its names
		return e.rejected(ReasonPayloadInvalid, "the statement names this manifest more than once")
	}
	e.verified, e.authorities = true, authorities
	if e.form == FormAttestation && v.subject.Attestations {
		e.attested = &attested{statement.Predicate, signed}
	}
	return e
}
