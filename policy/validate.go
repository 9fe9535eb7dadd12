package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// Fault is one thing that is wrong with a Config.
type Fault struct {
	// Where names the entry as the configuration does: policies[2],
	// authorities.release, exceptions[0], revoked[3], enforcement.
	Where   string
	Message string // what is wrong, and what to do about it
}

func (f *Fault) Error() string { return f.Where + ": " + f.Message }

// maxException is how far ahead an exception may reach.
const maxException = 30 * 24 * time.Hour

// Limits of what is repeated in every answer and record.
const (
	maxLabel = 128  // bytes of a policy's or authority's name
	maxText  = 1000 // bytes of a reason or message
)

// validation collects the faults of one Config.
type validation struct {
	config      Config
	authorities map[string]verifier.Authority
	faults      []error
}

func validate(config Config) error {
	v := validation{config: config, authorities: make(map[string]verifier.Authority)}
	if !v.known(config.Enforcement) {
		v.fault("enforcement", "is none of observe, warn and enforce")
	}
	for _, a := range config.Authorities {
		v.authority(a)
	}
	names := make(map[string]int)
	for i, p := range config.Policies {
		v.policy(i, p)
		name := policyName(p)
		if first, taken := names[name]; taken && name != "" {
			v.fault(policyAt(i), "is called %q as policies[%d] is: give one of them another name", name, first)
		} else {
			names[name] = i
		}
	}
	now := time.Now
	if config.Now != nil {
		now = config.Now
	}
	for i, e := range config.Exceptions {
		v.exception(fmt.Sprintf("exceptions[%d]", i), e, now())
	}
	for i, digest := range config.Revoked {
		v.digest(fmt.Sprintf("revoked[%d]", i), digest)
	}
	return errors.Join(v.faults...)
}

func (v *validation) fault(where, format string, args ...any) {
	v.faults = append(v.faults, &Fault{Where: where, Message: fmt.Sprintf(format, args...)})
}

func policyAt(i int) string { return fmt.Sprintf("policies[%d]", i) }

func (v *validation) known(e Enforcement) bool { return Enforce <= e && e <= Observe }

func (v *validation) authority(a verifier.Authority) {
	where := "authorities." + clean(a.Name, maxLabel)
	v.label(where, "an authority", a.Name)
	if a.Name == "" {
		v.fault(where, "has no name: give it one")
	}
	if _, taken := v.authorities[a.Name]; taken {
		v.fault(where, "stands twice: put all its keys into one authority")
	}
	if a.Suspended == "" {
		v.vouching(where, a)
	}
	v.authorities[a.Name] = a
}

func (v *validation) policy(i int, p Policy) {
	where := policyAt(i)
	v.label(where, "a policy", p.Name)
	v.text(where, "message", p.Message)
	if len(p.Match.include) == 0 {
		v.fault(where, "has no match: write which repositories it is about")
	}
	requires := p.Require.AtLeast != 0 || len(p.Require.Of) > 0
	v.effect(where, p, requires)
	v.push(where, p)
	v.attestations(where, p)
	if requires {
		v.require(where, "require", p.Require)
		v.signedAs(where, p)
		v.annotations(where, p.Annotations)
		v.identities(where, p)
		v.ages(where, p)
	} else if p.readsTime() {
		v.fault(where, "has maxAge or minAge, which only a policy with require reads: remove them, or require a signature")
	} else if p.SignedAs != IfPresent || p.Remap != (Remap{}) || len(p.Annotations) > 0 {
		v.fault(where, "has signedAs or annotations, which only a policy with require reads: remove them, or require a signature")
	}
	if p.Enforcement == nil || !v.known(v.config.Enforcement) {
		return
	}
	if !v.known(*p.Enforcement) {
		v.fault(where, "enforcement is none of observe, warn and enforce")
	} else if *p.Enforcement < v.config.Enforcement {
		v.fault(where, "enforcement %s is higher than the ceiling %s: remove it, or raise the ceiling and lower the other policies",
			*p.Enforcement, v.config.Enforcement)
	}
}

// effect makes sure that a policy does one thing with what it matches.
func (v *validation) effect(where string, p Policy, requires bool) {
	var effects []string
	for _, e := range []struct {
		is   bool
		name string
	}{
		{requires, "require"}, {!requires && len(p.Attestations) > 0, "attestations"},
		{p.AllowUnverified, "allow: unverified"}, {p.Deny != "", "deny"},
	} {
		if e.is {
			effects = append(effects, e.name)
		}
	}
	switch {
	case len(effects) == 0:
		v.fault(where, "says nothing of what it matches: write require, attestations, allow: unverified or deny")
	case len(effects) > 1:
		v.fault(where, "has %s: keep one", strings.Join(effects, " and "))
	}
	v.text(where, "deny", p.Deny)
}

// attestations checks those that p requires, and that its Rego has something to deny.
func (v *validation) attestations(where string, p Policy) {
	for i, a := range p.Attestations {
		what := fmt.Sprintf("attestations[%d] ", i)
		if a.PredicateType == "" || a.PredicateType == envelope.PredicateCosignSign {
			v.fault(where, "%shas no predicate type of an attestation: write an alias like slsaprovenance1, or a URI", what)
		}
		v.text(where, what+"predicateType", a.PredicateType)
		v.require(where, what+"require", a.Require)
	}
	if p.Rego != nil && (p.AllowUnverified || p.Deny != "") {
		v.fault(where, "has rego, which only denies what a signature or an attestation allows: write require or attestations in place of the other, or remove it")
	}
}

func (v *validation) require(where, what string, r Require) {
	switch {
	case len(r.Of) == 0:
		v.fault(where, "%s names no authority: name one", what)
	case r.AtLeast < 1:
		v.fault(where, "%s atLeast is %d: write at least 1, or allow: unverified", what, r.AtLeast)
	case r.AtLeast > len(r.Of):
		v.fault(where, "%s atLeast is %d, of %d authorities: nothing could meet it; name more or ask for fewer", what, r.AtLeast, len(r.Of))
	}
	holders := make(map[string]string) // by key: the authority in Of
	for i, name := range r.Of {
		if slices.Contains(r.Of[:i], name) {
			v.fault(where, "%s names %s twice: an authority counts once", what, clean(name, maxLabel))
			continue
		}
		a, ok := v.authorities[name]
		if !ok {
			v.fault(where, "%s names %s, which is no authority: %s", what, clean(name, maxLabel), v.suggestion())
		}
		for _, key := range a.Keys {
			if other, taken := holders[key.ID()]; taken && other != name {
				v.fault(where, "%s counts distinct signers, and key %s is both %s's and %s's: take it from one of them", what, shortKey(key.ID()), other, name)
			}
			holders[key.ID()] = name
		}
	}
}

// suggestion says which authorities there are.
func (v *validation) suggestion() string {
	var names []string
	for _, a := range v.config.Authorities {
		names = append(names, a.Name)
	}
	if len(names) == 0 {
		return "there are none; add it to authorities"
	}
	return "add it to authorities, or write one of " + list(names)
}

func (v *validation) signedAs(where string, p Policy) {
	switch {
	case p.SignedAs < IfPresent || p.SignedAs > Remapped:
		v.fault(where, "signedAs is none of ignore, ifPresent, repository, exact and {prefix, signedPrefix}")
	case p.SignedAs != Remapped && p.Remap != (Remap{}):
		v.fault(where, "signedAs has a prefix beside another form: keep one")
	case p.SignedAs == Remapped:
		v.prefix(where, "prefix", p.Remap.Prefix)
		v.prefix(where, "signedPrefix", p.Remap.SignedPrefix)
		v.overlap(where, p)
	}
}

// overlap makes sure that the prefix is in front of something.
func (v *validation) overlap(where string, p Policy) {
	var under Match
	for _, text := range []string{p.Remap.Prefix, p.Remap.Prefix + "/**"} {
		if m, err := ParseMatch([]string{text}); err == nil {
			under.include = append(under.include, m.include...)
		}
	}
	steps := searchBound
	_, outcome := witness([]Match{under, p.Match}, nil, &steps)
	if outcome == searchEmpty && len(under.include) > 0 && len(p.Match.include) > 0 {
		v.fault(where, "signedAs prefix %s is in front of nothing that the policy matches: write the first components of its match", clean(p.Remap.Prefix, maxLabel))
	}
}

// prefix makes sure that names can be made with a prefix.
func (v *validation) prefix(where, field, prefix string) {
	const rest = "/a/a" // makes a name of an upstream, with components or without
	if !isCanonical(prefix + rest) {
		v.fault(where, "signedAs %s %q is not the beginning of a repository: write a registry with or without components, like ghcr.io/acme", field, clean(prefix, maxLabel))
	}
}

func (v *validation) annotations(where string, annotations map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if name == "" {
			v.fault(where, "annotations has an empty name: name what must be signed")
		}
		v.text(where, "annotation "+clean(name, 64), name+annotations[name])
	}
}

func (v *validation) exception(where string, e Exception, now time.Time) {
	if len(e.Match.include) == 0 {
		v.fault(where, "has no match: write which repositories it is about")
	}
	if len(e.Digests) == 0 {
		v.fault(where, "has no digests: list the manifests that it admits")
	}
	for _, digest := range e.Digests {
		v.digest(where, digest)
	}
	if strings.TrimSpace(e.Reason) == "" {
		v.fault(where, "has no reason: write why it is there, and who knows")
	}
	v.text(where, "reason", e.Reason)
	switch latest := now.Add(maxException); {
	case e.Until.IsZero():
		v.fault(where, "has no until: write the day it ends, %s at the latest", latest.Format(time.DateOnly))
	case e.Until.After(latest):
		v.fault(where, "ends on %s, more than 30 days ahead: write %s at the latest", e.Until.Format(time.DateOnly), latest.Format(time.DateOnly))
	}
}

func (v *validation) digest(where string, digest v1.Hash) {
	parsed, err := v1.NewHash(digest.String())
	if err != nil || parsed != digest {
		v.fault(where, "%q is not a digest that content can have: write sha256: and 64 lower-case hex digits", clean(digest.String(), 100))
	}
}

// label checks a name that stands in metrics and in sentences.
func (v *validation) label(where, what, name string) {
	if len(name) > maxLabel {
		v.fault(where, "%s's name has more than %d bytes: shorten it", what, maxLabel)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		v.fault(where, "%s's name has characters that cannot be printed: remove them", what)
	}
}

func (v *validation) text(where, field, text string) {
	if len(text) > maxText {
		v.fault(where, "%s has more than %d bytes: shorten it, every answer repeats it", field, maxText)
	}
}
