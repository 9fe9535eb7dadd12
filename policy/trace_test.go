package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTraceEndsWithThePolicyThatDecides(t *testing.T) {
	w := newWorld(t)
	e := w.evaluator(Config{Enforcement: Warn, Policies: []Policy{
		{Match: mustMatch(t, "quay.io/old/**"), Deny: "moved\nto  ghcr.io"},
		{Name: "production", Match: mustMatch(t, "ghcr.io/acme/prod/**", "!ghcr.io/acme/prod/x"), Require: one("release"), SignedAs: Repository,
			Annotations: map[string]string{"env": "prod", "a": "b"}, Enforcement: new(Observe)},
		{Match: mustMatch(t, "docker.io/library/**"), AllowUnverified: true},
		{Match: mustMatch(t, "ghcr.io/acme/**"), Require: allOf("ci", "release")},
		{Match: mustMatch(t, "ghcr.io/**"), Require: anyOf("ci", "release")},
	}}, Options{})
	old := Step{Policy: "quay.io/old/**", Match: []string{"quay.io/old/**"}, Rule: "deny: moved to ghcr.io", Enforcement: Warn}
	production := Step{Policy: "production", Match: []string{"ghcr.io/acme/prod/**", "!ghcr.io/acme/prod/x"},
		Rule: "require release; signedAs repository; annotations a=b, env=prod", Enforcement: Observe}
	library := Step{Policy: "docker.io/library/**", Match: []string{"docker.io/library/**"}, Rule: "allow unverified", Enforcement: Warn}
	acme := Step{Policy: "ghcr.io/acme/**", Match: []string{"ghcr.io/acme/**"}, Rule: "require all of ci, release", Enforcement: Warn}
	ghcr := Step{Policy: "ghcr.io/**", Match: []string{"ghcr.io/**"}, Rule: "require 1 of ci, release", Enforcement: Warn}
	none := Step{Match: []string{}, Rule: "no policy matches: denied", Enforcement: Warn}
	matching := func(s Step) Step { s.Matches = true; return s }
	for _, test := range []struct {
		repository string
		want       []Step
	}{
		{"quay.io/old/web", []Step{matching(old)}},
		{"ghcr.io/acme/prod/web", []Step{old, matching(production)}},
		{"docker.io/library/nginx", []Step{old, production, matching(library)}},
		{"ghcr.io/acme/prod/x", []Step{old, production, library, matching(acme)}},
		{"ghcr.io/other", []Step{old, production, library, acme, matching(ghcr)}},
		{"example.com/web", []Step{old, production, library, acme, ghcr, none}},
		{"index.docker.io/library/nginx", []Step{old, production, library, acme, ghcr, none}}, // not canonical
	} {
		got := e.Trace(test.repository)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.repository, diff)
		}
		if last := got[len(got)-1]; last.Policy != e.Scope(test.repository).Policy {
			t.Errorf("%s: traced to %q, decided by %q", test.repository, last.Policy, e.Scope(test.repository).Policy)
		}
	}
}

func TestTraceSaysHowNamesAreCompared(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		policy Policy
		want   string
	}{
		{Policy{Require: some(2, "ci", "release", "vendor")}, "require 2 of ci, release, vendor"},
		{Policy{Require: one("ci"), SignedAs: Ignore}, "require ci; signedAs ignore"},
		{Policy{Require: one("ci"), SignedAs: Exact}, "require ci; signedAs exact"},
		{Policy{Require: one("ci"), SignedAs: Remapped, Remap: Remap{Prefix: "local/copy", SignedPrefix: "ghcr.io/acme"}},
			"require ci; signedAs {prefix: local/copy, signedPrefix: ghcr.io/acme}"},
	} {
		test.policy.Match = mustMatch(t, "**")
		steps := w.evaluator(Config{Policies: []Policy{test.policy}}, Options{}).Trace(web)
		if len(steps) != 1 || steps[0].Rule != test.want {
			t.Errorf("got %+v, want %s", steps, test.want)
		}
	}
}

func TestTraceIsBounded(t *testing.T) {
	w := newWorld(t)
	config := Config{}
	for i := range 1000 {
		config.Policies = append(config.Policies, Policy{Match: mustMatch(t, fmt.Sprintf("ghcr.io/team-%d/**", i)), Deny: "no"})
	}
	e := w.evaluator(config, Options{})
	for _, test := range []struct {
		repository string
		steps      int
		omitted    int
	}{
		{"ghcr.io/team-100/x", 101, 0},
		{"ghcr.io/team-101/x", 101, 1},
		{"ghcr.io/team-999/x", 101, 899},
		{"quay.io/x", 101, 900},
	} {
		steps := e.Trace(test.repository)
		last := steps[len(steps)-1]
		if len(steps) != test.steps || last.Omitted != test.omitted || last.Matches != strings.HasPrefix(test.repository, "ghcr.io/") {
			t.Errorf("%s: %d steps, the last %+v", test.repository, len(steps), last)
		}
		if i := slices.IndexFunc(steps[:len(steps)-1], func(s Step) bool { return s.Omitted > 0 || s.Matches }); i >= 0 {
			t.Errorf("%s: step %d is %+v", test.repository, i, steps[i])
		}
	}
}

func TestAStepAsJSON(t *testing.T) {
	w := newWorld(t)
	steps := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("ci")}}}, Options{}).Trace(web)
	data, err := json.Marshal(steps)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"policy":"**","match":["**"],"matches":true,"rule":"require ci","enforcement":"enforce"}]`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	var back []Step
	if err := json.Unmarshal(data, &back); err != nil || !cmp.Equal(back, steps) {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

func TestAnEnforcementIsItsWord(t *testing.T) {
	for _, e := range []Enforcement{Enforce, Warn, Observe} {
		text, err := e.MarshalText()
		var back Enforcement
		if err != nil || string(text) != e.String() || back.UnmarshalText(text) != nil || back != e {
			t.Errorf("%v: %q, %v, read back as %v", e, text, err, back)
		}
	}
	if text, err := Enforcement(7).MarshalText(); err == nil {
		t.Errorf("7 is written as %q", text)
	}
	back := Warn
	if err := back.UnmarshalText([]byte("unknown")); err == nil || back != Warn {
		t.Errorf("unknown is read as %v", back)
	}
}
