package policy

import "strings"

// namesOriginal reports whether a canonical name is one of the repository that
// subject, which has rest after the prefix, is a copy of. Like any repository
// that one goes by its upstream's name and by the hosts that this upstream is
// known by: those of the configuration, and those in the aliases of subject
// when both are in one upstream.
func (p *Policy) namesOriginal(subject Subject, rest, name string) bool {
	original, ok := Canonical(p.Remap.SignedPrefix + rest)
	if !ok {
		return false
	}
	if original == name {
		return true
	}
	upstream, repository, _ := strings.Cut(original, "/")
	hosts := p.originals
	if own, copied, _ := strings.Cut(subject.Repository, "/"); own == upstream {
		hosts = append(hosts[:len(hosts):len(hosts)], hostsOf(subject.Aliases, copied)...)
	}
	for _, host := range hosts {
		if other, ok := Canonical(host + "/" + repository); ok && other == name {
			return true
		}
	}
	return false
}

// hostsOf returns what stands before repository in its aliases.
func hostsOf(aliases []string, repository string) []string {
	var hosts []string
	for _, alias := range aliases {
		if host, ok := strings.CutSuffix(alias, "/"+repository); ok {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// original is the canonical name that signatures of subject have to claim.
func (p *Policy) original(subject Subject) (string, bool) {
	rest, ok := below(p.Remap.Prefix, subject.Repository)
	if p.SignedAs != Remapped || !ok {
		return "", false
	}
	return Canonical(p.Remap.SignedPrefix + rest)
}
