package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"vidimus/verifier"
)

// How much of one piece of text reaches a sentence, in characters.
const (
	maxClaimed  = 120 // a claimed name
	maxValue    = 60  // an annotation's value
	maxDetail   = 400 // the verifier's or an upstream's words
	maxSentence = 2000
)

// explainDenial says in one line why evidence does not satisfy p.
func explainDenial(p *Policy, subject Subject, evidence []verifier.Evidence, o outcome) string {
	near := explainNearest(p, subject, evidence, o)
	if near != "" {
		near = "; nearest: " + near
	}
	switch o.reason {
	case ReasonUnsigned:
		return "not signed; " + needs(p.Require)
	case ReasonThreshold:
		return fmt.Sprintf("signed by %s, but %s%s", list(o.signed), needs(p.Require), near)
	}
	if len(p.Require.Of) == 1 {
		return fmt.Sprintf("signed, but not by %s%s", list(p.Require.Of), near)
	}
	return fmt.Sprintf("signed, but by none of %s%s", list(p.Require.Of), near)
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
// no more to it than that nobody required has made it.
func explainNearest(p *Policy, subject Subject, evidence []verifier.Evidence, o outcome) string {
	if o.nearest < 0 {
		return ""
	}
	e := evidence[o.nearest]
	key := "key " + shortKey(e.KeyID())
	if by := e.Authorities(); len(by) > 0 {
		key = fmt.Sprintf("%s (%s)", key, list(by))
	}
	switch o.near {
	case stranger:
		if e.Verified() {
			return key + " signed it"
		}
	case unreadable:
		if e.KeyID() != "" {
			return fmt.Sprintf("%s signed a payload that is not valid: %s", key, clean(e.Detail(), maxDetail))
		}
		return clean(e.Detail(), maxDetail)
	case astray:
		if e.ClaimedName() != "" {
			return fmt.Sprintf("%s signed another digest, of %s", key, clean(e.ClaimedName(), maxClaimed))
		}
		return key + " signed another digest"
	case misnamed:
		return key + " " + explainName(p, subject, e.ClaimedName())
	case unlabelled:
		return key + " " + explainAnnotation(p, e)
	}
	return ""
}

func explainName(p *Policy, subject Subject, claimed string) string {
	if claimed == "" {
		return "signed it without a name"
	}
	text := "signed it for " + clean(claimed, maxClaimed)
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
		return "signed it without annotation " + wanted
	}
	text, _ := annotationText(value)
	return fmt.Sprintf("signed it with annotation %s, not %s", pair(name, text), wanted)
}

func pair(name, value string) string {
	return clean(name, maxValue) + "=" + clean(value, maxValue)
}

// shortKey is enough of a key's id to find it.
func shortKey(id string) string {
	const shown = 8
	if len(id) <= shown {
		return clean(id, shown)
	}
	return clean(id[:shown], shown) + "…"
}

// explainFailures says which sources could not be read.
func explainFailures(failures []verifier.SourceFailure) string {
	var parts []string
	for _, f := range failures[:min(len(failures), 3)] {
		parts = append(parts, fmt.Sprintf("%s: %s", clean(f.Source, maxValue), clean(f.Err.Error(), maxDetail)))
	}
	return "could not look for signatures: " + strings.Join(parts, "; ")
}

// hintDenial says what would mend a denial for want of evidence.
func hintDenial(p *Policy, subject Subject, evidence []verifier.Evidence, o outcome) string {
	sign := hintSign(p, subject, o)
	if o.reason != ReasonIdentityMismatch || p.SignedAs != IfPresent && p.SignedAs != Repository {
		return sign
	}
	c, ok := parseClaim(evidence[o.nearest].ClaimedName())
	if !ok {
		return sign
	}
	return fmt.Sprintf("%s; or, when %s holds trusted copies of %s, add to policy %s: signedAs: {prefix: %s, signedPrefix: %s}",
		sign, subject.Repository, c.repository, clean(p.Name, maxLabel), subject.Repository, c.repository)
}

// hintSign is the command that makes the signature that is missing.
func hintSign(p *Policy, subject Subject, o outcome) string {
	var missing []string
	for _, name := range p.Require.Of {
		if !slices.Contains(o.signed, name) {
			missing = append(missing, name)
		}
	}
	command := []string{"vidimus", "sign", "--key", "KEY"}
	for _, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		command = append(command, "-a", quote(name+"="+p.Annotations[name]))
	}
	if p.SignedAs == Exact && subject.Tag != "" {
		command = append(command, "--sign-container-identity", quote(subject.Repository+":"+subject.Tag))
	}
	command = append(command, quote(subject.reachable()+"@"+subject.Digest.String()))
	return fmt.Sprintf("with a key of %s: %s", list(missing), strings.Join(command, " "))
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
