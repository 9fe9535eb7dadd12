package verifier

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// noRoot says why nothing proves a certificate.
const noRoot = "no trust root is configured to prove it"

// maxHint is how many bytes of a hint at a key are told.
const maxHint = 128

// Claimed is what rejected evidence says of its signer, where nobody trusted has made
// it. It counts for nothing, and tells who may be meant: so that a first policy can be
// written from what is seen, or so that one sees who has signed instead.
type Claimed struct {
	// Issuer and Subject are what its certificate says.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Source is the repository that the signer ran for, where the certificate names one.
	Source string `json:"source,omitempty"`
	// Key is the ID of the key that a bundle hints at, or the hint itself. Anybody can
	// write it; nothing ever proves it.
	Key string `json:"key,omitempty"`

	// Proven says that the holder of the certificate has signed a well-formed payload
	// about this manifest, as one of Subject.ClaimRoots proves. Without it all of this is
	// what anybody may have written.
	Proven   bool      `json:"proven"`
	SignedAt time.Time `json:"signedAt,omitzero"`
	ProvenBy string    `json:"provenBy,omitempty"` // log or timestamp: what proves SignedAt
	Logged   bool      `json:"logged,omitempty"`   // an entry in a transparency log holds
	// PredicateType is, of an attestation that is proven, what kind it is of.
	PredicateType string `json:"predicateType,omitempty"`
	// Detail is one line of printable text: why it is not proven.
	Detail string `json:"detail,omitempty"`
}

// Claimed returns what rejected evidence says of a signer by whom nothing counts; false
// where it says nothing, or Subject.Claims did not ask for it.
func (e Evidence) Claimed() (Claimed, bool) {
	if e.claimed == nil {
		return Claimed{}, false
	}
	return *e.claimed, true
}

// anyone are identities that everybody fits whose certificate one of roots proves, or
// would, if there were any.
func anyone(roots []*Root) []trustedIdentity {
	if len(roots) == 0 {
		roots = []*Root{nil}
	}
	var identities []trustedIdentity
	for _, r := range roots {
		identities = append(identities, trustedIdentity{Identity{anyone: true}, &Authority{Name: "anyone", Root: r}})
	}
	return identities
}

// claims is a verification of the same subject for which anybody's certificate counts.
// What it verifies is only told.
func (v *verification) claims() *verification {
	return &verification{
		registry: v.registry, subject: v.subject, identities: anyone(v.subject.ClaimRoots), now: v.now, manifest: v.manifest, claiming: true,
	}
}

// claim returns e, which was rejected, with what c says of its signer.
func (v *verification) claim(e Evidence, c Candidate, p payload) Evidence {
	if v.stranger == nil || e.verified || e.Signer() != "" || c.fault != "" || p.err != nil || p.data == nil {
		return e
	}
	told, err := v.stranger.checkFor(c, p)
	switch {
	case err != nil:
		return e
	case told.verified:
		e.certified = true
		if e.claimed = told.claimed; e.claimed == nil {
			return e // a name of more bytes than are told
		}
		e.claimed.Proven, e.claimed.PredicateType = true, told.predicateType
		e.claimed.SignedAt, e.claimed.ProvenBy, e.claimed.Logged = told.signedAt.UTC(), told.timeBy, told.held&heldLog != 0
	case told.claimed != nil:
		e.claimed = told.claimed
		if e.claimed.Detail = told.detail; strings.HasSuffix(told.detail, noRoot) {
			e.claimed.Detail = noRoot
		}
	}
	return e
}

// claimedBy is what a certificate says, unless it is longer than is told.
func claimedBy(s certifiedSigner) *Claimed {
	if len(s.issuer) > maxNamed || len(s.subject) > maxNamed {
		return nil
	}
	said := &Claimed{Issuer: s.issuer, Subject: s.subject}
	if len(s.sources) > 0 && len(s.sources[0]) <= maxNamed {
		said.Source = s.sources[0]
	}
	return said
}

// hinted is the key at which a bundle hints: by its ID, where the hint is the SHA-256 of
// a key as cosign writes it.
func hinted(p *proven) *Claimed {
	hint := ""
	_ = guarded(func() error {
		hint = p.entity.GetVerificationMaterial().GetPublicKey().GetHint()
		return nil
	})
	if hint == "" || len(hint) > maxHint {
		return nil
	}
	if raw, err := base64.StdEncoding.DecodeString(hint); err == nil && len(raw) == 32 {
		return &Claimed{Key: hex.EncodeToString(raw)}
	}
	return &Claimed{Key: shorten(hint)}
}
