package policy

import (
	"fmt"
	"strings"
	"testing"
)

func policies(t testing.TB, matches ...string) []Policy {
	t.Helper()
	var list []Policy
	for _, match := range matches {
		list = append(list, Policy{Match: mustMatch(t, strings.Fields(match)...), AllowUnverified: true})
	}
	return list
}

func TestLint(t *testing.T) {
	upstreams := []string{"ghcr.io", "docker.io", "local"}
	for _, test := range []struct {
		name    string
		matches []string
		want    map[int]string // by index: words of the message
	}{
		{"separate policies", []string{"ghcr.io/a/**", "ghcr.io/b/**", "docker.io/**"}, nil},
		{"from narrow to broad", []string{"ghcr.io/a/b", "ghcr.io/a/*", "ghcr.io/a/**", "ghcr.io/**", "**"}, nil},
		{"from broad to narrow", []string{"ghcr.io/a/**", "ghcr.io/a/b"}, map[int]string{1: `policy "ghcr.io/a/**" (the 1st) before it`}},
		{"the same twice", []string{"ghcr.io/a/*", "ghcr.io/a/*"}, map[int]string{1: "(the 1st)"}},
		{"another spelling of the same", []string{"ghcr.io/a/*", "ghcr.io/a/{repo}"}, map[int]string{1: "(the 1st)"}},
		{"a star is less than two", []string{"ghcr.io/a/*", "ghcr.io/a/**"}, nil},
		{"two together", []string{"ghcr.io/a/*", "ghcr.io/a/*/**", "ghcr.io/a/**"}, map[int]string{2: `together match all that it matches ("ghcr.io/a/*" (the 1st), "ghcr.io/a/*/**" (the 2nd))`}},
		{"two together but one name", []string{"ghcr.io/a/* !ghcr.io/a/x", "ghcr.io/a/*/**", "ghcr.io/a/**"}, nil},
		{"an exclusion is left to a later one", []string{"ghcr.io/** !ghcr.io/a/**", "ghcr.io/a/**"}, nil},
		{"an exclusion is made up by another", []string{"ghcr.io/** !ghcr.io/a/**", "ghcr.io/a/**", "ghcr.io/a/b"}, map[int]string{2: `"ghcr.io/a/**" (the 2nd)`}},
		{"the ends of names", []string{"ghcr.io/**/*a", "ghcr.io/**/*b", "ghcr.io/**"}, nil},
		{"shadowed by two that share a beginning", []string{"ghcr.io/*a*", "ghcr.io/b*", "ghcr.io/bc*"}, map[int]string{2: `"ghcr.io/b*" (the 2nd)`}},
		{"its exclusions remove all", []string{"ghcr.io/a/* !ghcr.io/**"}, map[int]string{0: "matches nothing"}},
		{"its exclusions together remove all", []string{"ghcr.io/a/** !ghcr.io/a/* !ghcr.io/a/*/**"}, map[int]string{0: "matches nothing"}},
		{"an upstream that is not there", []string{"quay.io/a/**"}, map[int]string{0: "add quay.io to upstreams"}},
		{"upstreams that are not there", []string{"quay.io/a/** gcr.io/b/**"}, map[int]string{0: "add quay.io, gcr.io to upstreams"}},
		{"one of two upstreams is there", []string{"quay.io/a/** ghcr.io/a/**"}, nil},
		{"a pattern of upstreams that are not there", []string{"*.example.com/**"}, map[int]string{0: "no repository of any configured upstream"}},
		{"all upstreams one by one leave room for another", []string{"ghcr.io/**", "docker.io/**", "local/**", "**"}, nil},
		{"a dead policy shadows nobody else wrongly", []string{"ghcr.io/a/* !ghcr.io/a/*", "ghcr.io/a/b"}, map[int]string{0: "matches nothing"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := Lint(policies(t, test.matches...), upstreams)
			if len(faults) != len(test.want) {
				t.Fatalf("got %v, want %v", faults, test.want)
			}
			for _, f := range faults {
				if want, ok := test.want[f.Index]; !ok || !strings.Contains(f.Message, want) {
					t.Errorf("policy %d: %s, want %q", f.Index, f.Message, want)
				}
			}
		})
	}
}

func TestLintWithoutUpstreamsDoesNotAskForThem(t *testing.T) {
	if faults := Lint(policies(t, "quay.io/a/**"), nil); len(faults) != 0 {
		t.Errorf("got %v", faults)
	}
}

func TestLintCallsAPolicyByItsName(t *testing.T) {
	list := policies(t, "ghcr.io/**", "ghcr.io/a/**")
	list[0].Name, list[1].Name = "all of it", "team a"
	faults := Lint(list, nil)
	if len(faults) != 1 || !strings.Contains(faults[0].Message, `policy "team a"`) || !strings.Contains(faults[0].Message, `policy "all of it"`) {
		t.Errorf("got %v", faults)
	}
}

func TestLintIsBounded(t *testing.T) {
	// What these stars leave over takes an automaton of very many states.
	hard := "ghcr.io/**/*a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p"
	list := []string{hard, "ghcr.io/**/*p*o*n*m*l*k*j*i*h*g*f*e*d*c*b*a", "ghcr.io/**/*a*a*a*a*a*a*a*a*b*b*b*b*b*b*b*b"}
	for i := range 12 {
		list = append(list, "ghcr.io/*a"+strings.Repeat("*a", i)+"*b")
	}
	Lint(policies(t, list...), []string{"ghcr.io"}) // ends
	steps := 10
	if _, outcome := witness([]Match{mustMatch(t, hard)}, nil, &steps); outcome != searchUnknown {
		t.Errorf("ten steps sufficed: %v", outcome)
	}
	if outer := mustMatch(t, strings.Fields(strings.Join(list, " "))...); Within(mustMatch(t, "ghcr.io/**/*q*a*q*b*q*"), outer) {
		t.Error("what no search has settled is said to be within")
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		match, scope string
		within       bool
	}{
		{"ghcr.io/team-a/**", "ghcr.io/team-a/**", true},
		{"ghcr.io/team-a/web", "ghcr.io/team-a/**", true},
		{"ghcr.io/team-a/**/web", "ghcr.io/team-a/**", true},
		{"ghcr.io/team-a/** ghcr.io/team-a2/**", "ghcr.io/team-a/**", false},
		{"ghcr.io/**", "ghcr.io/team-a/**", false},
		{"ghcr.io/team-*/**", "ghcr.io/team-a/**", false},
		{"ghcr.io/** !ghcr.io/team-b/**", "ghcr.io/team-a/**", false},
		{"ghcr.io/team-a/** ghcr.io/team-b/x !ghcr.io/team-b/**", "ghcr.io/team-a/**", true},
		{"ghcr.io/team-a/**", "ghcr.io/team-a/** !ghcr.io/team-a/secret", false},
		{"docker.io/*/*", "docker.io/**", true},
		{"docker.io/**", "docker.io/*/** docker.io/*/*", true}, // one component after docker.io is no canonical name
		{"ghcr.io/**", "ghcr.io/*/**", false},
	} {
		m, scope := mustMatch(t, strings.Fields(test.match)...), mustMatch(t, strings.Fields(test.scope)...)
		if got := Within(m, scope); got != test.within {
			t.Errorf("(%s) within (%s): %v", test.match, test.scope, got)
		}
		example, outside := Outside(m, scope)
		if outside == test.within || outside && (!m.Matches(example) || scope.Matches(example)) {
			t.Errorf("(%s) outside (%s): %q, %v", test.match, test.scope, example, outside)
		}
	}
}

// Lint agrees with asking each name in turn, wherever names of a small world tell.
func TestWhatLintCallsShadowedNeverDecides(t *testing.T) {
	r := newRand()
	shadowed := 0
	for range 300 {
		var list []Policy
		for range 4 {
			if m, ok := randomMatch(r); ok {
				list = append(list, Policy{Match: m, AllowUnverified: true, Name: fmt.Sprint(len(list))})
			}
		}
		set, err := New(Config{Policies: list})
		if err != nil {
			t.Fatal(err)
		}
		deciding := map[string]bool{}
		for _, name := range names() {
			deciding[set.Scope(name).Policy] = true
		}
		for _, f := range Lint(list, nil) {
			shadowed++
			if deciding[list[f.Index].Name] {
				t.Fatalf("%s, yet it decides, in %v", f.Message, list)
			}
		}
	}
	if shadowed < 50 {
		t.Errorf("only %d policies were shadowed: the test shows little", shadowed)
	}
}

func BenchmarkLint10000Policies(b *testing.B) {
	var matches []string
	for i := range 10_000 {
		matches = append(matches, fmt.Sprintf("ghcr.io/acme/team-%04d/** !ghcr.io/acme/team-%04d/secret", i, i))
	}
	list := policies(b, append(matches, "**")...)
	for b.Loop() {
		if faults := Lint(list, []string{"ghcr.io"}); len(faults) != 0 {
			b.Fatal(faults)
		}
	}
}
