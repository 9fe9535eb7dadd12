package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/policy/rego"
	"vidimus/verifier"
)

func module(t *testing.T, input rego.Input, rules string) *rego.Module {
	t.Helper()
	m, err := rego.Compile("policy.rego", []byte("package vidimus\n"+rules), input)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRegoOnlyDenies(t *testing.T) {
	for _, test := range []struct {
		name, rules string
		reason      string
		sentence    string
	}{
		{"it has nothing against it", `deny contains "no" if input.image.repository != "ghcr.io/acme/web"`, "", "signed by release"},
		{"it denies", `deny contains "not on Fridays"`, ReasonRego, "denied by the policy's Rego: not on Fridays"},
		{"it is undefined", `allow if input.image.repository == "other"`, ReasonRego, "allow is undefined"},
		{"it fails", `allow if to_number(input.image.digest) > 0`, ReasonRego, "evaluating it failed"},
		{"it does not end", `xs := [0,1,2,3,4,5,6,7,8,9]
			deny contains "x" if { some a in xs; some b in xs; some c in xs; some d in xs; some e in xs; some f in xs; some g in xs; some h in xs; a+b+c+d+e+f+g+h < 0 }`,
			ReasonRego, "took longer than 100ms"},
		{"a message that would break the line", "deny contains \"a\\nb\\u0007\"", ReasonRego, `a b\u0007`},
		{"it sees signatures", `allow if { some s in input.signatures; s.counted; s.authorities == ["release"]; s.annotations.env == "prod"; count(s.keyIDs) == 1 }`, "", ""},
		{"it sees signatures that do not count", `allow if { some s in input.signatures; not s.counted; s.claimedName == "ghcr.io/other/web" }`, "", ""},
		{"it sees verified ones only", `deny contains "too many" if count(input.signatures) != 2`, "", ""},
		{"it sees attestations", `allow if { some a in input.attestations; a.predicateType == "https://slsa.dev/provenance/v1"; a.predicate.builder == "x"; a.authorities == ["ci"] }`, "", ""},
		{"it sees attestations of verified statements only", `deny contains "too many" if count(input.attestations) != 1`, "", ""},
		{"it sees the tag", `allow if input.image.tag == "v1"`, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.sign(web, "release +env=prod", "release @ghcr.io/other/web", "stranger", "release #other", "ci ~broken")
			w.attestAt(web, statement{of: slsa, by: "ci", predicate: `{"builder":"x"}`}, statement{of: slsa, by: "stranger"}, statement{of: slsa, by: "ci", about: otherImage})
			e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Rego: module(t, rego.Image, test.rules)}}}, Options{})
			var d Decision
			if test.reason == "" {
				d = allow(t, e, w, subject())
			} else {
				d = deny(t, e, w, subject(), test.reason)
			}
			if !strings.Contains(d.Explained, test.sentence) {
				t.Errorf("explained: %s", d.Explained)
			}
		})
	}
	t.Run("it never allows", func(t *testing.T) {
		w := newWorld(t)
		w.sign(web, "stranger")
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Rego: module(t, rego.Image, "allow := true")}}}, Options{})
		deny(t, e, w, subject(), ReasonUntrusted)
	})
}

func TestRegoAboutAnAttestation(t *testing.T) {
	builder := func(t *testing.T) Rego {
		return module(t, rego.Predicate, `deny contains sprintf("built by %s", [input.predicate.builder]) if input.predicate.builder != "x"
			deny contains "built by nobody" if not input.predicate.builder`)
	}
	for _, test := range []struct {
		name       string
		statements []statement
		require    Require
		reason     string
		sentence   string
	}{
		{"it has nothing against it", []statement{{of: slsa, by: "ci", predicate: `{"builder":"x"}`}}, one("ci"), "", "attested by ci"},
		{"it denies", []statement{{of: slsa, by: "ci", predicate: `{"builder":"y"}`}}, one("ci"), ReasonRego,
			"the attestation of slsaprovenance1 (" + slsa + ") by ci is denied by Rego: built by y; an attestation"},
		{"it denies one of two", []statement{{of: slsa, by: "ci", predicate: `{"builder":"y"}`}, {of: slsa, by: "ci", predicate: `{"builder":"x"}`}}, one("ci"), "", ""},
		{"it denies one signer's of two", []statement{{of: slsa, by: "ci", predicate: `{"builder":"y"}`}, {of: slsa, by: "vendor", predicate: `{"builder":"x"}`}}, allOf("ci", "vendor"), ReasonRego, "built by y"},
		{"no predicate", []statement{{of: slsa, by: "ci"}}, one("ci"), ReasonRego, "built by nobody"},
		{"not by the one who is required", []statement{{of: slsa, by: "vendor", predicate: `{"builder":"x"}`}}, one("ci"), ReasonAttestationMissing, "by vendor only"},
		{"of another type", []statement{{of: spdx, by: "ci", predicate: `{"builder":"x"}`}}, one("ci"), ReasonAttestationMissing, "only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.sign(web, "release")
			w.attestAt(web, test.statements...)
			e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"),
				Attestations: []Attestation{{PredicateType: slsa, Require: test.require, Rego: builder(t)}}}}}, Options{})
			var d Decision
			if test.reason == "" {
				d = allow(t, e, w, subject())
			} else {
				d = deny(t, e, w, subject(), test.reason)
			}
			if !strings.Contains(d.Explained, test.sentence) {
				t.Errorf("explained: %s", d.Explained)
			}
		})
	}
}

// Rego may want what require does not need: a decision stands no longer than what Rego
// was told.
func TestADecisionEndsWhenRegoWouldBeToldOtherwise(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	authorities := w.authorities()
	for i := range authorities {
		if authorities[i].Name == "ci" {
			authorities[i].Windows = map[string]verifier.Window{w.key("ci").ID(): {Until: noon.Add(time.Hour)}}
		}
	}
	private := n.named("private", "https://a.example/x")
	private.PrivatePKI = true
	var err error
	if private.Root, err = verifier.ParseCAs(n.CAs()); err != nil {
		t.Fatal(err)
	}
	now := noon
	p := Policy{Match: mustMatch(t, "**"), Require: Require{AtLeast: 1, Of: []string{"release", "ci", "private"}},
		Rego: module(t, rego.Image, `deny contains "ci is wanted" if count([s | some s in input.signatures; s.counted]) < count(input.signatures)`)}
	e := w.evaluator(Config{Authorities: append(authorities, private), Policies: []Policy{p}}, Options{Now: func() time.Time { return now }})
	w.sign(web, "release", "ci")
	if d := allow(t, e, w, subject()); !d.Expires.Equal(noon.Add(time.Hour)) {
		t.Errorf("expires %v", d.Expires)
	}
	now = noon.Add(time.Hour)
	deny(t, e, w, subject(), ReasonRego)
	now = noon
	w.sign(web, "release")
	if d := allow(t, e, w, subject()); !d.Expires.IsZero() {
		t.Errorf("expires %v", d.Expires)
	}
	w.attach(web, []any{n.byName(w, web, "https://a.example/x", noon)})
	w.attestAt(web, statement{of: slsa, by: "ci"})
	if d := allow(t, e, w, subject()); !d.Expires.Equal(noon.Add(9 * time.Minute)) {
		t.Errorf("expires %v", d.Expires)
	}
}

// A place that cannot be read may hold what Rego would deny for.
func TestRegoNeedsAllEvidence(t *testing.T) {
	for name, p := range map[string]Policy{
		"of the policy":     {Require: one("release"), Rego: module(t, rego.Image, "allow := true")},
		"of an attestation": {Require: one("release"), Attestations: []Attestation{{PredicateType: slsa, Require: one("ci"), Rego: module(t, rego.Predicate, "allow := true")}}},
	} {
		t.Run(name, func(t *testing.T) {
			p.Match = mustMatch(t, "**")
			w := newWorld(t)
			w.sign(web, "release")
			w.attestAt(web, statement{of: slsa, by: "ci"})
			e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
			allow(t, e, w, subject())
			for _, place := range []string{".sig", ".cosign", ".att", "referrers/" + image.String(), "/sha256-" + image.Hex} {
				w.failWith(func(reference string) error {
					if strings.HasSuffix(reference, place) {
						return errors.New("no answer")
					}
					return nil
				})
				if d, _ := cannotTell(t, e, w, subject()); len(d.Causes) == 0 {
					t.Errorf("%s: no cause", place)
				}
			}
			w.failWith(nil)
			strangers := slices.Repeat([]string{"release"}, 1)
			for i := range verifier.MaxSignatures + 1 {
				strangers = append(strangers, fmt.Sprintf("stranger +n=%d", i))
			}
			w.sign(web, strangers...)
			d := deny(t, e, w, subject(), ReasonTooManySignatures)
			if !strings.Contains(d.Explained, "Rego needs them all") {
				t.Errorf("explained: %s", d.Explained)
			}
		})
	}
	t.Run("an authority that is suspended might have said something", func(t *testing.T) {
		w := newWorld(t)
		authorities := w.authorities()
		for i := range authorities {
			if authorities[i].Name == "vendor" {
				authorities[i].Suspended = "vendor.pub does not exist"
			}
		}
		e := w.evaluator(Config{Authorities: authorities, Policies: []Policy{
			{Match: mustMatch(t, "**"), Require: one("release"), Rego: module(t, rego.Image, `deny contains "vulnerable" if input.attestations[_].predicate.vulnerable`)},
		}}, Options{})
		w.sign(web, "release")
		allow(t, e, w, subject())
		w.attestAt(web, statement{of: slsa, by: "vendor", predicate: `{"vulnerable":true}`})
		cannotTell(t, e, w, subject())
	})
}

func TestRegoIsGivenABoundedInput(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	large := statement{of: slsa, by: "ci", predicate: `{"x":"` + strings.Repeat("x", 700_000) + `"}`}
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Rego: module(t, rego.Image, `allow if count(input.attestations) > 0`)}}}, Options{})
	statements := func(n int) []statement {
		all := slices.Repeat([]statement{large}, n)
		for i := range all {
			all[i].predicate = strings.Replace(all[i].predicate, "x", fmt.Sprint(i), 1)
		}
		return all
	}
	w.attestAt(web, statements(5)...)
	allow(t, e, w, subject())
	w.attestAt(web, statements(7)...)
	d := deny(t, e, w, subject(), ReasonRego)
	if !strings.Contains(d.Explained, "more than 4 MiB of attestations") {
		t.Errorf("explained: %s", d.Explained)
	}
}

// recorder is a module that keeps its input.
type recorder struct {
	readsTag bool
	input    []byte
}

func (r *recorder) ReadsTag() bool { return r.readsTag }

func (r *recorder) Judge(_ context.Context, input []byte) ([]string, error) {
	r.input = input
	return nil, nil
}

func TestTheTagIsSeenByWhoSaysThatItIsRead(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	w.attestAt(web, statement{of: slsa, by: "ci"})
	for _, reads := range []bool{true, false} {
		whole, part := &recorder{readsTag: reads}, &recorder{readsTag: reads}
		for _, p := range []Policy{
			{Require: one("release"), Rego: whole},
			{Require: one("release"), Attestations: []Attestation{{PredicateType: slsa, Require: one("ci"), Rego: part}}},
		} {
			p.Match = mustMatch(t, "**")
			e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
			if got := e.Scope(web).ReadsTag; got != reads {
				t.Errorf("the decision depends on the tag: %v", got)
			}
			allow(t, e, w, subject())
		}
		for _, r := range []*recorder{whole, part} {
			if strings.Contains(string(r.input), `"tag":"v1"`) != reads {
				t.Errorf("reads the tag: %v, and is given %s", reads, r.input)
			}
		}
	}
}

// Package rego refuses to compile what reads anything else than there is. This holds
// what there is against it: every field that is given may be read.
func TestEveryFieldOfTheInputMayBeRead(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release +env=prod")
	w.attestAt(web, statement{of: slsa, by: "ci", predicate: `{"a":1}`})
	whole, part := &recorder{readsTag: true}, &recorder{readsTag: true}
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Rego: whole,
		Attestations: []Attestation{{PredicateType: slsa, Require: one("ci"), Rego: part}}}}}, Options{})
	allow(t, e, w, subject())
	for kind, input := range map[rego.Input][]byte{rego.Image: whole.input, rego.Predicate: part.input} {
		var document any
		if err := json.Unmarshal(input, &document); err != nil {
			t.Fatal(err)
		}
		var rules strings.Builder
		fields := 0
		var walk func(path string, value any)
		walk = func(path string, value any) {
			fields++
			fmt.Fprintf(&rules, "deny contains %d if not %s\n", fields, path)
			switch value := value.(type) {
			case map[string]any:
				for name, inner := range value {
					walk(path+"."+name, inner)
				}
			case []any:
				for i, inner := range value {
					walk(fmt.Sprintf("%s[%d]", path, i), inner)
				}
			}
		}
		walk("input", document)
		if reasons, err := module(t, kind, rules.String()).Judge(t.Context(), input); err != nil || len(reasons) > 0 || fields < 12 {
			t.Errorf("%d fields: %q, %v\n%s", fields, reasons, err, rules.String())
		}
	}
}
