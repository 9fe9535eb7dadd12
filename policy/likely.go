package policy

import (
	"slices"
	"strings"

	"vidimus/verifier"
)

// about is subject for the verifier, with the names that those who sign it for p
// are likely to claim.
func about(p *Policy, subject Subject) verifier.Subject {
	return verifier.Subject{
		Repository: subject.Repository, Digest: subject.Digest, Names: likelyNames(p, subject), Attestations: p.wantsAttestations(),
	}
}

// likelyNames returns those of the names that hold for subject under p which
// signers write: the repository's alone, as cosign does unless it is told
// otherwise, and then with the tag or the digest, as it is told where a policy
// wants them. They are not compared with anything: see verifier.Subject.
func likelyNames(p *Policy, subject Subject) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range repositoryNames(p, subject) {
		add(name)
		if path, ok := strings.CutPrefix(name, hub+"/"); ok {
			for _, other := range hubNames[1:] {
				add(other + "/" + path)
			}
		}
	}
	plain := len(names)
	for _, name := range names[:plain] {
		if subject.Tag != "" {
			add(name + ":" + subject.Tag)
		}
		add(name + "@" + subject.Digest.String())
	}
	return names
}
