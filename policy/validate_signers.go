package policy

import (
	"fmt"
	"maps"
	"slices"

	"vidimus/verifier"
)

// vouching makes sure that an authority can vouch for something, and in one way.
func (v *validation) vouching(where string, a verifier.Authority) {
	switch {
	case len(a.Keys) == 0 && len(a.Identities) == 0:
		v.fault(where, "has no keys and could vouch for nothing: list the public keys that it signs with, or who signs with certificates")
	case len(a.Keys) > 0 && len(a.Identities) > 0:
		v.fault(where, "has keys and identities: make two authorities of it")
	}
	for id, window := range a.Windows {
		if !window.Until.IsZero() && !window.From.Before(window.Until) {
			v.fault(where, "key %s counts from %s until %s, which is never: mend one of the two", shortKey(id), day(window.From), day(window.Until))
		}
	}
	if len(a.Identities) > 0 {
		v.proving(where, a)
	}
}

// proving makes sure that the certificates for an authority can be proven.
func (v *validation) proving(where string, a verifier.Authority) {
	switch {
	case a.Root == nil:
		v.fault(where, "has no trust root that could prove a certificate: name one in trustedRoot, its own or for all")
	case !a.Root.HasAuthorities():
		v.fault(where, "its trust root has no certificate authority: name another in trustedRoot")
	case !a.Root.HasTimes() && !a.PrivatePKI:
		v.fault(where, "its trust root has neither a log nor a timestamp authority, and a certificate counts only at a proven time: name another in trustedRoot, or write privatePKI: true for certificates that must be valid now")
	}
	for _, id := range a.Identities {
		if id.Issuer() == "" && !a.PrivatePKI {
			v.fault(where, "identity %s has no issuer: name who vouches for it", clean(id.String(), maxClaimed))
		}
	}
}

// identities makes sure that those whom r, of a policy with this match, requires can be
// told apart, and are known.
func (v *validation) identities(where, what string, match Match, r Require) {
	type held struct {
		by string
		id verifier.Identity
	}
	var all []held
	for i, name := range r.Of {
		if slices.Contains(r.Of[:i], name) {
			continue
		}
		for _, id := range v.authorities[name].Identities {
			if id.Captures() && !match.captures() {
				v.fault(where, "%s names %s, which has {repo} in an identity, and the match does not capture it everywhere: put {repo} in place of one component into each pattern, like ghcr.io/acme/{repo}", what, name)
				break
			}
		}
		for _, id := range v.authorities[name].Identities {
			for _, other := range all {
				if other.by != name && id.Overlaps(other.id) {
					v.fault(where, "%s counts distinct signers, and %s may be both %s and %s: take the identity from one of them", what, clean(id.Subject(), maxClaimed), other.by, name)
				}
			}
			all = append(all, held{name, id})
		}
	}
}

// captures reports whether m captures something in all that it matches.
func (m Match) captures() bool {
	return len(m.include) > 0 && !slices.ContainsFunc(m.include, func(p pattern) bool { return p.repo < 0 })
}

// ages makes sure that there can be signatures of the age that p asks for.
func (v *validation) ages(where string, p Policy) {
	if p.MaxAge < 0 || p.MinAge < 0 {
		v.fault(where, "an age is negative: write a duration like 30d")
	}
	if p.MaxAge > 0 && p.MinAge >= p.MaxAge {
		v.fault(where, "minAge %s is not below maxAge %s: nothing could meet both", span(p.MinAge), span(p.MaxAge))
	}
	if !p.readsTime() {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(set(p.Require.Of))) {
		a, ok := v.authorities[name]
		if ok && a.Suspended == "" && (a.Root == nil || !a.Root.HasTimes()) {
			v.fault(where, "has maxAge or minAge, and nothing can prove when %s has signed: name a trust root with a log or a timestamp authority in trustedRoot", fmt.Sprint(name))
		}
	}
}

func set(names []string) map[string]bool {
	all := make(map[string]bool)
	for _, name := range names {
		all[name] = true
	}
	return all
}
