package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
)

// How much of one piece of text reaches a sentence, in characters.
const (
	maxClaimed  = 120 // a claimed name
	maxValue    = 60  // an annotation's value
	maxDetail   = 400 // the verifier's or an upstream's words
	maxReason   = 200 // why nobody could tell
	maxSentence = 2000
)

// denial is a denial for want of evidence, and all that it can be told from.
type denial struct {
	policy   *Policy
	subject  Subject
	evidence []verifier.Evidence
	outcome  outcome
	set      *Set
	at       time.Time
}

// explain says in one line why the evidence does not satisfy the policy: who
// has not signed; or, when the nearest piece is by an authority that is
// required, what it signed instead.
func (x denial) explain() string {
	switch x.outcome.reason {
	case ReasonAttestationMissing, ReasonRego:
		return x.explainAttestation()
	case ReasonUnsigned:
		return "not signed; " + needs(x.policy.Require)
	case ReasonThreshold:
		return fmt.Sprintf("signed by %s, but %s%s", list(x.outcome.signed), needs(x.policy.Require), x.explainNearest())
	}
	if x.outcome.near == unreadable && x.evidence[x.outcome.nearest].Signer() == "" {
		return "there is a signature that cannot be checked: " + clean(x.evidence[x.outcome.nearest].Detail(), maxDetail) + "; " + needs(x.policy.Require)
	}
	if by := x.nearestBy(true); len(by) > 0 {
		if x.outcome.near == attested {
			return fmt.Sprintf("not signed, only attested by %s (%s), and an attestation is no signature; %s",
				list(by), clean(x.evidence[x.outcome.nearest].PredicateType(), maxClaimed), needs(x.policy.Require))
		}
		if x.outcome.near == astray {
			return list(by) + " " + x.miss()
		}
		return fmt.Sprintf("signed by %s, but %s", list(by), x.miss())
	}
	if len(x.policy.Require.Of) == 1 {
		return fmt.Sprintf("signed, but not by %s%s", list(x.policy.Require.Of), x.explainNearest())
	}
	return fmt.Sprintf("signed, but by none of %s%s", list(x.policy.Require.Of), x.explainNearest())
}

// nearestBy returns the authorities that hold the key or identity of the nearest evidence.
func (x denial) nearestBy(required bool) []string {
	return slices.DeleteFunc(x.evidence[x.outcome.nearest].SignedBy(), func(name string) bool {
		return required && !slices.Contains(x.policy.Require.Of, name)
	})
}

// needs says whose signatures r asks for.
func needs(r Require) string {
	switch {
	case len(r.Of) == 1:
		return fmt.Sprintf("a signature by %s is needed", list(r.Of))
	case r.AtLeast == 1:
		return fmt.Sprintf("a signature by one of %s is needed", list(r.Of))
	case r.AtLeast == len(r.Of):
		return fmt.Sprintf("signatures by all of %s are needed", list(r.Of))
	}
	return fmt.Sprintf("signatures by %d of %s are needed", r.AtLeast, list(r.Of))
}

// explainNearest says how the nearest evidence misses, or nothing when there is
// no more to it than that a key of nobody's has made it.
func (x denial) explainNearest() string {
	if x.outcome.nearest < 0 {
		return ""
	}
	e := x.evidence[x.outcome.nearest]
	if e.Signer() == "" {
		if x.outcome.near == unreadable || x.outcome.near == certified {
			return "; nearest: " + clean(e.Detail(), maxDetail)
		}
		return ""
	}
	who := "; nearest: " + signerText(e)
	if by := x.nearestBy(false); len(by) > 0 {
		who += " (" + list(by) + ")"
	}
	switch x.outcome.near {
	case attested:
		return who + " attested it, which is no signature"
	case astray:
		return who + " " + x.miss()
	case unreadable:
		return who + " signed it, but " + x.miss()
	}
	return strings.TrimSuffix(who+" signed it "+x.miss(), " ")
}

// miss says, after "signed it", how the nearest evidence misses, and nothing
// when it is by nobody required; astray, it says what was signed.
func (x denial) miss() string {
	e := x.evidence[x.outcome.nearest]
	switch x.outcome.near {
	case unreadable:
		return "the payload is not valid: " + clean(e.Detail(), maxDetail)
	case astray:
		if e.ClaimedName() != "" {
			return "signed another digest, of " + clean(e.ClaimedName(), maxClaimed)
		}
		return "signed another digest"
	case misnamed:
		return explainName(x.policy, x.subject, e.ClaimedName())
	case unlabelled:
		return explainAnnotation(x.policy, e)
	case untimely:
		return x.outcome.why
	}
	return ""
}

func explainName(p *Policy, subject Subject, claimed string) string {
	if claimed == "" {
		return "without a name"
	}
	text := "for " + clean(claimed, maxClaimed)
	c, ok := parseClaim(claimed)
	if ok && p.SignedAs == Exact && namesRepository(p, subject, c.repository) {
		if subject.Tag == "" {
			return text + ", not for this digest"
		}
		return text + ", not for tag " + clean(subject.Tag, maxClaimed)
	}
	return text
}

func explainAnnotation(p *Policy, e verifier.Evidence) string {
	name := missingAnnotation(p, e)
	wanted := pair(name, p.Annotations[name])
	value, ok := e.Annotations()[name]
	if !ok {
		return "without annotation " + wanted
	}
	text, _ := annotationText(value)
	return fmt.Sprintf("with annotation %s, not %s", pair(name, text), wanted)
}

func pair(name, value string) string {
	return clean(name, maxValue) + "=" + clean(value, maxValue)
}

// signerText names who signed e: a key, or whom a certificate names.
func signerText(e verifier.Evidence) string {
	if _, subject := e.Identity(); e.KeyID() == "" {
		return clean(subject, maxClaimed)
	}
	return "key " + shortKey(e.KeyID())
}

// shortKey is enough of a key's id to find it.
func shortKey(id string) string {
	const shown = 8
	if len(id) <= shown {
		return clean(id, shown)
	}
	return clean(id[:shown], shown) + "…"
}

// reachable is the repository under a name that a command line can dial: an
// upstream may be called local, its host is an alias then.
func (s Subject) reachable() string {
	registry, _, _ := strings.Cut(s.Repository, "/")
	if registry == "localhost" || strings.ContainsAny(registry, ".:") || len(s.Aliases) == 0 {
		return s.Repository
	}
	return s.Aliases[0]
}

// quote makes one word of text for a shell.
func quote(text string) string {
	safe := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("=/:@._-,+%", r)
	}
	text = clean(text, maxName)
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !safe(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// Sentence is the decision about image, named as the client named it, in one
// line for a person.
func (d Decision) Sentence(image string) string {
	var b strings.Builder
	switch {
	case d.Allowed:
		b.WriteString("Vidimus allowed ")
	case d.Reason == ReasonInconclusive:
		b.WriteString("Vidimus could not decide about ")
	case d.Served():
		b.WriteString("Vidimus would refuse ")
	default:
		b.WriteString("Vidimus refused ")
	}
	b.WriteString(clean(image, maxName))
	if d.Policy != "" {
		fmt.Fprintf(&b, " (policy %s)", clean(d.Policy, maxLabel))
	}
	b.WriteString(": ")
	b.WriteString(clean(d.Explained, maxSentence))
	b.WriteString(".")
	if message := oneLine(d.Message, maxText); message != "" && !d.Allowed && d.Reason != ReasonInconclusive {
		b.WriteString(" " + message)
	}
	if d.ID != "" {
		fmt.Fprintf(&b, " [id %s]", d.ID)
	}
	return b.String()
}
