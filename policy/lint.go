package policy

import (
	"fmt"
	"slices"
	"strings"
)

// LintFault is a policy that decides nothing.
type LintFault struct {
	Index   int    // of the policy in the list
	Message string // one sentence, with the fix
}

// lintBound bounds one Lint as searchBound bounds a search: below a second.
const lintBound = 4_000_000

// Lint finds policies that never decide anything, in the order of the list:
//
//   - dead: the policy's exclusions remove all that it matches, or it matches
//     only repositories of upstreams that are not among upstreams (none given:
//     not checked);
//   - shadowed: policies before it, one or several together, match everything
//     that it matches.
//
// The answers are exact. The search for them is bounded, so that no list of
// patterns makes a reload slow; where the bound is hit, Lint says nothing of
// that policy.
func Lint(policies []Policy, upstreams []string) []LintFault {
	l := linter{policies: policies, names: make(map[string]bool), tree: &prefixTree{}, steps: lintBound}
	for _, name := range upstreams {
		if m, err := ParseMatch([]string{name + "/**"}); err == nil {
			l.upstreams.include = append(l.upstreams.include, m.include...)
			l.names[name] = true
		}
	}
	var faults []LintFault
	for i, p := range policies {
		if message := l.judge(i); message != "" {
			faults = append(faults, LintFault{Index: i, Message: message})
		}
		for _, pattern := range p.Match.include {
			l.tree.add(pattern.prefix, i)
		}
	}
	return faults
}

type linter struct {
	policies  []Policy
	upstreams Match           // all that is on them
	names     map[string]bool // of the upstreams
	tree      *prefixTree     // of the policies before the one that is judged
	steps     int
}

// judge returns what is wrong with policy i, or nothing.
func (l *linter) judge(i int) string {
	m := l.policies[i].Match
	if len(m.include) == 0 {
		return fmt.Sprintf("policy %s has no match and decides nothing: write one", l.name(i))
	}
	if len(m.exclude) > 0 && l.ask([]Match{m}, nil) == searchEmpty {
		return fmt.Sprintf("policy %s matches nothing, for its exclusions remove all of it: narrow them, or remove the policy", l.name(i))
	}
	if message := l.judgeUpstreams(i); message != "" {
		return message
	}
	return l.judgeShadow(i)
}

func (l *linter) judgeUpstreams(i int) string {
	m := l.policies[i].Match
	if len(l.upstreams.include) == 0 {
		return ""
	}
	var names []string
	for _, p := range m.include {
		name, _, ok := strings.Cut(p.prefix, "/")
		if ok && l.names[name] && len(m.exclude) == 0 {
			return "" // the common case, without a search
		}
		if ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if l.ask([]Match{m, l.upstreams}, nil) != searchEmpty {
		return ""
	}
	if len(names) == 0 {
		return fmt.Sprintf("policy %s matches no repository of any configured upstream: add its upstream to upstreams, or remove the policy", l.name(i))
	}
	return fmt.Sprintf("policy %s matches only what no configured upstream holds: add %s to upstreams, or remove the policy", l.name(i), list(names))
}

func (l *linter) judgeShadow(i int) string {
	m := l.policies[i].Match
	var near []int
	for _, p := range m.include {
		near = append(near, l.tree.near(p.prefix)...)
	}
	near = sorted(near)
	if len(near) == 0 || l.ask([]Match{m}, l.matches(near)) != searchEmpty {
		return ""
	}
	for _, j := range near {
		if l.ask([]Match{m}, l.matches([]int{j})) == searchEmpty {
			return fmt.Sprintf("policy %s never decides: policy %s before it matches all that it matches; move it in front of that one, or remove it", l.name(i), l.name(j))
		}
	}
	var names []string
	for _, j := range near {
		if l.ask([]Match{m, l.policies[j].Match}, nil) == searchFound {
			names = append(names, l.name(j))
		}
	}
	return fmt.Sprintf("policy %s never decides: policies before it together match all that it matches (%s); move it in front of them, or remove it", l.name(i), list(names))
}

// ask is witness under the bounds of one search and of the whole.
func (l *linter) ask(in, out []Match) searchOutcome {
	allowance := min(searchBound, l.steps)
	left := allowance
	_, outcome := witness(in, out, &left)
	l.steps -= allowance - max(left, 0)
	return outcome
}

func (l *linter) matches(indices []int) []Match {
	matches := make([]Match, 0, len(indices))
	for _, i := range indices {
		matches = append(matches, l.policies[i].Match)
	}
	return matches
}

// name is what a policy goes by: its name, or what New would name it.
func (l *linter) name(i int) string {
	return fmt.Sprintf("%q (the %s)", policyName(l.policies[i]), ordinal(i+1))
}

func ordinal(n int) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return fmt.Sprint(n, suffix)
}

// Within reports whether everything that m matches is matched by scope. It is
// exact, but false also when the bounded search for the answer did not end.
func Within(m, scope Match) bool {
	steps := 4 * searchBound
	_, outcome := witness([]Match{m}, []Match{scope}, &steps)
	return outcome == searchEmpty
}

// Outside returns a repository that m matches and scope does not, one of the
// shortest; false when there is none, or none was found within the bound.
func Outside(m, scope Match) (string, bool) {
	steps := 4 * searchBound
	name, outcome := witness([]Match{m}, []Match{scope}, &steps)
	return name, outcome == searchFound
}
