package policy

import (
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// Checks that a policy makes of verified evidence, besides the verifier's. They are
// wire format.
const (
	CheckAuthority   = "authority"   // an authority that is required made it
	CheckKind        = "kind"        // it is a signature, or an attestation of the type, as required
	CheckName        = "name"        // signedAs
	CheckAnnotations = "annotations" // annotations
	CheckWindow      = "window"      // the key or certificate counts when it was made
	CheckAge         = "age"         // maxAge and minAge
	CheckRego        = "rego"        // the attestation's Rego has nothing against it
)

// policyChecks are in the order in which they are told.
var policyChecks = [...]string{CheckAuthority, CheckKind, CheckName, CheckAnnotations, CheckWindow, CheckAge, CheckRego}

// weightSet are checks that held: bits in the order of policyChecks.
type weightSet uint8

// Weight is what a policy made of one piece of evidence.
type Weight struct {
	// Counts are the required authorities for which it counts, sorted: as a signature,
	// or as an attestation that is required. One signer counts for one of them at a time.
	Counts []string
	// Nearest says that it comes nearest to what is missing: it gave the denial its reason.
	Nearest bool

	held           weightSet
	failed, detail string
}

// Checks returns what the policy checked, and what came of each; nothing of what the
// verifier has rejected.
func (w Weight) Checks() []verifier.Check {
	var all []verifier.Check
	for i, name := range policyChecks {
		switch {
		case name == w.failed:
			all = append(all, verifier.Check{Name: name, Outcome: verifier.OutcomeFails, Detail: w.detail})
		case w.held&(1<<i) != 0:
			all = append(all, verifier.Check{Name: name, Outcome: verifier.OutcomeHolds})
		}
	}
	return all
}

// Failed returns why it does not count, or nothing.
func (w Weight) Failed() string { return w.detail }

func (w *Weight) holds(name string) { w.held |= 1 << slices.Index(policyChecks[:], name) }

func (w Weight) fails(name, detail string) Weight {
	w.failed, w.detail = name, clean(detail, maxDetail)
	return w
}

// Piece is a piece of evidence and what was made of it, as it stands in records. Its
// names are wire format.
type Piece struct {
	verifier.Written
	Counts  []string         `json:"counts,omitempty"`
	Nearest bool             `json:"nearest,omitempty"`
	Checks  []verifier.Check `json:"checks,omitempty"`
}

// Pieces returns the evidence of d as it is written; never nil.
func (d Decision) Pieces() []Piece {
	pieces := make([]Piece, 0, len(d.Evidence))
	for i, e := range d.Evidence {
		p := Piece{Written: e.Written(), Checks: e.Checks()}
		if i < len(d.Weights) {
			w := d.Weights[i]
			p.Counts, p.Nearest, p.Checks = w.Counts, w.Nearest, append(p.Checks, w.Checks()...)
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// weights says what p made of each piece of evidence, of which o is the outcome.
func (p *Policy) weights(suspended map[string]string, subject Subject, evidence []verifier.Evidence, judged judgements, o outcome, at time.Time) []Weight {
	nearest := o.nearest
	if o.reason == ReasonAttestationMissing || o.reason == ReasonRego {
		nearest = o.attested[o.unmet].nearest
	}
	all := make([]Weight, len(evidence))
	for i, e := range evidence {
		switch {
		case !e.Verified():
		case e.IsSignature():
			all[i] = p.weighSignature(suspended, subject, e, at)
		default:
			all[i] = p.weighAttested(suspended, e, i, judged, at)
		}
		all[i].Nearest = !o.allowed && i == nearest
	}
	return all
}

// required says of verified evidence whether an authority that r names has made it.
func (w Weight) required(r Require, suspended map[string]string, e verifier.Evidence) (Weight, []string) {
	by := signers(r.Of, suspended, e.Authorities())
	if len(by) == 0 {
		return w.fails(CheckAuthority, "by "+list(e.Authorities())+", and "+list(r.Of)+" is required"), nil
	}
	w.holds(CheckAuthority)
	return w, by
}

// weighSignature says what p makes of a signature that is verified.
func (p *Policy) weighSignature(suspended map[string]string, subject Subject, e verifier.Evidence, at time.Time) (w Weight) {
	if p.Require.AtLeast == 0 {
		return w
	}
	w, by := w.required(p.Require, suspended, e)
	if len(by) == 0 {
		return w
	}
	named := p.named(e.KeyID())
	if !nameHolds(named, subject, e.ClaimedName()) {
		return w.fails(CheckName, explainName(named, subject, e.ClaimedName()))
	}
	if named.SignedAs != Ignore {
		w.holds(CheckName)
	}
	if missingAnnotation(p, e) != "" {
		return w.fails(CheckAnnotations, explainAnnotation(p, e))
	}
	if len(p.Annotations) > 0 {
		w.holds(CheckAnnotations)
	}
	check, late := "", ""
	for _, name := range by {
		_, why := p.timely(e, name, at)
		if why == "" {
			w.Counts = append(w.Counts, name)
			continue
		}
		if check, late = CheckAge, why; p.ends(e, e.KeyID(), name, at) {
			check = CheckWindow
		}
	}
	if len(w.Counts) == 0 {
		return w.fails(check, "signed "+late)
	}
	slices.Sort(w.Counts)
	if p.readsTime() {
		w.holds(CheckAge)
	}
	for _, name := range w.Counts {
		if p.bounded(e, e.KeyID(), name) {
			w.holds(CheckWindow)
		}
	}
	return w
}

// ends reports whether a key's window or a certificate's end is why something does not count.
func (p *Policy) ends(e verifier.Evidence, keyID, authority string, at time.Time) bool {
	_, why := p.lasts(e, keyID, authority, at)
	return why != ""
}

// bounded reports whether a key counts at times only.
func (p *Policy) bounded(e verifier.Evidence, keyID, authority string) bool {
	_, windowed := p.windows[authority][keyID]
	return keyID != "" && windowed || !e.Until().IsZero()
}

// weighAttested says what p makes of an attestation that is verified, the evidence with
// this index: of several that p requires, for the first for which it counts, or else for
// the one to which it comes nearest.
func (p *Policy) weighAttested(suspended map[string]string, e verifier.Evidence, index int, judged judgements, at time.Time) (best Weight) {
	if len(p.Attestations) == 0 {
		w, by := best.required(p.Require, suspended, e)
		if p.Require.AtLeast == 0 || len(by) == 0 {
			return Weight{}
		}
		return w.fails(CheckKind, "an attestation is no signature, and none is asked for")
	}
	reached := attestedNearness(-1)
	for i, wanted := range p.Attestations {
		near, ways := weighAttestation(p, wanted, suspended, e, at)
		w := Weight{}
		switch near {
		case attestedByWhom, attestedByOther:
			w, _ = w.required(wanted.Require, suspended, e)
		case attestedElse:
			w.holds(CheckAuthority)
			w = w.fails(CheckKind, "it is of "+predicateName(e.PredicateType())+", not of "+predicateName(wanted.PredicateType))
		case attestedLate:
			w.holds(CheckAuthority)
			w.holds(CheckKind)
			w = w.fails(CheckWindow, "the key or certificate did not count when it was made")
		default:
			w.holds(CheckAuthority)
			w.holds(CheckKind)
			denials, asked := judged[judgement{i, index}]
			switch {
			case wanted.Rego != nil && len(denials) > 0:
				w = w.fails(CheckRego, reasonsText(denials))
			case wanted.Rego != nil && !asked: // it was not needed any more
			default:
				if wanted.Rego != nil {
					w.holds(CheckRego)
				}
				for _, way := range ways {
					if !slices.Contains(w.Counts, way.authority) {
						w.Counts = append(w.Counts, way.authority)
					}
				}
				slices.Sort(w.Counts)
				return w
			}
		}
		if near > reached {
			best, reached = w, near
		}
	}
	return best
}

func predicateName(uri string) string { return clean(envelope.PredicateName(uri), maxClaimed) }

// oneFrom returns text on one line from its parts that are not empty.
func oneFrom(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}
