package verifier

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

// Forms of evidence. They are wire format.
const (
	// FormSimpleSigning is a cosign signature over a payload of its own: in a
	// signature tag, or in a referrer (cosign's experimental oci-1-1 mode).
	FormSimpleSigning = "simple-signing"
	// FormBundleDSSE is a sigstore bundle over an in-toto statement: when it is
	// verified, a signature of an image, as cosign v3 makes it; when it is not, it
	// is not known whether it is not an attestation.
	FormBundleDSSE = "bundle-dsse"
	// FormBundleMessage is a sigstore bundle over the manifest itself.
	FormBundleMessage = "bundle-message"
	// FormBundle is a sigstore bundle that cannot be read.
	FormBundle = "bundle"
	// FormAttestation is an in-toto statement that is no signature: it tells something
	// about the image. It is what a DSSE envelope is that stands by itself, at the tag
	// of attestations or in a referrer, whoever signed it; and a sigstore bundle when a
	// trusted key has signed it.
	FormAttestation = "attestation"
)

// Reasons for which evidence is rejected. They are wire format.
const (
	// ReasonUntrusted: signed by none of the keys that were asked for.
	ReasonUntrusted = "untrusted"
	// ReasonPayloadInvalid: malformed, missing or too large.
	ReasonPayloadInvalid = "payload-invalid"
	// ReasonDigestMismatch: a trusted key signed it, for another manifest.
	ReasonDigestMismatch = "digest-mismatch"
)

// Evidence is one thing that was found about a subject, and what came of
// checking it. Only Verify makes one; the zero Evidence is not verified and
// says nothing. It is immutable and may be used by several goroutines.
type Evidence struct {
	form, source   string
	digest         v1.Hash
	verified       bool
	reason, detail string
	keyID          string
	issuer         string // of the signer's certificate
	subject        string
	certified      bool     // by a certificate, or so it says
	sharedKey      string   // the ID of the certificate's key, when it is a key of an authority, too
	by             []string // authorities whose key or identity made it, rejected or not
	authorities    []string
	signedAt       time.Time // zero: no time is proven
	untimed        string    // why not
	timeBy         string    // what proves it
	held           checkSet
	failed         string    // the check for which it is rejected; empty: it was not checked
	claimed        *Claimed  // never changed once Verify has returned
	until          time.Time // when what proves it ends; zero: never
	claimedName    string
	annotations    map[string]any
	predicateType  string

	// Of an attestation, where Subject.Attestations asks for it.
	others   []Signer // those besides the first who signed it
	attested *attested
}

// Signer is one of those who signed something that is verified.
type Signer struct {
	ID          string   // the key's ID, or issuer and subject of the certificate: see Evidence.Signer
	KeyID       string   // empty where a certificate names the signer
	Authorities []string // that hold the key or identity
}

// attested is what an attestation says and by what it is signed.
type attested struct {
	predicate json.RawMessage
	envelope  envelope.Envelope // with those signatures alone that hold
}

// Form returns what kind of evidence it is: one of the Form constants.
func (e Evidence) Form() string { return e.form }

// IsSignature reports whether it is, or may be, a signature of the image. An
// attestation is none, whoever made it.
func (e Evidence) IsSignature() bool { return e.form != FormAttestation }

// Source returns where it was found: the tag, or "referrer" and its digest.
func (e Evidence) Source() string { return e.source }

// Digest returns the digest of the payload or bundle; of the manifest when that is
// what is wrong; the zero Hash when even the digest is malformed.
func (e Evidence) Digest() v1.Hash { return e.digest }

// Verified reports whether a key or identity of an authority signed a well-formed
// payload that names the subject's digest.
func (e Evidence) Verified() bool { return e.verified }

// Reason returns why it is rejected: one of the Reason constants. It is empty
// for verified evidence.
func (e Evidence) Reason() string { return e.reason }

// Detail returns one line of printable text for a person about the rejection.
func (e Evidence) Detail() string { return e.detail }

// KeyID returns the ID of the key that signed it: of verified evidence, and of
// evidence that was rejected although a trusted key signed it. It is empty where a
// certificate names the signer.
func (e Evidence) KeyID() string { return e.keyID }

// Identity returns issuer and subject of the certificate that signed it, when KeyID
// is empty for that reason.
func (e Evidence) Identity() (issuer, subject string) { return e.issuer, e.subject }

// Signer returns who signed it: the key's ID, or issuer and subject of the certificate.
// It is the key's ID, too, where the certificate is for a key that an authority has: who
// holds that has not signed twice. It is empty for evidence that nobody signed who is
// trusted. Who counts distinct signers compares this.
func (e Evidence) Signer() string {
	switch {
	case e.keyID != "" || e.subject == "":
		return e.keyID
	case e.sharedKey != "":
		return e.sharedKey
	}
	return signerName(e.issuer, e.subject)
}

// Certified reports whether it came with a certificate that names its signer, whether
// or not that counts.
func (e Evidence) Certified() bool { return e.certified }

// SignedAt returns when it was signed, at the latest: the earliest time that the trust
// root proves. It is false, with why, when none is proven.
func (e Evidence) SignedAt() (at time.Time, proven bool) { return e.signedAt, !e.signedAt.IsZero() }

// ProvenBy returns what proves the time of SignedAt: ProvenByLog or ProvenByTimestamp;
// empty when none is proven.
func (e Evidence) ProvenBy() string { return e.timeBy }

// Untimed returns one line of printable text about why SignedAt is false.
func (e Evidence) Untimed() string { return e.untimed }

// Until returns when verified evidence ceases to be: when a certificate ends that no
// proven time has settled. It is zero for what does not end.
func (e Evidence) Until() time.Time { return e.until }

// SignedBy returns the names of the authorities whose key or identity signed it, also
// when it is rejected nevertheless.
func (e Evidence) SignedBy() []string {
	names := slices.Clone(e.by)
	for _, other := range e.others {
		for _, name := range other.Authorities {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Authorities returns the names, in the order given to Verify, of the authorities that
// hold the key or identity, or one of several keys: in the order of the signatures then.
// Of rejected evidence there are none.
func (e Evidence) Authorities() []string { return slices.Clone(e.authorities) }

// ClaimedName returns the name that the signer gave the image, which may be
// empty. It is known when Signer is and the payload is well-formed.
func (e Evidence) ClaimedName() string { return e.claimedName }

// Annotations returns a copy of the signed annotations: strings, booleans, nil,
// json.Number, and lists and maps of them. They are known when ClaimedName is.
func (e Evidence) Annotations() map[string]any {
	return envelope.CopyAnnotations(e.annotations)
}

// PredicateType returns what kind of statement an attestation makes: the in-toto
// predicate type. It is empty for a signature.
func (e Evidence) PredicateType() string { return e.predicateType }

// KeyIDs returns the IDs of all keys of authorities that signed it: an attestation's
// envelope may have several signatures. It is KeyID for everything else.
func (e Evidence) KeyIDs() []string {
	if e.keyID == "" {
		return nil
	}
	ids := []string{e.keyID}
	for _, other := range e.others {
		ids = append(ids, other.KeyID)
	}
	return ids
}

// Signers returns all who signed it and are trusted, each once; of rejected evidence,
// none. It must not be changed.
func (e Evidence) Signers() []Signer {
	if !e.verified {
		return nil
	}
	return append([]Signer{{ID: e.Signer(), KeyID: e.keyID, Authorities: e.by}}, e.others...)
}

// Predicate returns a copy of what a verified attestation says: JSON in which no name
// stands twice, nil when there is none or Subject.Attestations did not ask for it.
func (e Evidence) Predicate() json.RawMessage {
	if e.attested == nil {
		return nil
	}
	return slices.Clone(e.attested.predicate)
}

// PredicateSize returns how many bytes Predicate would.
func (e Evidence) PredicateSize() int {
	if e.attested == nil {
		return 0
	}
	return len(e.attested.predicate)
}

// Envelope returns a verified attestation as a DSSE envelope with the signatures that
// hold, and no others; false for other evidence, and where Subject.Attestations did not
// ask for it. It must not be changed.
func (e Evidence) Envelope() (envelope.Envelope, bool) {
	if e.attested == nil {
		return envelope.Envelope{}, false
	}
	return e.attested.envelope, true
}

// Brief returns e without what an attestation says, for one who keeps it for long: a
// statement may have a megabyte.
func (e Evidence) Brief() Evidence {
	e.attested = nil
	return e
}

// signedBy returns e with the key that signed it.
func (e Evidence) signedBy(holder trusted) Evidence {
	e.keyID, e.by = holder.key.id, holder.authorities
	return e.holds(heldSignature)
}

// unproven returns e, which a key has signed, without a time.
func (e Evidence) unproven() Evidence {
	e.untimed = "it has neither a log entry nor a timestamp"
	return e
}

// signer names who signed it, for people.
func (e Evidence) signer() string {
	if e.keyID != "" {
		return fmt.Sprintf("key %.12s", e.keyID)
	}
	return shortenTo(e.subject, maxNamed)
}

// rejected returns e with why it does not count.
func (e Evidence) rejected(reason, detail string) Evidence {
	e.verified, e.authorities, e.attested = false, nil, nil
	e.reason, e.detail = reason, detail
	return e
}
