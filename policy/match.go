package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Match is a set of canonical repositories, written as patterns such as
// ghcr.io/acme/prod/**:
//
//   - a text without special characters is that repository;
//   - "*" is any text within one component, also none: web* fits web;
//   - "**" is a component of its own and stands for any number of components.
//     At the end it stands for at least one, so ghcr.io/acme/** fits
//     ghcr.io/acme/x and ghcr.io/acme/x/y but not ghcr.io/acme; elsewhere it may
//     stand for none, so ghcr.io/**/web fits ghcr.io/web. Alone it is everything;
//   - "{repo}" is a component of its own, fits any one component and captures it;
//   - "!" in front excludes: what any exclusion fits is not matched, wherever in
//     the list the exclusion stands.
//
// Only canonical repositories are ever matched: a name that Canonical would
// change or refuse fits no Match. The zero Match matches nothing. A Match is
// not changed once it is made and may be copied and shared.
type Match struct {
	include []pattern
	exclude []pattern
	texts   []string // as written, in order
}

// ParseMatch parses a list of patterns. An empty list, a list of exclusions
// alone, and a pattern that no canonical repository can ever fit are errors
// whose text says the fix; all faults of the list are returned, joined.
func ParseMatch(patterns []string) (Match, error) {
	m := Match{texts: slices.Clone(patterns)}
	var faults []error
	for _, text := range patterns {
		body, excluding := strings.CutPrefix(text, "!")
		p, err := parsePattern(body)
		if err == nil && excluding && p.repo >= 0 {
			err = errors.New("an exclusion captures nothing: write * in place of {repo}")
		}
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("match %q: %w", clean(text, 200), err))
		case excluding:
			m.exclude = append(m.exclude, p)
		default:
			m.include = append(m.include, p)
		}
	}
	if len(faults) == 0 && len(m.include) == 0 {
		if len(patterns) == 0 {
			faults = append(faults, errors.New(`the match is empty: write what it covers, or "**" for everything`))
		} else {
			faults = append(faults, errors.New(`the match has exclusions alone: write what they are excluded from, or "**" for everything`))
		}
	}
	if len(faults) > 0 {
		return Match{}, errors.Join(faults...)
	}
	return m, nil
}

// Matches reports whether repository is canonical and matched. It takes time
// linear in the length of the name for a given Match, and no memory.
func (m Match) Matches(repository string) bool {
	return len(m.include) > 0 && isCanonical(repository) && m.fits(repository)
}

// fits is Matches for a name that is known to be canonical.
func (m Match) fits(repository string) bool {
	fit := func(p pattern) bool { return p.fits(repository) }
	return slices.ContainsFunc(m.include, fit) && !slices.ContainsFunc(m.exclude, fit)
}

// Captures returns what {repo} stands for in repository, under the key "repo",
// by the first pattern of the list that fits. It is nil when repository is not
// matched or that pattern captures nothing.
func (m Match) Captures(repository string) map[string]string {
	if !m.Matches(repository) {
		return nil
	}
	for _, p := range m.include {
		if p.fits(repository) {
			if p.repo < 0 {
				return nil
			}
			return map[string]string{"repo": p.captured(repository)}
		}
	}
	return nil
}

// Patterns returns the patterns as they were written.
func (m Match) Patterns() []string { return slices.Clone(m.texts) }

// String returns the patterns as they were written, separated by commas.
func (m Match) String() string { return strings.Join(m.texts, ", ") }

// Equal reports whether both were written alike; two spellings of one set are
// not equal.
func (m Match) Equal(other Match) bool { return slices.Equal(m.texts, other.texts) }
