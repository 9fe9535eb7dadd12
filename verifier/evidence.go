package verifier

import (
	"encoding/json"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

// FormSimpleSigning is the Form of a cosign signature in a signature tag.
const FormSimpleSigning = "simple-signing"

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
	authorities    []string
	claimedName    string
	annotations    map[string]any
}

// Form returns what kind of evidence it is: FormSimpleSigning.
func (e Evidence) Form() string { return e.form }

// Source returns where it was found: the tag.
func (e Evidence) Source() string { return e.source }

// Digest returns the digest of the payload blob; of the manifest when that is
// what is wrong; the zero Hash when even the digest is malformed.
func (e Evidence) Digest() v1.Hash { return e.digest }

// Verified reports whether a key of an authority signed a well-formed payload
// that names the subject's digest.
func (e Evidence) Verified() bool { return e.verified }

// Reason returns why it is rejected: one of the Reason constants. It is empty
// for verified evidence.
func (e Evidence) Reason() string { return e.reason }

// Detail returns one line of printable text for a person about the rejection.
func (e Evidence) Detail() string { return e.detail }

// KeyID returns the ID of the key that signed it: of verified evidence, and of
// evidence that was rejected although a trusted key signed it.
func (e Evidence) KeyID() string { return e.keyID }

// Authorities returns the names, in the order given to Verify, of the
// authorities that hold the key; of rejected evidence, none.
func (e Evidence) Authorities() []string { return slices.Clone(e.authorities) }

// ClaimedName returns the name that the signer gave the image, which may be
// empty. It is known when KeyID is and the payload is well-formed.
func (e Evidence) ClaimedName() string { return e.claimedName }

// Annotations returns a copy of the signed annotations: strings, booleans, nil,
// json.Number, and lists and maps of them. They are known when ClaimedName is.
func (e Evidence) Annotations() map[string]any {
	return envelope.CopyAnnotations(e.annotations)
}

// MarshalJSON implements json.Marshaler, for records of decisions.
func (e Evidence) MarshalJSON() ([]byte, error) {
	digest := ""
	if e.digest != (v1.Hash{}) {
		digest = e.digest.String()
	}
	return json.Marshal(struct {
		Form        string         `json:"form"`
		Source      string         `json:"source"`
		Digest      string         `json:"digest,omitempty"`
		Verified    bool           `json:"verified"`
		Reason      string         `json:"reason,omitempty"`
		Detail      string         `json:"detail,omitempty"`
		KeyID       string         `json:"keyID,omitempty"`
		Authorities []string       `json:"authorities,omitempty"`
		ClaimedName string         `json:"claimedName,omitempty"`
		Annotations map[string]any `json:"annotations,omitempty"`
	}{e.form, e.source, digest, e.verified, e.reason, e.detail, e.keyID, e.authorities, e.claimedName, e.annotations})
}

// rejected returns e with why it does not count.
func (e Evidence) rejected(reason, detail string) Evidence {
	e.verified, e.authorities = false, nil
	e.reason, e.detail = reason, detail
	return e
}
