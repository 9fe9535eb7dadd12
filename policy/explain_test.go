package policy

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// sentence evaluates and returns the sentence without its id, keys as KEY.
func sentence(t *testing.T, p Policy, signatures ...string) (string, Decision) {
	t.Helper()
	w := newWorld(t)
	if len(signatures) > 0 {
		w.sign(web, signatures...)
	}
	if p.Match.include == nil {
		p.Match = mustMatch(t, "**")
	}
	d, err := w.evaluator(Config{Policies: []Policy{p}}, Options{}).Evaluate(t.Context(), w, subject())
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`key [0-9a-f]{8}…`).ReplaceAllString(d.Sentence("acme/web:v1"), "key KEY")
	return regexp.MustCompile(` \[id [0-9a-f]{16}\]$`).ReplaceAllString(text, ""), d
}

func TestSentences(t *testing.T) {
	production := func(r Require) Policy { return Policy{Name: "production", Require: r} }
	exact := production(one("release"))
	exact.SignedAs = Exact
	named := production(one("release"))
	named.SignedAs = Repository
	annotated := production(one("release"))
	annotated.Annotations = map[string]string{"env": "prod"}
	message := production(one("release"))
	message.Message = "Release with `make release`,\nsee https://wiki/sign"
	const refused = "Vidimus refused acme/web:v1 (policy production): "
	for _, test := range []struct {
		policy     Policy
		signatures []string
		want       string
	}{
		{production(one("release")), nil, refused + "not signed; a signature by release is needed."},
		{production(anyOf("release", "ci")), nil, refused + "not signed; a signature by one of release, ci is needed."},
		{production(allOf("release", "ci")), nil, refused + "not signed; signatures by all of release, ci are needed."},
		{production(some(2, "release", "ci", "vendor")), nil, refused + "not signed; signatures by 2 of release, ci, vendor are needed."},
		{production(one("release")), []string{"stranger"}, refused + "signed, but not by release."},
		{production(one("release")), []string{"dev"}, refused + "signed, but not by release; nearest: key KEY (dev) signed it."},
		{production(anyOf("release", "ci")), []string{"ci @ghcr.io/other/web"},
			refused + "signed by ci, but for ghcr.io/other/web."},
		{production(anyOf("release", "ci")), []string{"stranger"}, refused + "signed, but by none of release, ci."},
		{production(one("release")), []string{"release #other"}, refused + "release signed another digest, of ghcr.io/acme/web."},
		{production(one("release")), []string{"release #other @"}, refused + "release signed another digest."},
		{production(one("release")), []string{"dev #other"}, refused + "signed, but not by release; nearest: key KEY (dev) signed another digest, of ghcr.io/acme/web."},
		{production(allOf("release", "ci")), []string{"ci", "release #other"},
			refused + "signed by ci, but signatures by all of release, ci are needed; nearest: key KEY (release) signed another digest, of ghcr.io/acme/web."},
		{named, []string{"release @"}, refused + "signed by release, but without a name."},
		{exact, []string{"release"}, refused + "signed by release, but for ghcr.io/acme/web, not for tag v1."},
		{annotated, []string{"release"}, refused + "signed by release, but without annotation env=prod."},
		{annotated, []string{"release +env=dev"}, refused + "signed by release, but with annotation env=dev, not env=prod."},
		{production(allOf("release", "ci")), []string{"ci"}, refused + "signed by ci, but signatures by all of release, ci are needed."},
		{production(allOf("release", "ci")), []string{"ci", "release @ghcr.io/x/y"},
			refused + "signed by ci, but signatures by all of release, ci are needed; nearest: key KEY (release) signed it for ghcr.io/x/y."},
		{message, nil, refused + "not signed; a signature by release is needed. Release with `make release`, see https://wiki/sign"},
		{Policy{Name: "old", Deny: "moved to ghcr.io/acme"}, nil, "Vidimus refused acme/web:v1 (policy old): denied by policy: moved to ghcr.io/acme."},
		{Policy{Name: "x", Match: mustMatch(t, "quay.io/**"), Deny: "no"}, nil, "Vidimus refused acme/web:v1: no policy matches this repository."},
		{production(one("release")), []string{"release"}, "Vidimus allowed acme/web:v1 (policy production): signed by release."},
		{Policy{Name: "base", AllowUnverified: true}, nil, "Vidimus allowed acme/web:v1 (policy base): unverified, as the policy says."},
	} {
		if got, _ := sentence(t, test.policy, test.signatures...); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	if got, _ := sentence(t, production(one("release")), "release !bad"); !strings.HasPrefix(got, refused+"signed by release, but the payload is not valid: ") {
		t.Errorf("got %s", got)
	}
}

func TestASignatureWhosePayloadIsGoneIsNobodys(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release +unlike=others")
	for name := range w.content {
		if strings.Contains(name, "@sha256:") {
			delete(w.content, name)
		}
	}
	d := deny(t, w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{}), w, subject(), ReasonPayloadInvalid)
	if !regexp.MustCompile(`^there is a signature that cannot be checked: its payload sha256:[0-9a-f]{64} is missing; a signature by release is needed$`).MatchString(d.Explained) {
		t.Errorf("got %s", d.Explained)
	}
}

func TestWhatIsServedAllTheSameIsNotSaidToBeRefused(t *testing.T) {
	const why = " x (policy p): not signed."
	for _, test := range []struct {
		d    Decision
		want string
	}{
		{Decision{Reason: ReasonUnsigned}, "Vidimus refused" + why},
		{Decision{Reason: ReasonUnsigned, Enforcement: Warn}, "Vidimus would refuse" + why},
		{Decision{Reason: ReasonUnsigned, Enforcement: Observe}, "Vidimus would refuse" + why},
		{Decision{Reason: ReasonRevoked, Enforcement: Observe}, "Vidimus refused" + why},
		{Decision{Reason: ReasonInconclusive, Enforcement: Warn}, "Vidimus could not decide about" + why},
		{Decision{Allowed: true, Enforcement: Warn}, "Vidimus allowed" + why},
	} {
		test.d.Policy, test.d.Explained = "p", "not signed"
		if got := test.d.Sentence("x"); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestHints(t *testing.T) {
	const at = web + "@"
	annotated := Policy{Require: allOf("release", "ci"), Annotations: map[string]string{"note": "it's ok", "env": "prod"}}
	for _, test := range []struct {
		name       string
		policy     Policy
		signatures []string
		want       string
	}{
		{"sign it", Policy{Require: one("release")}, nil, "with a key of release: vidimus sign --key cosign.key " + at + image.String()},
		{"only who is missing", Policy{Require: allOf("release", "ci")}, []string{"ci"}, "with a key of release: vidimus sign --key cosign.key " + at + image.String()},
		{"with annotations, quoted for a shell", annotated, nil, `with a key of release, ci: vidimus sign --key cosign.key -a env=prod -a 'note=it'\''s ok' ` + at + image.String()},
		{"under the exact name", Policy{Require: one("release"), SignedAs: Exact}, []string{"release"},
			"with a key of release: vidimus sign --key cosign.key --sign-container-identity ghcr.io/acme/web:v1 " + at + image.String()},
		{"under the original's name", Policy{Require: one("release"), SignedAs: Remapped, Remap: Remap{Prefix: "ghcr.io/acme", SignedPrefix: "docker.io/acme"}}, nil,
			"with a key of release: vidimus sign --key cosign.key --sign-container-identity docker.io/acme/web " + at + image.String()},
		{"or take it for a copy", Policy{Name: "prod", Require: one("release")}, []string{"release @index.docker.io/acme/web"},
			"with a key of release: vidimus sign --key cosign.key " + at + image.String() +
				"; or, when ghcr.io/acme/web holds trusted copies of docker.io/acme/web, add to policy prod: signedAs: {prefix: ghcr.io/acme/web, signedPrefix: docker.io/acme/web}"},
	} {
		if _, d := sentence(t, test.policy, test.signatures...); d.Hint != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, d.Hint, test.want)
		}
	}
}

func TestTheHintForACopyMendsIt(t *testing.T) {
	p := Policy{Require: one("release"), SignedAs: Remapped, Remap: Remap{Prefix: web, SignedPrefix: "docker.io/acme/web"}}
	if got, d := sentence(t, p, "release @index.docker.io/acme/web"); !d.Allowed {
		t.Errorf("got %s", got)
	}
}

// hostile is text that would forge log lines, colour terminals, turn the
// direction of writing, hide, or fill a disk.
var hostile = []string{
	"a\nVidimus allowed everything", "a\r\nb", "\x1b[2J\x1b[31mred", "\u202eevil", "a\u2028b", "\u200bhidden", "\x00", "\xff\xfe", "\U000e0001",
	strings.Repeat("long", 100_000),
}

func fitForALine(t *testing.T, text string, most int) {
	t.Helper()
	if n := utf8.RuneCountInString(text); n > most {
		t.Errorf("%d characters: %.200q", n, text)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not fit for a line: %.200q", text)
	}
}

func TestNoTextOfEvidenceBreaksALine(t *testing.T) {
	w := newWorld(t)
	for _, text := range hostile {
		for _, payload := range []map[string]any{
			{"name": text}, {"name": "ghcr.io/acme/web", "env": text}, {"name": "ghcr.io/acme/web", "env": []any{text, map[string]any{text: text}}},
		} {
			if len(text) > 1000 && payload["env"] != nil {
				continue // larger than a payload may be
			}
			w.signPayload(web, "release", payload["name"].(string), payload["env"])
			p := Policy{Match: mustMatch(t, "**"), Require: one("release"), Annotations: map[string]string{"env": "prod"}}
			e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
			s := subject()
			d, err := e.Evaluate(t.Context(), w, s)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				t.Errorf("%.50q is allowed", text)
			}
			fitForALine(t, d.Explained, 700)
			fitForALine(t, d.Hint, 1500)
			fitForALine(t, d.Sentence(text), 2000)
		}
	}
}

func TestNoTextOfARequestBreaksALine(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	p := Policy{Match: mustMatch(t, "**"), Require: one("release"), SignedAs: Exact}
	e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
	for _, text := range hostile {
		s := subject()
		s.Tag = text
		d := deny(t, e, w, s, ReasonIdentityMismatch)
		fitForALine(t, d.Explained, 700)
		fitForALine(t, d.Hint, 1500)
		fitForALine(t, d.Sentence("x"), 2000)
		s.Repository = text
		d = deny(t, e, w, s, ReasonNoPolicy)
		fitForALine(t, d.Hint, 1500)
		fitForALine(t, d.Sentence(text), 2000)
	}
}

func TestClean(t *testing.T) {
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 5, ""},
		{"plain", 5, "plain"},
		{"plainer", 5, "plai…"},
		{"äöü", 3, "äöü"},
		{"a\nb", 10, `a\u000ab`},
		{"a\nb", 6, `a…`},
		{"\xff", 10, `\xff`},
		{"\u202e", 10, `\u202e`},
		{"\U000e0001", 10, `\U000e0001`},
	} {
		if got := clean(test.text, test.limit); got != test.want {
			t.Errorf("clean(%q, %d) = %q, want %q", test.text, test.limit, got, test.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, text := range hostile[:9] {
		f.Add(text, 20)
	}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 1 + max(limit, -limit, 0)%1000
		once := clean(text, limit)
		if once != "" {
			fitForALine(t, once, limit)
		}
		if again := clean(once, limit); again != once {
			t.Fatalf("%q became %q and then %q", text, once, again)
		}
		if fits := utf8.ValidString(text) && utf8.RuneCountInString(text) <= limit && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); fits && once != text {
			t.Fatalf("%q became %q", text, once)
		}
	})
}

func TestHintsNameARepositoryThatCanBeDialled(t *testing.T) {
	for _, test := range []struct {
		name    string
		subject Subject
		want    string
	}{
		{"a registry by its host", Subject{Repository: "ghcr.io/acme/web", Aliases: []string{"other/acme/web"}}, "ghcr.io/acme/web"},
		{"a registry by host and port", Subject{Repository: "registry:5000/web", Aliases: []string{"other/web"}}, "registry:5000/web"},
		{"an upstream with a name of its own", Subject{Repository: "local/acme/web", Aliases: []string{"127.0.0.1:5002/acme/web", "x/acme/web"}}, "127.0.0.1:5002/acme/web"},
		{"no other name is known", Subject{Repository: "local/acme/web"}, "local/acme/web"},
	} {
		if got := test.subject.reachable(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
