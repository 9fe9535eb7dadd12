package verifier

import (
	"fmt"
	"sync"
	"time"
)

// Blob is a signature of a file, and what came along to prove it. Nothing in it is
// trusted. It is a bundle, or a signature with the rest.
type Blob struct {
	Bundle    []byte // a sigstore bundle, of MediaType
	MediaType string

	Signature   []byte
	Certificate []byte // of the signer, in PEM
	Chain       []byte // certificates that lead to an authority, in PEM
	Entry       []byte // of a log, as cosign keeps it beside a signature
}

// VerifyBlob checks a signature of message against the keys and identities of
// authorities, as Verify does one of an image at the time now: certificates with the
// trust roots of their authorities, and nothing that came along is taken for a key. A
// bundle must be over message itself; one with a statement is no signature of a file.
func VerifyBlob(message []byte, b Blob, authorities []Authority, now time.Time) Evidence {
	v := &verification{
		subject:    Subject{Digest: hashOf(message)},
		keys:       trustedKeys(authorities),
		identities: trustedIdentities(authorities),
		now:        now,
		manifest:   sync.OnceValue(func() payload { return payload{data: message} }),
	}
	if b.Bundle != nil {
		e := Evidence{form: FormBundle, digest: hashOf(b.Bundle)}
		checked, err := v.checkBundle(e, b.MediaType, b.Bundle)
		switch {
		case err != nil: // not reached: the message is here
			return e.rejected(ReasonPayloadInvalid, err.Error())
		case checked.verified && checked.form != FormBundleMessage:
			return checked.rejected(ReasonPayloadInvalid, "it holds a statement, which is no signature of a file")
		}
		return checked
	}
	return v.checkMessage(Evidence{form: FormBundleMessage}, message, b)
}

// checkMessage checks a signature over a message: with the keys, or with the certificate
// that is attached.
func (v *verification) checkMessage(e Evidence, message []byte, b Blob) Evidence {
	a := attached{certificate: string(b.Certificate), chain: string(b.Chain), entry: string(b.Entry)}
	a = a.bounded([]int{len(a.certificate), len(a.chain), len(a.entry), 0})
	if len(b.Signature) > MaxSignatureSize {
		return e.rejected(ReasonPayloadInvalid, fmt.Sprintf("it has more than %d bytes", MaxSignatureSize))
	}
	holder, ok := v.holder(message, b.Signature)
	switch {
	case ok:
		e = e.signedBy(holder)
	case a.certified() && len(v.identities) > 0:
		p, err := a.proven(message, b.Signature)
		if err != nil {
			return e.rejected(ReasonPayloadInvalid, err.Error())
		}
		if e, holder, ok = v.checkCertificate(e, p); !ok {
			return e
		}
	default:
		return v.byNobody(e)
	}
	e.verified, e.authorities = true, holder.authorities
	switch {
	case e.keyID == "":
		return e
	case !a.proves():
		return e.unproven()
	}
	return v.timed(e, holder, func() (*proven, error) { return a.proven(message, b.Signature) })
}
