package policy

import (
	"slices"
	"strings"
)

// nameHolds reports whether the name that a signature claims is one that p
// accepts for subject. Claimed text is compared after Canonical, whole and in
// its own letter case; a name without a registry is some other name.
func nameHolds(p *Policy, subject Subject, claimed string) bool {
	if p.SignedAs == Ignore {
		return true
	}
	if claimed == "" {
		return p.SignedAs == IfPresent
	}
	c, ok := parseClaim(claimed)
	if !ok || !namesRepository(p, subject, c.repository) {
		return false
	}
	return p.SignedAs != Exact || c.exact(subject)
}

// namesRepository reports whether a canonical name is one of subject's.
func namesRepository(p *Policy, subject Subject, name string) bool {
	return slices.ContainsFunc(repositoryNames(p, subject), func(own string) bool {
		canonical, ok := Canonical(own)
		return ok && canonical == name
	})
}

// repositoryNames returns the names that subject goes by under p; of spellings
// that Canonical makes one, one is enough.
func repositoryNames(p *Policy, subject Subject) []string {
	if p.SignedAs == Remapped {
		if rest, ok := below(p.Remap.Prefix, subject.Repository); ok {
			return p.originalNames(subject, rest)
		}
	}
	return append([]string{subject.Repository}, subject.Aliases...)
}

// below returns what follows prefix in name, when prefix is whole components.
func below(prefix, name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// exact reports whether the claim has the tag that was asked for, or this
// digest. Whatever of the two it has must hold; a request by digest asks for no
// tag, and then the repository is enough.
func (c claim) exact(subject Subject) bool {
	if c.digest != "" && c.digest != subject.Digest.String() {
		return false
	}
	if subject.Tag == "" {
		return true
	}
	if c.tag != "" {
		return c.tag == subject.Tag
	}
	return c.digest != ""
}
