package policy

import "strings"

// originalNames returns the names of the repository that subject, which has rest
// after the prefix, is a copy of. Like any repository that one goes by its
// upstream's name and by the hosts that this upstream is known by: those of the
// configuration, and those in the aliases of subject when both are in one
// upstream.
func (p *Policy) originalNames(subject Subject, rest string) []string {
	original, ok := Canonical(p.Remap.SignedPrefix + rest)
	if !ok {
		return nil
	}
	upstream, repository, _ := strings.Cut(original, "/")
	hosts := p.originals
	if own, copied, _ := strings.Cut(subject.Repository, "/"); own == upstream {
		hosts = append(hosts[:len(hosts):len(hosts)], hostsOf(subject.Aliases, copied)...)
	}
	names := []string{original}
	for _, host := range hosts {
		names = append(names, host+"/"+repository)
	}
	return names
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
