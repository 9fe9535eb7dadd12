package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
)

// Remedy is one thing that would mend a denial, or put a rule where there is none: what
// to do and, where there is one, the command to run or the line to write. Where several
// stand in a list, each is a way of its own, but for one that says And. None makes
// anything count without saying whom one then trusts.
type Remedy struct {
	Do      string `json:"do"`                // for a person, on one line
	Command string `json:"command,omitempty"` // for a shell; a name in capitals is to be filled in
	Config  string `json:"config,omitempty"`  // YAML, of the part of the configuration that Do names
	And     bool   `json:"and,omitempty"`     // it belongs to the one before it
}

// line is r on one line.
func (r Remedy) line() string {
	return oneFrom(r.Do, r.Command+strings.TrimPrefix(r.Config, "- "))
}

// hintOf is what clients are told: all of it on one line.
func hintOf(remedies []Remedy) string {
	var b strings.Builder
	for i, r := range remedies {
		switch {
		case i > 0 && r.And:
			b.WriteString("; and ")
		case i > 0:
			b.WriteString("; or, ")
		}
		b.WriteString(r.line())
	}
	return b.String()
}

// remedies are what would mend a denial.
func (x denial) remedies() []Remedy {
	p := x.policy
	if x.outcome.reason == ReasonAttestationMissing || x.outcome.reason == ReasonRego {
		return []Remedy{x.attest()}
	}
	if x.outcome.near == untimely && strings.Contains(x.outcome.why, "less than") {
		return []Remedy{{Do: "wait until then"}}
	}
	sign := []Remedy{x.sign()}
	switch {
	case x.outcome.reason == ReasonIdentityMismatch && (p.SignedAs == IfPresent || p.SignedAs == Repository):
		c, ok := parseClaim(x.evidence[x.outcome.nearest].ClaimedName())
		if !ok {
			return sign
		}
		return append(sign, Remedy{
			Do:     fmt.Sprintf("when %s holds trusted copies of %s, add to policy %s", x.subject.Repository, c.repository, clean(p.Name, maxLabel)),
			Config: fmt.Sprintf("signedAs: {prefix: %s, signedPrefix: %s}", x.subject.Repository, c.repository),
		})
	case x.outcome.reason == ReasonUntrusted && p.Require.AtLeast == 1:
		return append(sign, x.trust()...)
	}
	return sign
}

// sign is the command that makes the signature that is missing. It is cosign's where a
// certified person signs, who is sent to a browser; and where one with a proven time is
// there and too old, for vidimus sign keeps that one and adds none.
func (x denial) sign() Remedy {
	p, subject := x.policy, x.subject
	var missing, people []string
	for _, name := range p.Require.Of {
		if slices.Contains(x.outcome.signed, name) {
			continue
		}
		missing = append(missing, name)
		if who := p.certified[name]; who != "" {
			people = append(people, clean(name+" ("+who+")", maxDetail))
		}
	}
	certified := len(people) > 0 && len(people) == len(missing)
	do, command := "with a key of "+list(missing), []string{"vidimus", "sign", "--key", "cosign.key"}
	switch {
	case certified:
		do, command = "have it signed by "+strings.Join(people, " or "), []string{"cosign", "sign", "--yes"}
	case x.outcome.near == untimely && strings.Contains(x.outcome.why, "with a key that counts"):
		do += " that counts now"
	case p.readsTime():
		do += ", and a time that the trust root proves"
		if strings.Contains(x.outcome.why, "longer ago than") {
			command = []string{"cosign", "sign", "--yes", "--key", "cosign.key"}
		} else {
			command = append(command, x.proof(missing)...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		command = append(command, "-a", quote(name+"="+p.Annotations[name]))
	}
	if p.SignedAs == Exact && subject.Tag != "" {
		command = append(command, "--sign-container-identity", quote(subject.Repository+":"+subject.Tag))
	}
	if original, ok := p.original(subject); ok {
		command = append(command, "--sign-container-identity", quote(original))
	}
	command = append(command, quote(subject.reachable()+"@"+subject.Digest.String()))
	return Remedy{Do: do, Command: strings.Join(command, " ")}
}

// proof are the flags of vidimus sign that have a time proven by what is trusted for
// these authorities: by the log that it knows without being told, or by a timestamp.
func (x denial) proof(names []string) []string {
	for _, a := range x.set.authorities {
		if slices.Contains(names, a.Name) && a.Root != nil && a.Root.HasLogs() {
			return []string{"--tlog-upload"}
		}
	}
	return []string{"--timestamp-server-url", "URL"}
}

// attest is the command that makes the attestation that is missing.
func (x denial) attest() Remedy {
	p, wanted := x.policy, x.policy.Attestations[x.outcome.unmet]
	rest := fmt.Sprintf("--type %s --predicate FILE %s", quote(wanted.PredicateType), quote(x.subject.reachable()+"@"+x.subject.Digest.String()))
	var people []string
	for _, name := range wanted.Require.Of {
		if who := p.certified[name]; who != "" {
			people = append(people, clean(name+" ("+who+")", maxDetail))
		}
	}
	if len(people) == len(wanted.Require.Of) {
		return Remedy{Do: "have it attested by " + strings.Join(people, " or "), Command: "cosign attest --yes " + rest}
	}
	return Remedy{Do: "with a key of " + list(wanted.Require.Of), Command: "vidimus attest --key cosign.key " + rest}
}

// trust is what would make a signature count that is there already, by somebody whom
// the policy does not ask for. It says whom one then trusts.
func (x denial) trust() []Remedy {
	p := x.policy
	for _, e := range x.evidence {
		if !e.Verified() || !e.IsSignature() {
			continue
		}
		for _, name := range e.Authorities() {
			more := *p
			more.Require = Require{AtLeast: 1, Of: append(slices.Clone(p.Require.Of), name)}
			if !slices.Contains(p.Require.Of, name) && decide(&more, nil, x.subject, x.evidence, nil, x.at).allowed {
				return []Remedy{{
					Do:     "if " + list([]string{name}) + ", who has signed it, may vouch here, write in policy " + clean(p.Name, maxLabel),
					Config: "require: " + requireText(more.Require.Of),
				}}
			}
		}
	}
	if claimed, ok := provenClaim(x.evidence); ok {
		name := x.set.unused("signer")
		return []Remedy{
			{Do: "if whoever signed it may vouch, add to authorities", Config: name + ": " + identityConfig(claimed)},
			{Do: "write in policy " + clean(p.Name, maxLabel), Config: "require: " + requireText(append(slices.Clone(p.Require.Of), name)), And: true},
		}
	}
	return x.set.proving(x.evidence)
}

// proving is how claims of who has signed become proven, where nothing proves any.
func (s *Set) proving(evidence []verifier.Evidence) []Remedy {
	for _, e := range evidence {
		if c, ok := e.Claimed(); ok && c.Subject != "" && !c.Proven && len(s.roots) == 0 {
			return []Remedy{{Do: "to have it proven who has signed it, if that was Sigstore's public instance, write in the configuration", Config: "trustedRoot: sigstore"}}
		}
	}
	return nil
}

// requireText is a require in YAML.
func requireText(names []string) string {
	if len(names) == 1 {
		return yamlText(names[0])
	}
	quoted := make([]string, 0, len(names))
	for _, name := range names {
		quoted = append(quoted, yamlText(name))
	}
	return "{any: [" + strings.Join(quoted, ", ") + "]}"
}

// unused is a name for an authority that none of those known has.
func (s *Set) unused(name string) string {
	for i, known := 2, s.names(); slices.Contains(known, name); i++ {
		name = fmt.Sprintf("%s%d", strings.TrimRight(name, "0123456789"), i)
	}
	return name
}

// provenClaim returns the first signer of the image who is proven, and is none of the
// authorities.
func provenClaim(evidence []verifier.Evidence) (verifier.Claimed, bool) {
	for _, e := range evidence {
		if c, ok := e.Claimed(); ok && c.Proven && c.PredicateType == "" && writable(c) {
			return c, true
		}
	}
	return verifier.Claimed{}, false
}

// writable reports whether the configuration can name just this signer: there, a star or
// a brace would stand for others as well.
func writable(c verifier.Claimed) bool {
	id, err := verifier.ParseIdentity(c.Issuer, c.Subject, "")
	return err == nil && c.Issuer != "" && !id.Captures() &&
		!strings.ContainsFunc(c.Issuer+c.Subject, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*{}", r) })
}

var githubSubject = regexp.MustCompile(`^https://github\.com/([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)/\.github/workflows/([A-Za-z0-9._/-]+)@(refs/[A-Za-z0-9._/-]+)$`)

const githubIssuer = "https://token.actions.githubusercontent.com"

// identityConfig is how the configuration names exactly this signer.
func identityConfig(c verifier.Claimed) string {
	if m := githubSubject.FindStringSubmatch(c.Subject); m != nil && c.Issuer == githubIssuer {
		return fmt.Sprintf("{github: {repository: %s, workflow: %s, ref: %s}}", yamlText(m[1]), yamlText(m[2]), yamlText(m[3]))
	}
	return fmt.Sprintf("{keyless: {issuer: %s, subject: %s}}", yamlText(c.Issuer), yamlText(c.Subject))
}

var plainYAML = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._/-]*$`)

// yamlText is text as a YAML scalar inside of a flow collection.
func yamlText(text string) string {
	switch strings.ToLower(text) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
	default:
		if plainYAML.MatchString(text) {
			return text
		}
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b) // a JSON string is a YAML one
	encoder.SetEscapeHTML(false)
	if encoder.Encode(text) != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// suggest is a policy for a repository that has none, by what evidence there is. It asks
// for who has signed already, where that is proven.
func (s *Set) suggest(d Decision) []Remedy {
	line := func(require string) string {
		return fmt.Sprintf("- {match: %s, require: %s}", quoteYAML(d.Subject.Repository), require)
	}
	const add = "add to policies"
	if len(d.Satisfied) > 0 {
		return []Remedy{{Do: add, Config: line(requireText(d.Satisfied))}}
	}
	known := s.names()
	if claimed, ok := provenClaim(d.Evidence); ok {
		name := s.unused("signer")
		return []Remedy{
			{Do: add, Config: line(name)},
			{Do: "add to authorities, if whoever signed it may vouch", Config: name + ": " + identityConfig(claimed), And: true},
		}
	}
	seen := s.proving(d.Evidence)
	switch len(known) {
	case 0:
		return append([]Remedy{
			{Do: add, Config: line("release")},
			{Do: "add to authorities, with your public key", Config: "release: {keys: [cosign.pub]}", And: true},
			{Do: "where there is none yet, make one", Command: "vidimus generate-key-pair", And: true},
		}, seen...)
	case 1:
		return append([]Remedy{{Do: add, Config: line(yamlText(known[0]))}}, seen...)
	}
	return append([]Remedy{{Do: add + ", with AUTHORITY one of " + list(known), Config: line("AUTHORITY")}}, seen...)
}

// quoteYAML is a repository's name, which a test or a person reads, always in quotes.
func quoteYAML(repository string) string { return fmt.Sprintf("%q", clean(repository, maxName)) }

// except is what admits one digest in spite of a policy that denies.
func except(d *Decision) []Remedy {
	const days = 7
	return []Remedy{{
		Do: "an exception in the configuration can admit a digest until a day; add to exceptions, with why in place of WHY",
		Config: fmt.Sprintf("- {match: %s, digests: [%q], until: %s, reason: WHY}",
			quoteYAML(d.Subject.Repository), d.Subject.Digest.String(), d.Time.AddDate(0, 0, days).UTC().Format(time.DateOnly)),
	}}
}

// setting is an error that says what of the configuration would mend it.
type setting interface {
	error
	Setting() (where, config string)
}

// readable is what would let evidence be read that could not be.
func readable(subject Subject, err error) []Remedy {
	upstream, _, _ := strings.Cut(subject.Repository, "/")
	line := func(members string) string { return yamlText(clean(upstream, maxValue)) + ": {" + members + "}" }
	if s, ok := errors.AsType[setting](err); ok {
		if where, config := s.Setting(); config != "" {
			return []Remedy{{Do: clean("if that is where it is to lead, write in "+where, maxDetail), Config: clean(config, maxDetail)}}
		}
	}
	if f, ok := errors.AsType[fault](err); ok {
		switch f.Kind() { // the words of proxy.Fault
		case "unauthorized", "forbidden", "rate-limited":
			return []Remedy{{Do: "with credentials that may read it, write in upstreams", Config: line("username: USER, passwordFile: FILE")}}
		case "tls":
			return []Remedy{{Do: "if the registry's certificate is by an authority of your own, write in upstreams", Config: line("ca: FILE")}}
		}
	}
	return nil
}
