package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

// What is only observed tells who signed, and a line of policy for it; under enforce
// nothing is looked for that is not asked for.
func TestObservingTellsWhoMaySignAndSuggestsIt(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	const who = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
	w.attach(web, []any{n.byName(w, web, who, noon)})
	now := func() time.Time { return noon }
	for _, tt := range []struct {
		name   string
		root   *verifier.Root
		proven bool
		want   []string
	}{
		{"a trust root", n.trust(), true, []string{`- {match: "ghcr.io/acme/web", require: signer}`,
			`signer: {keyless: {issuer: "https://issuer.example", subject: "` + who + `"}}`}},
		{"no trust root", nil, false, []string{`- {match: "ghcr.io/acme/web", require: AUTHORITY}`, "trustedRoot: sigstore"}},
	} {
		e := w.evaluator(Config{Enforcement: Observe, Root: tt.root}, Options{Now: now})
		d := deny(t, e, w, subject(), ReasonNoPolicy)
		if len(d.Evidence) != 1 || len(d.Satisfied) > 0 || d.Evidence[0].Verified() {
			t.Fatalf("%s: %+v", tt.name, d)
		}
		if c, ok := d.Evidence[0].Claimed(); !ok || c.Subject != who || c.Issuer != testIssuer || c.Proven != tt.proven {
			t.Errorf("%s: claimed %+v", tt.name, c)
		}
		var got []string
		for _, r := range d.Remedies {
			got = append(got, r.Config)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
	// a policy that asks for somebody else does so, too, where it observes
	other := n.named("ci", "https://github.com/acme/other/**")
	for _, observe := range []bool{true, false} {
		config := Config{Authorities: []verifier.Authority{other}, Policies: []Policy{{Name: "prod", Match: mustMatch(t, "**"), Require: one("ci")}}}
		if observe {
			config.Enforcement = Observe
		}
		d := deny(t, w.evaluator(config, Options{Now: now}), w, subject(), ReasonUntrusted)
		c, ok := d.Evidence[0].Claimed()
		if !ok || c.Subject != who || c.Proven != observe {
			t.Errorf("observing %v: claimed %+v", observe, c)
		}
		if trusting := strings.Contains(d.Hint, "require: {any: [ci, signer]}"); trusting != observe {
			t.Errorf("observing %v: %s", observe, d.Hint)
		}
	}
	reads := w.reads
	deny(t, w.evaluator(Config{Root: n.trust()}, Options{Now: now}), w, subject(), ReasonNoPolicy)
	if w.reads != reads {
		t.Error("evidence was looked for under enforce without a policy")
	}
}

// Who explains sees all evidence, whatever is decided.
func TestExplainingLooksAtEverythingAndDecidesTheSame(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release", "dev", "ci")
	for _, p := range []Policy{{Require: one("release")}, {AllowUnverified: true}} {
		p.Match = mustMatch(t, "**")
		plain, all := w.evaluator(Config{Policies: []Policy{p}}, Options{}), w.evaluator(Config{Policies: []Policy{p}}, Options{Everything: true})
		allow(t, plain, w, subject())
		if d := allow(t, all, w, subject()); len(d.Evidence) != 3 {
			t.Errorf("%d pieces of evidence", len(d.Evidence))
		}
	}
}

// A signer whose name would be a pattern is not written into a configuration: it would
// stand for others as well.
func TestNamesThatArePatternsAreNotSuggested(t *testing.T) {
	for subject, want := range map[string]bool{
		"dev@acme.example":                    true,
		"https://acme.example/a?b=c#d":        true,
		"*@acme.example":                      false,
		"https://acme.example/{repo}":         false,
		"dev@acme.example\nrequire: anybody":  false,
		"d\u00e9v@acme.example":               false,
		"dev@acme.example \u202e":             false,
		"":                                    false,
		"**":                                  false,
		"https://acme.example/" + long("x/*"): false,
	} {
		if got := writable(verifier.Claimed{Issuer: testIssuer, Subject: subject}); got != want {
			t.Errorf("%q: %v", subject, got)
		}
	}
	if writable(verifier.Claimed{Subject: "dev@acme.example"}) {
		t.Error("without an issuer anybody's word would do")
	}
}

func long(text string) string { return strings.Repeat(text, 2000) }

func TestSignersAreWrittenInTheShortestExactForm(t *testing.T) {
	github := "https://github.com/acme/web/.github/workflows/release.yml@refs/heads/main"
	for _, tt := range []struct{ issuer, subject, want string }{
		{githubIssuer, github, "{github: {repository: acme/web, workflow: release.yml, ref: refs/heads/main}}"},
		{"https://a.example", github, `{keyless: {issuer: "https://a.example", subject: "` + github + `"}}`},
		{githubIssuer, "dev@a.example", `{keyless: {issuer: "https://token.actions.githubusercontent.com", subject: "dev@a.example"}}`},
		{"https://a.example", `"}, x: {"`, `{keyless: {issuer: "https://a.example", subject: "\"}, x: {\""}}`},
	} {
		if got := identityConfig(verifier.Claimed{Issuer: tt.issuer, Subject: tt.subject}); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	for text, want := range map[string]string{"release": "release", "yes": `"yes"`, "1": `"1"`, "a b": `"a b"`, "quay.io": "quay.io", "reg:5000": `"reg:5000"`, "<&>": `"<&>"`} {
		if got := yamlText(text); got != want {
			t.Errorf("%s is written %s", text, got)
		}
	}
}

// settled is an upstream's error that says what would mend it.
type settled struct{ kind, where, config string }

func (s settled) Error() string             { return "no" }
func (s settled) Kind() string              { return s.kind }
func (s settled) Setting() (string, string) { return s.where, s.config }

func TestWhatCannotBeReadSaysWhichSettingMendsIt(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{settled{"refused", "upstreams", `local: {authHosts: ["auth.example:443"]}`}, `local: {authHosts: ["auth.example:443"]}`},
		{settled{kind: "unauthorized"}, "ghcr.io: {username: USER, passwordFile: FILE}"},
		{settled{kind: "tls"}, "ghcr.io: {ca: FILE}"},
		{settled{kind: "unavailable"}, ""},
		{errors.New("no"), ""},
	} {
		w := newWorld(t)
		w.failWith(func(string) error { return tt.err })
		d, _ := cannotTell(t, w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{}), w, subject())
		config := ""
		for _, r := range d.Remedies {
			config += r.Config
		}
		if config != tt.want || d.Remedies[0].Do != hintAgain {
			t.Errorf("%#v: %+v", tt.err, d.Remedies)
		}
		if strings.Contains(d.Hint, "auth.example") {
			t.Errorf("clients are told of a host: %s", d.Hint)
		}
	}
}

// Whom one would trust is written only where it would be enough.
func TestAKnownSignerIsSuggestedWhereThatSuffices(t *testing.T) {
	for _, tt := range []struct {
		p    Policy
		by   string
		want bool
	}{
		{Policy{Require: one("release")}, "ci", true},
		{Policy{Require: some(1, "release", "vendor")}, "ci", true},
		{Policy{Require: allOf("release", "vendor")}, "ci", false},
		{Policy{Require: one("release")}, "ci @ghcr.io/acme/other", false},
		{Policy{Require: one("release"), Annotations: map[string]string{"env": "prod"}}, "ci", false},
	} {
		_, d := sentence(t, tt.p, tt.by)
		if got := strings.Contains(d.Hint, "who has signed it, may vouch here"); got != tt.want {
			t.Errorf("%+v by %s: %s", tt.p.Require, tt.by, d.Hint)
		}
	}
}

func TestEachPieceIsWeighed(t *testing.T) {
	annotated := Policy{Require: one("release"), Annotations: map[string]string{"env": "prod"}}
	for _, tt := range []struct {
		name string
		p    Policy
		by   string
		want string // the policy's checks
		for_ string
	}{
		{"it counts", Policy{Require: one("release")}, "release", "authority holds, name holds", "release"},
		{"names are ignored", Policy{Require: one("release"), SignedAs: Ignore}, "release", "authority holds", "release"},
		{"by another", Policy{Require: one("release")}, "ci", "authority fails", ""},
		{"under another name", Policy{Require: one("release")}, "release @ghcr.io/acme/other", "authority holds, name fails", ""},
		{"without the annotation", annotated, "release", "authority holds, name holds, annotations fails", ""},
		{"at no proven time", Policy{Require: one("release"), SignedAs: Ignore, MinAge: time.Hour}, "release", "authority holds, age fails", ""},
	} {
		w := newWorld(t)
		w.sign(web, tt.by)
		tt.p.Match = mustMatch(t, "**")
		authorities := w.authorities()
		root := newProving(t).trust()
		for i := range authorities {
			authorities[i].Root = root
		}
		d, err := w.evaluator(Config{Authorities: authorities, Policies: []Policy{tt.p}}, Options{}).Evaluate(t.Context(), w, subject())
		if err != nil || len(d.Weights) != 1 {
			t.Fatalf("%s: %v, %+v", tt.name, err, d)
		}
		var got []string
		for _, c := range d.Weights[0].Checks() {
			got = append(got, c.Name+" "+c.Outcome)
		}
		piece := d.Pieces()[0]
		if strings.Join(got, ", ") != tt.want || strings.Join(piece.Counts, " ") != tt.for_ || piece.Nearest != (tt.for_ == "") {
			t.Errorf("%s: %s; for %v, nearest %v", tt.name, strings.Join(got, ", "), piece.Counts, piece.Nearest)
		}
		if (d.Weights[0].Failed() == "") != (tt.for_ != "") || d.Allowed != (tt.for_ != "") {
			t.Errorf("%s: allowed %v, %q", tt.name, d.Allowed, d.Weights[0].Failed())
		}
		encoded, err := json.Marshal(piece)
		if err != nil || !strings.Contains(string(encoded), `"form":"simple-signing"`) || !strings.Contains(string(encoded), `"checks":[{"check":"form","outcome":"holds"}`) {
			t.Errorf("%s: %v, %s", tt.name, err, encoded)
		}
	}
}
