package policy

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"vidimus/verifier"
)

// nearness orders how near a piece of evidence comes to counting. The nearest
// one gives a denial its reason.
type nearness int

const (
	nothing    nearness = iota // no evidence
	stranger                   // by no authority that is required
	certified                  // the same, but a certificate names somebody
	unreadable                 // payload invalid
	attested                   // an attestation, which is no signature
	astray                     // over another digest
	misnamed                   // for another name
	unlabelled                 // without the annotations
	untimely                   // too old, too young, or by a key that does not count any more
	counted
)

var reasonOf = [...]string{
	nothing:    ReasonUnsigned,
	stranger:   ReasonUntrusted,
	certified:  ReasonUntrusted,
	unreadable: ReasonPayloadInvalid,
	attested:   ReasonAttestedNotSigned,
	astray:     ReasonDigestMismatch,
	misnamed:   ReasonIdentityMismatch,
	unlabelled: ReasonAnnotationMismatch,
	untimely:   ReasonExpired,
}

// outcome is what evidence comes to under one policy.
type outcome struct {
	allowed bool
	reason  string   // of a denial
	signed  []string // required authorities that have signed, sorted
	near    nearness // of the nearest evidence that does not count
	nearest int      // its index; -1 when there is none

	strangers int // pieces of evidence by no authority that is required

	why   string    // of the nearest evidence: why it is untimely
	until time.Time // when allowed: until the evidence suffices; zero is for ever
}

// decide weighs evidence about subject at a moment under a policy that requires some. It
// is a pure function and monotonic: evidence that is added never takes an allowed
// subject back. Authorities in suspended count for nothing.
func decide(p *Policy, suspended map[string]string, subject Subject, evidence []verifier.Evidence, at time.Time) outcome {
	o := outcome{nearest: -1}
	var ways []counting
	for i, e := range evidence {
		by := signers(p, suspended, e)
		near, late := weigh(p, subject, e, by), ""
		if near == counted {
			near = untimely
			for _, name := range by {
				until, why := p.timely(e, name, at)
				if why != "" {
					late = why
					continue
				}
				near = counted
				ways = append(ways, counting{e.Signer(), name, until})
			}
		}
		if near == counted {
			continue
		}
		if near > o.near {
			o.near, o.nearest, o.why = near, i, late
		}
		if near == stranger || near == certified {
			o.strangers++
		}
	}
	o.signed = assign(ways)
	o.allowed = p.Require.AtLeast > 0 && len(o.signed) >= p.Require.AtLeast
	switch {
	case o.allowed:
		o.until = lasting(ways, p.Require.AtLeast)
	case len(o.signed) > 0:
		o.reason = ReasonThreshold
	default:
		o.reason = reasonOf[o.near]
	}
	return o
}

// signers returns the required authorities whose key or identity made e.
func signers(p *Policy, suspended map[string]string, e verifier.Evidence) []string {
	if !e.Verified() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.Authorities()), func(name string) bool {
		_, out := suspended[name]
		return out || !slices.Contains(p.Require.Of, name)
	})
}

// weigh says how near one piece of evidence comes.
func weigh(p *Policy, subject Subject, e verifier.Evidence, by []string) nearness {
	if !e.Verified() {
		switch e.Reason() {
		case ReasonPayloadInvalid:
			return unreadable
		case ReasonDigestMismatch:
			return astray
		}
		if e.Certified() {
			return certified
		}
		return stranger
	}
	switch {
	case len(by) == 0:
		return stranger
	case !e.IsSignature():
		return attested
	case !nameHolds(p, subject, e.ClaimedName()):
		return misnamed
	case missingAnnotation(p, e) != "":
		return unlabelled
	}
	return counted
}

// missingAnnotation returns the first annotation, by name, that p wants and the
// payload has not or has otherwise.
func missingAnnotation(p *Policy, e verifier.Evidence) string {
	if len(p.Annotations) == 0 {
		return ""
	}
	signed := e.Annotations()
	for _, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		value, ok := signed[name]
		if text, readable := annotationText(value); !ok || !readable || text != p.Annotations[name] {
			return name
		}
	}
	return ""
}

// annotationText is what the configuration has to say to mean value: a string
// as it is, anything else as its JSON text.
func annotationText(value any) (string, bool) {
	if text, ok := value.(string); ok {
		return text, true
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "", false
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), true
}

// turnable reports whether the suspended authorities could still turn a denial:
// each may have made one of the signatures that are by nobody required.
func (o outcome) turnable(p *Policy, suspended map[string]string) bool {
	waiting := 0
	for _, name := range p.Require.Of {
		if _, ok := suspended[name]; ok {
			waiting++
		}
	}
	return len(o.signed)+min(waiting, o.strangers) >= p.Require.AtLeast
}
