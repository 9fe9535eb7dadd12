package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// Set is a configuration that New has found sound. It is immutable and safe for
// concurrent use.
type Set struct {
	revision    string
	ceiling     Enforcement
	authorities []verifier.Authority
	roots       []*verifier.Root  // that prove claims
	suspended   map[string]string // by authority's name: why
	policies    []Policy          // each with its name and enforcement filled in
	tree        *prefixTree       // of policies
	exceptions  []Exception
	excepted    map[v1.Hash][]int // exceptions by digest
	revoked     map[v1.Hash]struct{}
}

// New checks config and makes a Set of a copy of it. The error joins one *Fault
// for each thing that is wrong, all at once.
//
// New refuses what can only be a mistake and what it could not keep to; an
// exception that has ended is neither, it just admits nothing. That a policy
// never decides is Lint's to say.
func New(config Config) (*Set, error) {
	if err := validate(config); err != nil {
		return nil, err
	}
	s := &Set{
		revision:  config.Revision,
		ceiling:   config.Enforcement,
		suspended: make(map[string]string),
		tree:      &prefixTree{},
		excepted:  make(map[v1.Hash][]int),
		revoked:   make(map[v1.Hash]struct{}, len(config.Revoked)),
	}
	for _, a := range config.Authorities {
		a.Keys, a.Identities, a.Windows = slices.Clone(a.Keys), slices.Clone(a.Identities), maps.Clone(a.Windows)
		s.authorities = append(s.authorities, a)
		if !a.PrivatePKI && a.Suspended == "" {
			s.prove(a.Root)
		}
		if a.Suspended != "" {
			s.suspended[a.Name] = a.Suspended
		}
	}
	s.prove(config.Root)
	for i, p := range config.Policies {
		s.policies = append(s.policies, settle(p, config))
		for _, pattern := range p.Match.include {
			s.tree.add(pattern.prefix, i)
		}
	}
	for i, e := range config.Exceptions {
		e.Digests = slices.Clone(e.Digests)
		s.exceptions = append(s.exceptions, e)
		for _, digest := range e.Digests {
			s.excepted[digest] = append(s.excepted[digest], i)
		}
	}
	for _, digest := range config.Revoked {
		s.revoked[digest] = struct{}{}
	}
	return s, nil
}

// prove adds a root to those that prove claims.
func (s *Set) prove(r *verifier.Root) {
	if r != nil && !slices.Contains(s.roots, r) {
		s.roots = append(s.roots, r)
	}
}

// names are those of all authorities.
func (s *Set) names() []string {
	names := make([]string, 0, len(s.authorities))
	for _, a := range s.authorities {
		names = append(names, a.Name)
	}
	return names
}

// settle returns a copy of p with nothing left to default.
func settle(p Policy, config Config) Policy {
	p.Name = policyName(p)
	if p.Enforcement == nil {
		p.Enforcement = new(config.Enforcement)
	} else {
		p.Enforcement = new(*p.Enforcement)
	}
	p.Require.Of = slices.Clone(p.Require.Of)
	p.Annotations = maps.Clone(p.Annotations)
	p.Push = p.Push.clone()
	p.signing = slices.Clone(config.SigningKeys)
	p.Attestations = slices.Clone(p.Attestations)
	for i := range p.Attestations {
		p.Attestations[i].Require.Of = slices.Clone(p.Attestations[i].Require.Of)
	}
	upstream, _, _ := strings.Cut(p.Remap.SignedPrefix, "/")
	p.originals = slices.Clone(config.Hosts[upstream])
	p.windows = make(map[string]map[string]verifier.Window)
	p.certified = make(map[string]string)
	for _, a := range config.Authorities {
		if !p.names(a.Name) {
			continue
		}
		p.windows[a.Name] = maps.Clone(a.Windows)
		for _, id := range a.Identities {
			p.certified[a.Name] = strings.TrimPrefix(p.certified[a.Name]+", "+id.Subject(), ", ")
		}
	}
	return p
}

// policyName is what a policy goes by in answers, records and metrics.
func policyName(p Policy) string {
	if p.Name == "" && len(p.Match.include) > 0 {
		return p.Match.include[0].text
	}
	return p.Name
}

// Revision returns Config.Revision.
func (s *Set) Revision() string { return s.revision }

// Revoked reports whether digest is never to be served.
func (s *Set) Revoked(digest v1.Hash) bool {
	_, revoked := s.revoked[digest]
	return revoked
}

// Scope tells, without evidence, under what a canonical repository falls.
func (s *Set) Scope(repository string) Scope {
	p, ok := s.find(repository)
	if !ok {
		return Scope{Enforcement: s.ceiling, Denied: true}
	}
	return Scope{
		Policy:      p.Name,
		Enforcement: *p.Enforcement,
		ReadsTag:    p.readsTag(),
		Unverified:  p.AllowUnverified,
		Denied:      p.Deny != "",
		Push:        p.Push,
	}
}

// ActiveExceptions returns how many exceptions admit something at now.
func (s *Set) ActiveExceptions(now time.Time) int {
	count := 0
	for _, e := range s.exceptions {
		if now.Before(e.Until) {
			count++
		}
	}
	return count
}

// find returns the first policy that matches repository. A name that is not
// canonical has none.
func (s *Set) find(repository string) (*Policy, bool) {
	i := s.first(repository)
	if i < 0 {
		return nil, false
	}
	return &s.policies[i], true
}

// first returns the index of what find returns, or -1.
func (s *Set) first(repository string) int {
	if !isCanonical(repository) {
		return -1
	}
	return s.tree.first(repository, func(i int) bool { return s.policies[i].Match.fits(repository) })
}

// exception returns the exception that admits subject at now, of several the
// one that lasts longest.
func (s *Set) exception(subject Subject, now time.Time) (Exception, bool) {
	var found Exception
	for _, i := range s.excepted[subject.Digest] {
		e := s.exceptions[i]
		if now.Before(e.Until) && e.Until.After(found.Until) && e.Match.Matches(subject.Repository) {
			found = e
		}
	}
	return found, !found.Until.IsZero()
}

// ordered returns all authorities, those that p requires first: a signature by
// one of them is then found with the fewest keys tried. The others are there to
// tell whose signature it is that does not count. {repo} in an identity is what p's
// match captures in repository.
func (s *Set) ordered(p *Policy, repository string) []verifier.Authority {
	repo := p.Match.Captures(repository)["repo"]
	ordered := make([]verifier.Authority, 0, len(s.authorities))
	for _, required := range []bool{true, false} {
		for _, a := range s.authorities {
			if p.names(a.Name) == required {
				ordered = append(ordered, filled(a, repo))
			}
		}
	}
	return ordered
}

// filled returns a with {repo} filled in. With nothing captured its identities stay as
// they are, and fit nobody.
func filled(a verifier.Authority, repo string) verifier.Authority {
	if repo == "" || !slices.ContainsFunc(a.Identities, verifier.Identity.Captures) {
		return a
	}
	a.Identities = slices.Clone(a.Identities)
	for i, id := range a.Identities {
		a.Identities[i] = id.With(repo)
	}
	return a
}
