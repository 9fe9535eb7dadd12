package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxPassed is how many policies that do not match a trace shows.
const maxPassed = 100

// Step is one policy that a Set was asked on the way to the one that decides.
type Step struct {
	Policy  string   `json:"policy"` // name; empty in the last step when no policy matches
	Match   []string `json:"match"`  // as written
	Matches bool     `json:"matches"`
	// Rule says in words what the policy does with what it matches.
	Rule        string      `json:"rule"`
	Enforcement Enforcement `json:"enforcement"` // the effective one
	// Omitted is how many policies, none of which matches, stand before this
	// one and are left out. Only the last step has any.
	Omitted int `json:"omitted,omitempty"`
}

// Trace returns, in order, the policies up to and including the first that
// matches repository, which is canonical. The last step is always what decides:
// when no policy matches, one without a name that denies. Of those before it
// the first 100 are returned.
func (e *Evaluator) Trace(repository string) []Step { return e.set.trace(repository) }

func (s *Set) trace(repository string) []Step {
	at := s.first(repository)
	passed := at
	if at < 0 {
		passed = len(s.policies)
	}
	steps := make([]Step, 0, min(passed, maxPassed)+1)
	for i := range s.policies[:min(passed, maxPassed)] {
		steps = append(steps, s.policies[i].step())
	}
	last := Step{Match: []string{}, Rule: "no policy matches: denied", Enforcement: s.ceiling}
	if at >= 0 {
		last = s.policies[at].step()
		last.Matches = true
	}
	last.Omitted = max(0, passed-maxPassed)
	return append(steps, last)
}

// step is p as one that does not match. p is of a Set.
func (p *Policy) step() Step {
	return Step{Policy: p.Name, Match: p.Match.Patterns(), Rule: p.rule(), Enforcement: *p.Enforcement}
}

// rule says in one line what p does with what it matches.
func (p *Policy) rule() string {
	switch {
	case p.Deny != "":
		return "deny: " + oneLine(p.Deny, maxText)
	case p.AllowUnverified:
		return "allow unverified"
	}
	var parts []string
	switch n := len(p.Require.Of); {
	case n == 0:
	case n == 1:
		parts = append(parts, "require "+list(p.Require.Of))
	case p.Require.AtLeast == n:
		parts = append(parts, "require all of "+list(p.Require.Of))
	default:
		parts = append(parts, fmt.Sprintf("require %d of %s", p.Require.AtLeast, list(p.Require.Of)))
	}
	switch p.SignedAs {
	case IfPresent:
	case Remapped:
		parts = append(parts, fmt.Sprintf("signedAs {prefix: %s, signedPrefix: %s}", clean(p.Remap.Prefix, maxName), clean(p.Remap.SignedPrefix, maxName)))
	default:
		parts = append(parts, "signedAs "+p.SignedAs.String())
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		pairs = append(pairs, pair(name, p.Annotations[name]))
	}
	if len(pairs) > 0 {
		parts = append(parts, clean("annotations "+strings.Join(pairs, ", "), maxText))
	}
	for _, a := range p.Attestations {
		part := "require " + a.needed()
		if a.Rego != nil {
			part += " that Rego does not deny"
		}
		parts = append(parts, part)
	}
	if p.Rego != nil {
		parts = append(parts, "unless Rego denies")
	}
	if p.MaxAge > 0 {
		parts = append(parts, "maxAge "+span(p.MaxAge))
	}
	if p.MinAge > 0 {
		parts = append(parts, "minAge "+span(p.MinAge))
	}
	return strings.Join(parts, "; ")
}
