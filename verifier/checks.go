package verifier

import "time"

// Checks that are made of a piece of evidence. They are wire format.
const (
	CheckForm        = "form"        // it is well-formed, and so is what it signs
	CheckIdentity    = "identity"    // its certificate names somebody who was asked for
	CheckSignature   = "signature"   // it is by a key asked for, or by the certificate's
	CheckCertificate = "certificate" // the trust root proves it
	CheckLog         = "log"         // an entry of a transparency log
	CheckTimestamp   = "timestamp"   // a timestamp (RFC 3161)
	CheckTime        = "time"        // when it was signed, where nothing proves that
	CheckDigest      = "digest"      // what it signs is the subject
)

// Outcomes of a check. They are wire format.
const (
	OutcomeHolds  = "holds"
	OutcomeFails  = "fails"
	OutcomeAbsent = "absent" // there was nothing to check, and none is asked for here
)

// Check is one thing that was checked, and what came of it.
type Check struct {
	Name    string `json:"check"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail,omitempty"` // one line of printable text
}

// What proves a time. They are wire format.
const (
	ProvenByLog       = "log"
	ProvenByTimestamp = "timestamp"
)

// checkSet are checks that held.
type checkSet uint8

const (
	heldForm checkSet = 1 << iota
	heldIdentity
	heldSignature
	heldCertificate
	heldLog
	heldTimestamp
	heldDigest
)

// checkOrder is the order in which checks are told, which is about that in which they
// are made.
var checkOrder = [...]struct {
	held checkSet
	name string
}{
	{heldForm, CheckForm}, {heldIdentity, CheckIdentity}, {heldSignature, CheckSignature}, {heldCertificate, CheckCertificate},
	{heldLog, CheckLog}, {heldTimestamp, CheckTimestamp}, {heldDigest, CheckDigest},
}

// Checks returns what was checked of e, and what came of each: what stands in it neither
// held nor failed was not looked at, for something before it had failed.
func (e Evidence) Checks() []Check {
	var all []Check
	for _, c := range checkOrder {
		switch {
		case c.name == e.failed:
			all = append(all, Check{Name: c.name, Outcome: OutcomeFails, Detail: e.detail})
		case e.held&c.held != 0:
			detail := ""
			if c.name == e.timeBy {
				detail = e.signedAt.UTC().Format(time.RFC3339)
			}
			all = append(all, Check{Name: c.name, Outcome: OutcomeHolds, Detail: detail})
		}
	}
	if e.verified && e.signedAt.IsZero() {
		all = append(all, Check{Name: CheckTime, Outcome: OutcomeAbsent, Detail: e.untimed})
	}
	return all
}

// holds returns e with further checks that held.
func (e Evidence) holds(checks checkSet) Evidence {
	e.held |= checks
	return e
}

// fails returns e rejected for a check.
func (e Evidence) fails(check, reason, detail string) Evidence {
	e = e.rejected(reason, detail)
	e.failed = check
	return e
}
