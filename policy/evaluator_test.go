package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

func TestTheFirstPolicyThatMatchesDecides(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	w.sign("ghcr.io/acme/tools", "ci @ghcr.io/acme/tools")
	w.sign("ghcr.io/acme/secret", "release @ghcr.io/acme/secret")
	e := w.evaluator(Config{Policies: []Policy{
		{Match: mustMatch(t, "ghcr.io/acme/tools"), Require: one("ci")},
		{Match: mustMatch(t, "ghcr.io/acme/**", "!ghcr.io/acme/secret"), Require: one("release")},
		{Match: mustMatch(t, "docker.io/library/**"), AllowUnverified: true},
		{Match: mustMatch(t, "quay.io/old/**"), Deny: "moved to ghcr.io/acme"},
	}}, Options{})
	at := func(repository string) Subject { return Subject{Repository: repository, Tag: "v1", Digest: image} }

	allow(t, e, w, at(web))
	allow(t, e, w, at("ghcr.io/acme/tools"))
	allow(t, e, w, at("docker.io/library/nginx"))
	deny(t, e, w, at("quay.io/old/web"), ReasonPolicyDeny)
	deny(t, e, w, at("ghcr.io/acme/other"), ReasonUnsigned)
	deny(t, e, w, at("ghcr.io/acme/secret"), ReasonNoPolicy)
	deny(t, e, w, at("quay.io/new/web"), ReasonNoPolicy)
	deny(t, e, w, at("docker.io/nginx"), ReasonNoPolicy)
	deny(t, e, w, at("index.docker.io/library/nginx"), ReasonNoPolicy)
	deny(t, e, w, at("docker.io/library/../library/nginx"), ReasonNoPolicy)
	deny(t, e, w, at(""), ReasonNoPolicy)
	deny(t, e, w, Subject{}, ReasonNoPolicy)
}

func TestAnEmptySetDenies(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	deny(t, w.evaluator(Config{}, Options{}), w, subject(), ReasonNoPolicy)
}

func TestRevokedBeforeExceptionBeforePolicy(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	clock := today
	config := Config{
		Now: func() time.Time { return clock },
		Policies: []Policy{
			{Match: mustMatch(t, web), Require: one("release")},
			{Match: mustMatch(t, "ghcr.io/acme/**"), Deny: "no"},
		},
		Exceptions: []Exception{
			{Match: mustMatch(t, "ghcr.io/acme/**"), Digests: []v1.Hash{otherImage}, Until: today.Add(time.Hour), Reason: "INC-1"},
			{Match: mustMatch(t, "ghcr.io/acme/tools", "quay.io/**"), Digests: []v1.Hash{otherImage}, Until: today.Add(2 * time.Hour), Reason: "INC-2"},
		},
	}
	of := func(repository string, digest v1.Hash) Subject {
		return Subject{Repository: repository, Digest: digest}
	}
	options := Options{Now: func() time.Time { return clock }}
	e := w.evaluator(config, options)

	d := allow(t, e, w, of("ghcr.io/acme/x", otherImage)) // against its policy's deny
	if d.Exception != "INC-1" || !d.Expires.Equal(today.Add(time.Hour)) || d.Policy != "ghcr.io/acme/**" {
		t.Errorf("got %+v", d)
	}
	if d := allow(t, e, w, of("ghcr.io/acme/tools", otherImage)); d.Exception != "INC-2" { // the longer one
		t.Errorf("got %+v", d)
	}
	allow(t, e, w, of("quay.io/x", otherImage)) // where no policy matches
	if w.reads != 0 {
		t.Errorf("an exception read evidence %d times", w.reads)
	}
	deny(t, e, w, of("quay.io/x", image), ReasonNoPolicy)                // another digest
	deny(t, e, w, of("docker.io/library/x", otherImage), ReasonNoPolicy) // another repository

	config.Revoked = []v1.Hash{otherImage, image}
	revoking := w.evaluator(config, options)
	deny(t, revoking, w, of("ghcr.io/acme/x", otherImage), ReasonRevoked)
	if d := deny(t, revoking, w, subject(), ReasonRevoked); d.Policy != web || d.Served() {
		t.Errorf("got %+v", d)
	}
	if !revoking.Revoked(image) || e.Revoked(image) {
		t.Error("Revoked says otherwise")
	}

	if n := e.set.ActiveExceptions(clock); n != 2 {
		t.Errorf("%d exceptions are active", n)
	}
	clock = today.Add(time.Hour)
	deny(t, e, w, of("ghcr.io/acme/x", otherImage), ReasonPolicyDeny)
	allow(t, e, w, of("ghcr.io/acme/tools", otherImage))
	if n := e.set.ActiveExceptions(clock); n != 1 {
		t.Errorf("%d exceptions are active", n)
	}
}

func TestADecisionSaysWhatItIsAbout(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "dev", "release")
	var observed []Decision
	e := w.evaluator(Config{
		Revision: "r7",
		Policies: []Policy{{Name: "production", Match: mustMatch(t, "**"), Require: one("release"), Message: "ask us", Enforcement: new(Warn)}},
	}, Options{Now: func() time.Time { return today }, Observe: func(d Decision, took time.Duration) { observed = append(observed, d) }})
	d := allow(t, e, w, subject())
	again := allow(t, e, w, subject())
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(d.ID) || d.ID == again.ID {
		t.Errorf("ids %q and %q", d.ID, again.ID)
	}
	if d.Revision != "r7" || d.Policy != "production" || d.Enforcement != Warn || !d.Time.Equal(today) || d.Message != "ask us" || !d.Expires.IsZero() {
		t.Errorf("got %+v", d)
	}
	if !slices.Equal(d.Satisfied, []string{"release"}) || len(d.Evidence) != 2 {
		t.Errorf("signed by %v, of %d pieces of evidence", d.Satisfied, len(d.Evidence))
	}
	if len(observed) != 2 || observed[0].ID != d.ID || !observed[0].Allowed {
		t.Errorf("observed %+v", observed)
	}
}

func TestADecisionTakesTheIDThatItIsGiven(t *testing.T) {
	w := newWorld(t)
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
	s := subject()
	s.ID = "0123456789abcdef"
	if d := deny(t, e, w, s, ReasonUnsigned); d.ID != s.ID || !strings.HasSuffix(d.Sentence("x"), "[id 0123456789abcdef]") {
		t.Errorf("got %q", d.Sentence("x"))
	}
	w.failWith(func(string) error { panic("oh") })
	if d, _ := cannotTell(t, e, w, s); d.ID != s.ID {
		t.Errorf("got %q", d.ID)
	}
}

func TestAllowUnverifiedAndDenyReadNothing(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	for _, p := range []Policy{{AllowUnverified: true}, {Deny: "no"}} {
		p.Match = mustMatch(t, "**")
		for _, ceiling := range []Enforcement{Enforce, Warn, Observe} {
			e := w.evaluator(Config{Enforcement: ceiling, Policies: []Policy{p}}, Options{})
			if _, err := e.Evaluate(t.Context(), w, subject()); err != nil {
				t.Error(err)
			}
		}
	}
	if w.reads != 0 {
		t.Errorf("%d reads", w.reads)
	}
}

func TestObservingLooksForEvidenceWithoutAPolicy(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "dev", "stranger", "ci")
	e := w.evaluator(Config{Enforcement: Observe}, Options{})
	d := deny(t, e, w, subject(), ReasonNoPolicy)
	if len(d.Evidence) != 3 || !slices.Equal(d.Satisfied, []string{"ci", "dev"}) || !d.Served() {
		t.Errorf("got %+v", d)
	}
	nobody := w.evaluator(Config{Enforcement: Observe, Authorities: []verifier.Authority{}}, Options{})
	if d := deny(t, nobody, w, subject(), ReasonNoPolicy); len(d.Evidence) != 3 {
		t.Errorf("without an authority: %d pieces of evidence", len(d.Evidence))
	}
	w.failWith(func(string) error { return errors.New("503") })
	deny(t, e, w, subject(), ReasonNoPolicy) // it is that whatever evidence there is
	for _, ceiling := range []Enforcement{Enforce, Warn} {
		w.reads = 0
		deny(t, w.evaluator(Config{Enforcement: ceiling}, Options{}), w, subject(), ReasonNoPolicy)
		if w.reads != 0 {
			t.Errorf("%s: %d reads", ceiling, w.reads)
		}
	}
}

func TestASourceThatCannotBeReadMakesADenialInconclusive(t *testing.T) {
	unreadable := errors.New("upstream ghcr.io: 503")
	failing := func(part string) func(string) error {
		return func(reference string) error {
			if strings.Contains(reference, part) {
				return unreadable
			}
			return nil
		}
	}
	w := newWorld(t)
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Message: "sign it"}}}, Options{})

	w.failWith(failing(".sig"))
	d, err := cannotTell(t, e, w, subject())
	if !errors.Is(err, unreadable) || d.Policy != "**" || d.ID == "" {
		t.Errorf("got %+v, %v", d, err)
	}
	if s := d.Sentence("acme/web:v1"); !strings.HasPrefix(s, "Vidimus could not decide about acme/web:v1 (policy **): could not look for signatures: they could not be read from upstream ghcr.io. [id ") || strings.Contains(s, "sign it") {
		t.Errorf("sentence: %s", s)
	}

	w.sign(web, "stranger")
	w.failWith(failing(".cosign"))
	cannotTell(t, e, w, subject()) // what was found does not suffice, and what was not might

	w.sign(web, "stranger", "release")
	allow(t, e, w, subject()) // what was not found is not needed

	w.sign(web, "stranger", "release +unlike=others")
	w.failWith(failing("@sha256:"))
	cannotTell(t, e, w, subject())
	w.failWith(nil)
	allow(t, e, w, subject())
}

// fails is an error of an upstream, which says of what kind it is.
type fails struct{ kind string }

func (f fails) Error() string {
	return "upstream local: manifest " + sigTag + ": lookup registry.corp on 10.0.0.53:53: dial tcp 192.0.2.1:5000: connection refused"
}
func (f fails) Kind() string { return f.kind }

func TestAnInconclusiveDecisionSaysShortlyWhatCouldNotBeAsked(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{fails{"unavailable"}, "upstream local is unreachable or failing"},
		{fails{"unauthorized"}, "upstream local asks for credentials (401)"},
		{fails{"forbidden"}, "upstream local does not let Vidimus read them (403)"},
		{fails{"rate-limited"}, "upstream local has had too many requests (429)"},
		{fails{"tls"}, "no TLS connection to upstream local can be made"},
		{fails{"refused"}, "upstream local leads to an address that Vidimus does not dial"},
		{fails{"mismatch"}, "upstream local answers with something malformed or too large"},
		{fails{"new"}, "they could not be read from upstream local"},
		{errors.New("disk full"), "they could not be read from upstream local"},
	} {
		w := newWorld(t)
		w.failWith(func(string) error { return fmt.Errorf("read: %w", test.err) })
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
		d, err := cannotTell(t, e, w, Subject{Repository: "local/acme/web", Tag: "v1", Digest: image})
		if want := "could not look for signatures: " + test.want; d.Explained != want {
			t.Errorf("got  %s\nwant %s", d.Explained, want)
		}
		if s := d.Sentence("local/acme/web:v1"); len(s) > 200 || strings.Contains(s, "10.0.0.53") {
			t.Errorf("%d characters: %s", len(s), s)
		}
		want := []string{".sig tag: read: " + test.err.Error(), ".cosign tag: read: " + test.err.Error(), "referrers: read: " + test.err.Error()}
		if !slices.Equal(d.Causes, want) || !errors.Is(err, test.err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("causes %q of %v", d.Causes, err)
		}
	}
}

func TestCausesAreBounded(t *testing.T) {
	w := newWorld(t)
	var list []string
	for i := range 30 {
		list = append(list, fmt.Sprintf("release +n=%d", i))
	}
	w.sign(web, list...)
	w.failWith(func(reference string) error {
		if strings.Contains(reference, "@sha256:") {
			return errors.New(strings.Repeat("x\n", 10_000))
		}
		return nil
	})
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
	d, _ := cannotTell(t, e, w, subject())
	if len(d.Causes) != maxCauses+1 || d.Causes[maxCauses] != "and 22 more" {
		t.Errorf("%d causes, the last %q", len(d.Causes), d.Causes[len(d.Causes)-1])
	}
	for _, cause := range d.Causes {
		fitForALine(t, cause, maxDetail)
	}
}

func TestASuspendedAuthority(t *testing.T) {
	w := newWorld(t)
	authorities := w.authorities()
	authorities[0].Suspended = "release.pub: no such file\nor \x1b[31mdirectory"
	test := func(r Require, signatures ...string) (*Evaluator, *world) {
		w := newWorld(t)
		if len(signatures) > 0 {
			w.sign(web, signatures...)
		}
		return w.evaluator(Config{Authorities: authorities, Policies: []Policy{{Match: mustMatch(t, "**"), Require: r}}}, Options{}), w
	}
	e, w := test(one("release"), "release")
	d, _ := cannotTell(t, e, w, subject())
	const why = `authority release is suspended: release.pub: no such file\u000aor \u001b[31mdirectory`
	if d.Explained != why || d.Hint != "put the key file of release back" || !slices.Equal(d.Causes, []string{why}) {
		t.Errorf("explained: %s; hint: %s; causes: %q", d.Explained, d.Hint, d.Causes)
	}
	e, w = test(allOf("ci", "release"), "ci", "release")
	cannotTell(t, e, w, subject())
	e, w = test(anyOf("ci", "release"), "release")
	cannotTell(t, e, w, subject())

	e, w = test(anyOf("ci", "release"), "release", "ci")
	allow(t, e, w, subject()) // without it
	e, w = test(one("release"))
	d = deny(t, e, w, subject(), ReasonUnsigned) // it could not have turned that
	if !strings.HasSuffix(d.Hint, "; and put the key file of release back: "+why) {
		t.Errorf("hint: %s", d.Hint)
	}
	e, w = test(allOf("ci", "release"), "ci")
	deny(t, e, w, subject(), ReasonThreshold) // nor that: nobody else has signed
	e, w = test(some(3, "ci", "release", "vendor"), "release", "ci")
	deny(t, e, w, subject(), ReasonThreshold) // nor that: one more is missing
	e, w = test(one("ci"), "release")
	deny(t, e, w, subject(), ReasonUntrusted) // it is not required
}

func TestAKeyThatASuspendedAuthorityShares(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	e := w.evaluator(Config{
		Authorities: []verifier.Authority{
			{Name: "gone", Keys: []verifier.Key{w.key("release")}, Suspended: "its file is gone"},
			{Name: "release", Keys: []verifier.Key{w.key("release")}},
		},
		Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("gone")}},
	}, Options{})
	cannotTell(t, e, w, subject())
}

func TestTooManySignatures(t *testing.T) {
	w := newWorld(t)
	strangers := func(n int) []string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("stranger +n=%d", i))
		}
		return list
	}
	e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})

	w.sign(web, append(strangers(verifier.MaxSignatures-1), "release")...)
	allow(t, e, w, subject()) // the last that is tried

	w.sign(web, append(strangers(verifier.MaxSignatures), "release")...)
	deny(t, e, w, subject(), ReasonTooManySignatures)

	w.sign(web, append([]string{"release"}, strangers(verifier.MaxSignatures)...)...)
	allow(t, e, w, subject()) // what lies within the limit is evaluated

	w.sign(web, strangers(verifier.MaxSignatures)...)
	deny(t, e, w, subject(), ReasonUntrusted)
}
