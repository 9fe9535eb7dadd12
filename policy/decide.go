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

	attested []attestedOutcome // of each of the policy's attestations
	unmet    int               // the first of these that is not met; -1 when all are

	why   string    // of the nearest evidence: why it is untimely
	until time.Time // when allowed: until the evidence suffices; zero is for ever
}

// decide weighs evidence about subject at a moment under a policy that requires some. It
// is a pure function and monotonic: evidence that is added never takes an allowed
// subject back. Authorities in suspended count for nothing. judged is what Rego said of
// attestations; the policy's own is asked afterwards.
func decide(p *Policy, suspended map[string]string, subject Subject, evidence []verifier.Evidence, judged judgements, at time.Time) outcome {
	o := outcome{nearest: -1, unmet: -1}
	var ways []counting
	for i, e := range evidence {
		if !e.IsSignature() && !e.Verified() {
			continue // whatever it may be worth, it is no signature
		}
		by := signers(p.Require.Of, suspended, e.Authorities())
		near, made, late := p.waysOf(subject, e, by, at)
		if near == counted {
			ways = append(ways, made...)
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
	for i := range p.Attestations {
		a := weighAttestations(p, i, suspended, evidence, judged, at)
		o.attested = append(o.attested, a)
		if !a.met && o.unmet < 0 {
			o.unmet = i
		}
	}
	signatures := len(o.signed) >= p.Require.AtLeast && p.requires()
	o.allowed = signatures && o.unmet < 0
	switch {
	case o.allowed:
		if p.Require.AtLeast > 0 {
			o.until = lasting(ways, p.Require.AtLeast)
		}
		for _, a := range o.attested {
			o.until = earlier(o.until, a.until)
		}
	case signatures:
		o.reason = o.attested[o.unmet].reason()
	case len(o.signed) > 0:
		o.reason = ReasonThreshold
	default:
		o.reason = reasonOf[o.near]
	}
	return o
}

// requires reports whether p asks for any evidence.
func (p *Policy) requires() bool { return p.Require.AtLeast > 0 || len(p.Attestations) > 0 }

// signers returns those of the authorities by which something verified is signed that
// are required.
func signers(required []string, suspended map[string]string, by []string) []string {
	return slices.DeleteFunc(slices.Clone(by), func(name string) bool {
		_, out := suspended[name]
		return out || !slices.Contains(required, name)
	})
}

// waysOf says how near one piece of evidence by these required authorities comes and, when
// it counts, in which ways; late is why, when all that it lacks is a time.
func (p *Policy) waysOf(subject Subject, e verifier.Evidence, by []string, at time.Time) (near nearness, ways []counting, late string) {
	if near = weigh(p, subject, e, by); near != counted {
		return near, nil, ""
	}
	for _, name := range by {
		until, why := p.timely(e, name, at)
		if why != "" {
			late = why
			continue
		}
		ways = append(ways, counting{e.Signer(), name, until})
	}
	if len(ways) == 0 {
		return untimely, nil, late
	}
	return counted, ways, ""
}

// counts reports whether e is a signature that p's require counts.
func (p *Policy) counts(suspended map[string]string, subject Subject, e verifier.Evidence, at time.Time) bool {
	near, _, _ := p.waysOf(subject, e, signers(p.Require.Of, suspended, e.Authorities()), at)
	return near == counted
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
	case !nameHolds(p.named(e.KeyID()), subject, e.ClaimedName()):
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
	could := reachable(p.Require, suspended, len(o.signed), o.strangers)
	for i, a := range o.attested {
		could = could && (a.met || reachable(p.Attestations[i].Require, suspended, len(a.by), a.strangers))
	}
	return could
}

// reachable reports whether so many signers meet r with those that are suspended, each
// of which may be one of so many strangers.
func reachable(r Require, suspended map[string]string, signed, strangers int) bool {
	waiting := 0
	for _, name := range r.Of {
		if _, ok := suspended[name]; ok {
			waiting++
		}
	}
	return signed+min(waiting, strangers) >= r.AtLeast
}
