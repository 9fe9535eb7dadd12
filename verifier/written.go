package verifier

import (
	"encoding/json"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Written is Evidence as it stands in records, answers and output. Its names are wire
// format.
type Written struct {
	Form          string         `json:"form"`
	Source        string         `json:"source"`
	Digest        string         `json:"digest,omitempty"`
	Verified      bool           `json:"verified"`
	Reason        string         `json:"reason,omitempty"`
	Detail        string         `json:"detail,omitempty"`
	KeyID         string         `json:"keyID,omitempty"`
	OtherKeys     []string       `json:"otherKeyIDs,omitempty"`
	Issuer        string         `json:"issuer,omitempty"`
	Subject       string         `json:"subject,omitempty"`
	SignedAt      time.Time      `json:"signedAt,omitzero"`
	ProvenBy      string         `json:"provenBy,omitempty"` // what proves signedAt
	Untimed       string         `json:"untimed,omitempty"`  // why there is no signedAt
	Authorities   []string       `json:"authorities,omitempty"`
	SignedBy      []string       `json:"signedBy,omitempty"` // of rejected evidence: authorities whose key or identity made it
	ClaimedName   string         `json:"claimedName,omitempty"`
	Annotations   map[string]any `json:"annotations,omitempty"`
	PredicateType string         `json:"predicateType,omitempty"`
	Claimed       *Claimed       `json:"claimed,omitempty"` // of rejected evidence
}

// Written returns e as it is written.
func (e Evidence) Written() Written {
	w := Written{
		Form: e.form, Source: e.source, Verified: e.verified, Reason: e.reason, Detail: e.detail,
		KeyID: e.keyID, Issuer: e.issuer, Subject: e.subject, SignedAt: e.signedAt.UTC(), ProvenBy: e.timeBy,
		Authorities: e.authorities, ClaimedName: e.claimedName, Annotations: e.annotations, PredicateType: e.predicateType,
	}
	if e.digest != (v1.Hash{}) {
		w.Digest = e.digest.String()
	}
	for _, other := range e.others {
		w.OtherKeys = append(w.OtherKeys, other.KeyID)
	}
	if e.verified {
		w.Untimed = e.untimed
		return w
	}
	w.SignedBy = e.SignedBy()
	if claimed, ok := e.Claimed(); ok {
		w.Claimed = &claimed
	}
	return w
}

// MarshalJSON implements json.Marshaler, for records of decisions.
func (e Evidence) MarshalJSON() ([]byte, error) { return json.Marshal(e.Written()) }
