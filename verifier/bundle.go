package verifier

import (
	"context"
	"errors"
	"fmt"

	"vidimus/verifier/envelope"
)

// checkBundle checks a sigstore bundle: with its certificate when it has one, or else
// with the keys, each of which is tried, for the hint at a key that is in it is not even
// read. What is signed is parsed once a signer has vouched for it. An error means that
// nobody could tell.
func (v *verification) checkBundle(e Evidence, mediaType string, data []byte) (Evidence, error) {
	b, err := envelope.ParseBundle(mediaType, data)
	if err != nil {
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error()), nil
	}
	e.form = FormBundleDSSE
	if b.Statement == nil {
		e.form = FormBundleMessage
	}
	switch {
	case len(b.Signature) > MaxSignatureSize:
		return e.fails(CheckForm, ReasonPayloadInvalid, fmt.Sprintf("it has a signature of more than %d bytes", MaxSignatureSize)), nil
	case b.Certificate && len(v.identities) == 0:
		e.certified = true
		if len(v.keys) == 0 {
			return e.rejected(ReasonUntrusted, "it is signed with a certificate, and nobody is asked for"), nil
		}
		return e.rejected(ReasonUntrusted, "it is signed with a certificate, and keys alone are asked for"), nil
	}
	e.certified = b.Certificate
	signed := b.Signed
	if b.Statement == nil {
		if signed, err = v.message(&e, b); signed == nil {
			return e, err
		}
	}
	read := func() (*proven, error) { return parseProven(mediaType, data, b, signed) }
	var holder trusted
	if b.Certificate {
		if b.Statement != nil {
			if _, err := envelope.ParseStatement(b.Statement); err != nil { // sigstore-go reads it, too
				return e.fails(CheckForm, ReasonPayloadInvalid, err.Error()), nil
			}
		}
		p, err := read()
		if err != nil {
			return e.fails(CheckForm, ReasonPayloadInvalid, err.Error()), nil
		}
		var ok bool
		if e, holder, ok = v.checkCertificate(e, p); !ok {
			return e, nil
		}
	} else {
		var ok bool
		if holder, ok = v.holder(signed, b.Signature); !ok {
			if p, err := v.hintedAt(read); err == nil {
				e.claimed = hinted(p)
			}
			return v.byNobody(e), nil
		}
		e = e.signedBy(holder)
	}
	if b.Statement == nil {
		e = e.holds(heldForm | heldDigest)
		e.verified, e.authorities = true, holder.authorities
	} else {
		e = v.checkStatement(e, envelope.Envelope{Statement: b.Statement, Signatures: []envelope.EnvelopeSignature{{Signature: b.Signature}}}, holder.authorities)
	}
	switch {
	case b.Certificate || !e.verified:
		return e, nil
	case b.Proofs == 0:
		return e.unproven(), nil
	}
	return v.timed(e, holder, read), nil
}

// hintedAt reads a bundle for the key at which it hints, where that is told.
func (v *verification) hintedAt(read func() (*proven, error)) (*proven, error) {
	if !v.claiming {
		return nil, errUnasked
	}
	return read()
}

var errUnasked = errors.New("nobody asks")

// message returns the manifest, which a bundle's signature is over. Nothing is returned
// when that cannot be read, or is not what the bundle is about, and e is rejected then.
func (v *verification) message(e *Evidence, b envelope.Bundle) ([]byte, error) {
	if b.Digest != v.subject.Digest.String() {
		*e = e.fails(CheckDigest, ReasonUntrusted, "its signature is over other bytes than the manifest's, of which only the digest is known: "+b.Digest)
		return nil, nil
	}
	manifest := v.manifest()
	if manifest.err != nil {
		err := fmt.Errorf("%s: the manifest that it signs: %w", e.source, manifest.err)
		*e = Evidence{}
		return nil, err
	}
	return manifest.data, nil
}

// fetchManifest fetches the subject, whose hash alone is believed.
func (v *verification) fetchManifest(ctx context.Context) payload {
	data, err := v.registry.Manifest(ctx, v.subject.Repository, v.subject.Digest.String())
	if err == nil && hashOf(data) != v.subject.Digest {
		err = errors.New("the registry delivered other bytes")
	}
	return payload{data, err}
}

// checkStatement parses what somebody of these authorities has signed.
func (v *verification) checkStatement(e Evidence, signed envelope.Envelope, authorities []string) Evidence {
	statement, err := envelope.ParseStatement(signed.Statement)
	if err != nil {
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	e = e.holds(heldForm)
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
		return e.fails(CheckForm, ReasonPayloadInvalid, err.Error())
	}
	switch {
	case ours == 0:
		return e.astray(said.Digest)
	case ours > 1 && e.form != FormAttestation: // which lists a manifest under each of its names
		return e.fails(CheckForm, ReasonPayloadInvalid, "the statement names this manifest more than once")
	}
	e = e.holds(heldDigest)
	e.verified, e.authorities = true, authorities
	if e.form == FormAttestation && v.subject.Attestations {
		e.attested = &attested{statement.Predicate, signed}
	}
	return e
}
