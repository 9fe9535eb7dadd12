package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// Attestation is a statement about an image that a policy asks for. It is met when
// enough distinct authorities have signed attestations of that type which Rego, where
// there is any, has nothing against: one that it denies does not count, and hides no
// other. The name that a statement gives its subject is not compared: it is a label,
// and only the digest is the image.
type Attestation struct {
	PredicateType string // the URI
	Require       Require
	Rego          Rego // nil: whatever it says
}

// attestedNearness orders how near an attestation comes to counting for one that is
// required.
type attestedNearness int

const (
	notAttested     attestedNearness = iota
	attestedByWhom                   // by nobody known
	attestedBroken                   // cannot be read
	attestedAstray                   // about another digest
	attestedElse                     // another predicate type, by a required authority
	attestedByOther                  // this predicate type, by an authority that is not required
	attestedLate                     // as wanted, by a key or certificate that does not count any more, or not yet
	attestedDenied                   // denied by Rego
)

// attestedOutcome is what evidence comes to for one attestation that is required.
type attestedOutcome struct {
	met     bool
	by      []string  // required authorities whose attestation counts, sorted
	until   time.Time // when met: until it is; zero is for ever
	near    attestedNearness
	nearest int      // index of the evidence that comes nearest; -1 when there is none
	denials []string // what Rego has against it

	strangers int // pieces of evidence that may be attestations by an authority
}

func (a attestedOutcome) reason() string {
	if a.near == attestedDenied {
		return ReasonRego
	}
	return ReasonAttestationMissing
}

// judgement is one attestation that Rego was asked about: which requirement, and which
// evidence.
type judgement struct{ requirement, evidence int }

// judgements are why Rego denies attestations. One that it was not asked about, and
// should have been, does not count.
type judgements map[judgement][]string

// weighAttestations weighs evidence for the attestation of p with this index.
func weighAttestations(p *Policy, requirement int, suspended map[string]string, evidence []verifier.Evidence, judged judgements, at time.Time) attestedOutcome {
	wanted := p.Attestations[requirement]
	o := attestedOutcome{nearest: -1}
	var ways []counting
	for i, e := range evidence {
		near, made := weighAttestation(p, wanted, suspended, e, at)
		if near == notAttested {
			continue
		}
		if len(made) > 0 {
			denials, asked := judged[judgement{requirement, i}]
			if wanted.Rego == nil || asked && len(denials) == 0 {
				ways = append(ways, made...)
				continue
			}
			if o.near < attestedDenied {
				o.denials = denials
			}
		}
		if near > o.near {
			o.near, o.nearest = near, i
		}
		if near == attestedByWhom {
			o.strangers++
		}
	}
	o.by = assign(ways)
	o.met = wanted.Require.AtLeast > 0 && len(o.by) >= wanted.Require.AtLeast
	if o.met {
		o.until = lasting(ways, wanted.Require.AtLeast)
	}
	return o
}

// weighAttestation says how near one piece of evidence comes to what is wanted; when
// only Rego is left to ask, ways are those in which it counts. The ages that a policy
// wants are those of signatures.
func weighAttestation(p *Policy, wanted Attestation, suspended map[string]string, e verifier.Evidence, at time.Time) (near attestedNearness, ways []counting) {
	if !e.Verified() {
		switch {
		case e.Form() != verifier.FormAttestation && e.Form() != verifier.FormBundleDSSE:
			return notAttested, nil
		case e.Reason() == ReasonPayloadInvalid:
			return attestedBroken, nil
		case e.Reason() == ReasonDigestMismatch:
			return attestedAstray, nil
		}
		return attestedByWhom, nil
	}
	if e.Form() != verifier.FormAttestation {
		return notAttested, nil
	}
	late := false
	for _, signer := range e.Signers() {
		for _, name := range signers(wanted.Require.Of, suspended, signer.Authorities) {
			until, why := p.lasts(e, signer.KeyID, name, at)
			if late = late || why != ""; why == "" {
				ways = append(ways, counting{signer.ID, name, until})
			}
		}
	}
	switch ours := e.PredicateType() == wanted.PredicateType; {
	case ours && len(ways) > 0:
		return attestedDenied, ways
	case ours && late:
		return attestedLate, nil
	case ours:
		return attestedByOther, nil
	case len(ways) > 0:
		return attestedElse, nil
	}
	return attestedByWhom, nil
}

// wantsAttestations reports whether anything is decided by what attestations say.
func (p *Policy) wantsAttestations() bool { return len(p.Attestations) > 0 || p.Rego != nil }

// asksRego reports whether p has any Rego.
func (p *Policy) asksRego() bool {
	return p.Rego != nil || slices.ContainsFunc(p.Attestations, func(a Attestation) bool { return a.Rego != nil })
}

// readsTag reports whether what is decided depends on the tag that was asked for.
func (p *Policy) readsTag() bool {
	return p.SignedAs == Exact || p.Rego != nil && p.Rego.ReadsTag() ||
		slices.ContainsFunc(p.Attestations, func(a Attestation) bool { return a.Rego != nil && a.Rego.ReadsTag() })
}

// names reports whether p names an authority in anything that it requires.
func (p *Policy) names(authority string) bool {
	return slices.Contains(p.Require.Of, authority) ||
		slices.ContainsFunc(p.Attestations, func(a Attestation) bool { return slices.Contains(a.Require.Of, authority) })
}

// authorities returns all that p names, each once.
func (p *Policy) authorities() []string {
	names := slices.Clone(p.Require.Of)
	for _, a := range p.Attestations {
		names = append(names, a.Require.Of...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// satisfied returns the authorities that have signed, or attested what is required.
func (o outcome) satisfied() []string {
	names := slices.Clone(o.signed)
	for _, a := range o.attested {
		names = append(names, a.by...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// explainAllowed says by what p is satisfied.
func (o outcome) explainAllowed(p *Policy) string {
	var parts []string
	if p.Require.AtLeast > 0 {
		parts = append(parts, "signed by "+list(o.signed))
	}
	for i, a := range o.attested {
		parts = append(parts, "attested by "+list(a.by)+": "+clean(envelope.PredicateName(p.Attestations[i].PredicateType), maxClaimed))
	}
	return strings.Join(parts, "; ")
}

// explainCut says why evidence that was cut off by a limit is missed.
func (o outcome) explainCut(p *Policy) string {
	switch {
	case o.allowed:
		return "the policy's Rego needs them all"
	case o.unmet >= 0 && (o.reason == ReasonAttestationMissing || o.reason == ReasonRego):
		return "those looked at do not suffice; " + p.Attestations[o.unmet].needed() + " is needed"
	}
	return "those looked at do not suffice; " + needs(p.Require)
}

// needed says in words what an attestation that is required is.
func (a Attestation) needed() string {
	return "an attestation of " + clean(envelope.PredicateName(a.PredicateType), maxClaimed) + " " + a.Require.by()
}

// by says whose signatures r asks for, after the thing that they are to be on.
func (r Require) by() string {
	switch {
	case len(r.Of) == 1:
		return "by " + list(r.Of)
	case r.AtLeast == 1:
		return "by one of " + list(r.Of)
	case r.AtLeast == len(r.Of):
		return "by all of " + list(r.Of)
	}
	return fmt.Sprintf("by %d of %s", r.AtLeast, list(r.Of))
}

// explainAttestation says why the first attestation that is not met is not.
func (x denial) explainAttestation() string {
	wanted, o := x.policy.Attestations[x.outcome.unmet], x.outcome.attested[x.outcome.unmet]
	needed := wanted.needed() + " is needed"
	said := ""
	var nearest verifier.Evidence
	if o.nearest >= 0 {
		nearest = x.evidence[o.nearest]
	}
	who := list(nearest.SignedBy())
	switch o.near {
	case notAttested:
		said = "not attested"
	case attestedByWhom:
		said = "attested by nobody who is required"
		if who != "" {
			said += "; nearest: " + who + " attested " + clean(envelope.PredicateName(nearest.PredicateType()), maxClaimed)
		}
	case attestedBroken:
		said = "there is an attestation that cannot be read: " + clean(nearest.Detail(), maxDetail)
	case attestedAstray:
		said = who + " attested another digest"
	case attestedElse:
		said = who + " attested " + clean(envelope.PredicateName(nearest.PredicateType()), maxClaimed) + " only"
	case attestedByOther:
		said = "attested as that by " + who + " only"
	case attestedLate:
		said = "attested by " + who + " with a key or certificate outside the time for which it counts"
	case attestedDenied:
		return "the attestation of " + clean(envelope.PredicateName(wanted.PredicateType), maxClaimed) + " by " + who +
			" is denied by Rego: " + reasonsText(o.denials) + "; " + needed
	}
	if len(o.by) > 0 {
		said = "attested by " + list(o.by) + " only"
	}
	return said + "; " + needed
}
