package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

func one(name string) Require             { return Require{AtLeast: 1, Of: []string{name}} }
func anyOf(names ...string) Require       { return Require{AtLeast: 1, Of: names} }
func allOf(names ...string) Require       { return Require{AtLeast: len(names), Of: names} }
func some(n int, names ...string) Require { return Require{AtLeast: n, Of: names} }

func TestEvidenceAgainstPolicy(t *testing.T) {
	const (
		allowed = ""
		other   = "@ghcr.io/other/web"
	)
	signatures := func(list ...string) []string { return list }
	require := func(r Require) Policy { return Policy{Require: r} }
	as := func(how SignedAs) Policy { return Policy{Require: one("release"), SignedAs: how} }
	annotated := func(r Require, pairs ...string) Policy {
		p := Policy{Require: r, Annotations: map[string]string{}}
		for _, pair := range pairs {
			key, value, _ := strings.Cut(pair, "=")
			p.Annotations[key] = value
		}
		return p
	}
	for _, test := range []struct {
		name       string
		policy     Policy
		signatures []string
		reason     string
	}{
		// Who has signed.
		{"nobody signed", require(one("release")), nil, ReasonUnsigned},
		{"the required authority signed", require(one("release")), signatures("release"), allowed},
		{"a stranger signed", require(one("release")), signatures("stranger"), ReasonUntrusted},
		{"an authority signed that is not required", require(one("release")), signatures("dev"), ReasonUntrusted},
		{"the required one among others", require(one("release")), signatures("stranger", "dev", "release ~broken", "release #other", "release"), allowed},
		{"one of any", require(anyOf("ci", "release")), signatures("release"), allowed},
		{"none of any", require(anyOf("ci", "release")), signatures("dev", "stranger"), ReasonUntrusted},
		{"all of all", require(allOf("ci", "release")), signatures("release", "ci"), allowed},
		{"one of all", require(allOf("ci", "release")), signatures("release"), ReasonThreshold},
		{"one of all, twice over", require(allOf("ci", "release")), signatures("release", "release", "release +a=b"), ReasonThreshold},
		{"one of all and a stranger", require(allOf("ci", "release")), signatures("release", "stranger", "dev"), ReasonThreshold},
		{"two of three", require(some(2, "ci", "release", "vendor")), signatures("vendor", "ci"), allowed},
		{"three of three where two do", require(some(2, "ci", "release", "vendor")), signatures("vendor", "ci", "release"), allowed},
		{"one of three where two are needed", require(some(2, "ci", "release", "vendor")), signatures("vendor"), ReasonThreshold},
		{"a signature that is broken", require(one("release")), signatures("release ~broken"), ReasonUntrusted},

		// What is signed.
		{"another image", require(one("release")), signatures("release #other"), ReasonDigestMismatch},
		{"a payload that is none", require(one("release")), signatures("release !bad"), ReasonPayloadInvalid},
		{"a payload that is none, by a stranger", require(one("release")), signatures("stranger !bad"), ReasonUntrusted},

		// The name that is claimed: ifPresent.
		{"no name", as(IfPresent), signatures("release @"), allowed},
		{"this name", as(IfPresent), signatures("release @ghcr.io/acme/web"), allowed},
		{"this name and the tag", as(IfPresent), signatures("release @ghcr.io/acme/web:v1"), allowed},
		{"this name and another tag", as(IfPresent), signatures("release @ghcr.io/acme/web:v2"), allowed},
		{"this name and the digest", as(IfPresent), signatures("release @ghcr.io/acme/web@" + image.String()), allowed},
		{"another name", as(IfPresent), signatures("release " + other), ReasonIdentityMismatch},
		{"a longer name", as(IfPresent), signatures("release @ghcr.io/acme/web/x"), ReasonIdentityMismatch},
		{"a name without a registry", as(IfPresent), signatures("release @acme/web"), ReasonIdentityMismatch},
		{"the name in another letter case", as(IfPresent), signatures("release @GHCR.IO/acme/web"), ReasonIdentityMismatch},
		{"a name that is none", as(IfPresent), signatures("release @::://"), ReasonIdentityMismatch},
		{"by the upstream's host", as(IfPresent), signatures("release @registry.acme.example:5000/acme/web:v7"), allowed},
		{"by the proxy's host", as(IfPresent), signatures("release @proxy.example/ghcr.io/acme/web"), allowed},
		{"another repository at the upstream's host", as(IfPresent), signatures("release @registry.acme.example:5000/acme/other"), ReasonIdentityMismatch},

		// ignore, repository, exact.
		{"another name, ignored", as(Ignore), signatures("release " + other), allowed},
		{"a name that is none, ignored", as(Ignore), signatures("release @::://"), allowed},
		{"ignored name, other image", as(Ignore), signatures("release #other"), ReasonDigestMismatch},
		{"repository: the name", as(Repository), signatures("release"), allowed},
		{"repository: no name", as(Repository), signatures("release @"), ReasonIdentityMismatch},
		{"repository: another name", as(Repository), signatures("release " + other), ReasonIdentityMismatch},
		{"repository: another tag", as(Repository), signatures("release @ghcr.io/acme/web:v2"), allowed},
		{"exact: no name", as(Exact), signatures("release @"), ReasonIdentityMismatch},
		{"exact: no tag", as(Exact), signatures("release"), ReasonIdentityMismatch},
		{"exact: the tag", as(Exact), signatures("release @ghcr.io/acme/web:v1"), allowed},
		{"exact: another tag", as(Exact), signatures("release @ghcr.io/acme/web:v2"), ReasonIdentityMismatch},
		{"exact: the digest", as(Exact), signatures("release @ghcr.io/acme/web@" + image.String()), allowed},
		{"exact: another digest", as(Exact), signatures("release @ghcr.io/acme/web@" + otherImage.String()), ReasonIdentityMismatch},
		{"exact: the tag and the digest", as(Exact), signatures("release @ghcr.io/acme/web:v1@" + image.String()), allowed},
		{"exact: the tag and another digest", as(Exact), signatures("release @ghcr.io/acme/web:v1@" + otherImage.String()), ReasonIdentityMismatch},
		{"exact: another tag and the digest", as(Exact), signatures("release @ghcr.io/acme/web:v2@" + image.String()), ReasonIdentityMismatch},
		{"exact: the tag of another name", as(Exact), signatures("release " + other + ":v1"), ReasonIdentityMismatch},

		// Annotations.
		{"an annotation that is there", annotated(one("release"), "env=prod"), signatures("release +env=prod"), allowed},
		{"with others", annotated(one("release"), "env=prod"), signatures("release +env=prod +x=y"), allowed},
		{"otherwise", annotated(one("release"), "env=prod"), signatures("release +env=dev"), ReasonAnnotationMismatch},
		{"missing", annotated(one("release"), "env=prod"), signatures("release"), ReasonAnnotationMismatch},
		{"missing, where empty is wanted", annotated(one("release"), "env="), signatures("release"), ReasonAnnotationMismatch},
		{"one of two", annotated(one("release"), "env=prod", "x=y"), signatures("release +env=prod"), ReasonAnnotationMismatch},
		{"one each in two signatures", annotated(one("release"), "env=prod", "x=y"), signatures("release +env=prod", "release +x=y"), ReasonAnnotationMismatch},
		{"another's annotation", annotated(one("release"), "env=prod"), signatures("release", "dev +env=prod"), ReasonAnnotationMismatch},
		{"a number", annotated(one("release"), "n=12"), signatures("release +n=12"), allowed},
		{"a number, otherwise", annotated(one("release"), "n=12"), signatures("release +n=12.0"), ReasonAnnotationMismatch},
		{"a boolean", annotated(one("release"), "ok=true"), signatures("release +ok=true"), allowed},
		{"null", annotated(one("release"), "n=null"), signatures("release +n=null"), allowed},
		{"a list", annotated(one("release"), `l=["a<b",1]`), signatures(`release +l=["a<b",1]`), allowed},
		{"every signer needs it", annotated(allOf("ci", "release"), "env=prod"), signatures("release +env=prod", "ci"), ReasonThreshold},

		// The nearest miss gives the reason.
		{"annotation before name", annotated(anyOf("ci", "release"), "env=prod"), signatures("ci "+other+" +env=prod", "release"), ReasonAnnotationMismatch},
		{"name before digest", as(IfPresent), signatures("release #other", "release "+other), ReasonIdentityMismatch},
		{"digest before payload", as(IfPresent), signatures("release !bad", "release #other"), ReasonDigestMismatch},
		{"payload before stranger", as(IfPresent), signatures("stranger", "release !bad"), ReasonPayloadInvalid},
		{"threshold before all", require(allOf("ci", "release")), signatures("ci "+other, "release"), ReasonThreshold},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.signatures != nil {
				w.sign(web, test.signatures...)
			}
			test.policy.Match = mustMatch(t, "ghcr.io/acme/**")
			e := w.evaluator(Config{Policies: []Policy{test.policy}}, Options{})
			s := subject()
			s.Aliases = []string{"registry.acme.example:5000/acme/web", "proxy.example/ghcr.io/acme/web"}
			if test.reason == allowed {
				allow(t, e, w, s)
			} else {
				deny(t, e, w, s, test.reason)
			}
		})
	}
}

func TestExactByDigestNeedsTheRepository(t *testing.T) {
	for _, test := range []struct{ signature, reason string }{
		{"release", ""},
		{"release @ghcr.io/acme/web:v9", ""},
		{"release @ghcr.io/acme/web@" + image.String(), ""},
		{"release @ghcr.io/acme/web@" + otherImage.String(), ReasonIdentityMismatch},
		{"release @ghcr.io/other/web@" + image.String(), ReasonIdentityMismatch},
		{"release @", ReasonIdentityMismatch},
	} {
		w := newWorld(t)
		w.sign(web, test.signature)
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), SignedAs: Exact}}}, Options{})
		s := subject()
		s.Tag = ""
		if test.reason == "" {
			allow(t, e, w, s)
		} else {
			deny(t, e, w, s, test.reason)
		}
	}
}

func TestDockerHubGoesByItsOtherNames(t *testing.T) {
	for _, test := range []struct{ claimed, reason string }{
		{"docker.io/library/nginx", ""},
		{"docker.io/nginx:1.25", ""},
		{"index.docker.io/library/nginx", ""},
		{"index.docker.io/nginx", ""},
		{"registry-1.docker.io/library/nginx", ""},
		{"docker.io/other/nginx", ReasonIdentityMismatch},
		{"nginx", ReasonIdentityMismatch},
		{"evil-docker.io/library/nginx", ReasonIdentityMismatch},
	} {
		w := newWorld(t)
		w.sign("docker.io/library/nginx", "release @"+test.claimed)
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
		s := Subject{Repository: "docker.io/library/nginx", Digest: image}
		if test.reason == "" {
			allow(t, e, w, s)
		} else {
			deny(t, e, w, s, test.reason)
		}
	}
}

func TestCopiesAreSignedUnderTheirOriginalsName(t *testing.T) {
	copies := Remap{Prefix: "mirror.example/hub", SignedPrefix: "docker.io"}
	for _, test := range []struct {
		repository, claimed string
		reason              string
	}{
		{"mirror.example/hub/library/nginx", "docker.io/library/nginx", ""},
		{"mirror.example/hub/library/nginx", "index.docker.io/library/nginx:1", ""},
		{"mirror.example/hub/nginx", "docker.io/library/nginx", ""},
		{"mirror.example/hub/library/nginx", "mirror.example/hub/library/nginx", ReasonIdentityMismatch},
		{"mirror.example/hub/library/nginx", "docker.io/library/redis", ReasonIdentityMismatch},
		{"mirror.example/hub/library/nginx", "", ReasonIdentityMismatch},
		{"mirror.example/hubs/nginx", "mirror.example/hubs/nginx", ""},
		{"mirror.example/hubs/nginx", "docker.ios/nginx", ReasonIdentityMismatch},
	} {
		w := newWorld(t)
		w.sign(test.repository, "release @"+test.claimed)
		p := Policy{Match: mustMatch(t, "mirror.example/**"), Require: one("release"), SignedAs: Remapped, Remap: copies}
		e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
		s := Subject{Repository: test.repository, Digest: image}
		if test.reason == "" {
			allow(t, e, w, s)
		} else {
			deny(t, e, w, s, test.reason)
		}
	}
}

func TestOriginalsGoByTheirUpstreamsOtherNames(t *testing.T) {
	aliases := []string{"127.0.0.1:7100/mpre/web", "proxy.example/local/mpre/web"}
	hosts := map[string][]string{
		"other":     {"other.example:5000", "proxy.example/other", "[::1]:5000"},
		"docker.io": {"proxy.example/docker.io"},
	}
	for _, test := range []struct {
		prefix, signedPrefix string
		claimed              string
		reason               string
	}{
		{"local/mpre", "local/acme", "local/acme/web", ""},
		{"local/mpre", "local/acme", "127.0.0.1:7100/acme/web", ""},
		{"local/mpre", "local/acme", "127.0.0.1:7100/acme/web:v1", ""},
		{"local/mpre", "local/acme", "proxy.example/local/acme/web", ""},
		{"local/mpre", "local/acme", "127.0.0.1:7100/mpre/web", ReasonIdentityMismatch},
		{"local/mpre", "local/acme", "127.0.0.1:7100/acme/other", ReasonIdentityMismatch},
		{"local/mpre", "local/acme", "127.0.0.1:7101/acme/web", ReasonIdentityMismatch},
		{"local/mpre", "local/acme", "proxy.example/acme/web", ReasonIdentityMismatch},
		{"local/mpre", "local/acme", "other.example:5000/acme/web", ReasonIdentityMismatch},
		{"local/mpre/web", "local/acme/web", "127.0.0.1:7100/acme/web", ""},
		{"local/mpre", "local", "127.0.0.1:7100/web", ""},
		{"local", "local/acme", "127.0.0.1:7100/acme/mpre/web", ""},
		{"local/mpre", "other/acme", "other/acme/web", ""},
		{"local/mpre", "other/acme", "other.example:5000/acme/web", ""},
		{"local/mpre", "other/acme", "proxy.example/other/acme/web", ""},
		{"local/mpre", "other", "other.example:5000/web", ""},
		{"local/mpre", "other/acme", "127.0.0.1:7100/acme/web", ReasonIdentityMismatch},
		{"local/mpre", "other/acme", "other.example:5000/mpre/web", ReasonIdentityMismatch},
		{"local/mpre", "docker.io", "proxy.example/docker.io/library/web", ""},
		{"local/mpre", "docker.io", "docker.io/web", ""},
		{"local/mpre", "unknown.example/acme", "unknown.example/acme/web", ""},
		{"local/mpre", "unknown.example/acme", "other.example:5000/acme/web", ReasonIdentityMismatch},
	} {
		w := newWorld(t)
		w.sign("local/mpre/web", "release @"+test.claimed)
		e := w.evaluator(Config{Hosts: hosts, Policies: []Policy{{
			Match: mustMatch(t, "local/**"), Require: one("release"), SignedAs: Remapped, Remap: Remap{Prefix: test.prefix, SignedPrefix: test.signedPrefix},
		}}}, Options{})
		s := Subject{Repository: "local/mpre/web", Digest: image, Aliases: aliases}
		if test.reason == "" {
			allow(t, e, w, s)
		} else {
			deny(t, e, w, s, test.reason)
		}
	}
}

func TestOneKeyOfSeveralIsEnough(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "stranger")
	team := verifier.Authority{Name: "team", Keys: []verifier.Key{w.key("release"), w.key("stranger")}}
	e := w.evaluator(Config{
		Authorities: []verifier.Authority{team},
		Policies:    []Policy{{Match: mustMatch(t, "**"), Require: one("team")}},
	}, Options{})
	if d := allow(t, e, w, subject()); !slices.Equal(d.Satisfied, []string{"team"}) {
		t.Errorf("signed by %v", d.Satisfied)
	}
}

// evidencePool verifies a variety of signatures, one by one.
func evidencePool(t *testing.T) []verifier.Evidence {
	var pool []verifier.Evidence
	for _, signer := range []string{"release", "ci", "vendor", "dev", "stranger"} {
		for _, words := range []string{"", " @", " @ghcr.io/other/web", " @ghcr.io/acme/web:v1", " +env=prod", " +env=dev", " #other", " !bad", " ~broken"} {
			w := newWorld(t)
			w.sign(web, signer+words)
			about := verifier.Subject{Repository: web, Digest: image}
			report := verifier.Verify(t.Context(), w, about, w.authorities(), verifier.Tags(), nil)
			pool = append(pool, report.Evidence...)
		}
		w := newWorld(t)
		w.attestAt(web, statement{of: slsa, by: signer}, statement{of: slsa, by: signer + " release"}, statement{of: spdx, by: signer}, statement{of: slsa, by: signer, about: otherImage})
		about := verifier.Subject{Repository: web, Digest: image, Attestations: true}
		pool = append(pool, verifier.Verify(t.Context(), w, about, w.authorities(), verifier.Sources(), nil).Evidence...)
	}
	return pool
}

func TestMoreEvidenceNeverTurnsAnAllowIntoADeny(t *testing.T) {
	r := newRand()
	pool := evidencePool(t)
	authorities := []string{"release", "ci", "vendor", "dev"}
	allowed := 0
	for range 3000 {
		r.Shuffle(len(authorities), func(i, j int) { authorities[i], authorities[j] = authorities[j], authorities[i] })
		of := slices.Clone(authorities[:1+r.IntN(4)])
		p := &Policy{Require: some(1+r.IntN(len(of)), of...), SignedAs: []SignedAs{IfPresent, Ignore, Repository, Exact}[r.IntN(4)]}
		if r.IntN(3) == 0 {
			p.Annotations = map[string]string{"env": "prod"}
		}
		if r.IntN(3) == 0 {
			p.Attestations = []Attestation{{PredicateType: slsa, Require: some(1+r.IntN(len(of)), of...)}}
			if r.IntN(2) == 0 {
				p.Require = Require{}
			}
		}
		suspended := map[string]string{}
		if r.IntN(3) == 0 {
			suspended[authorities[0]] = "its key is gone"
		}
		var evidence []verifier.Evidence
		before := decide(p, suspended, subject(), nil, nil, time.Now())
		for range 12 {
			evidence = slices.Insert(evidence, r.IntN(len(evidence)+1), pool[r.IntN(len(pool))])
			o := decide(p, suspended, subject(), evidence, nil, time.Now())
			if before.allowed && !o.allowed {
				t.Fatalf("%+v: one more of %v turned an allow into %s", p, evidence, o.reason)
			}
			if len(o.signed) < len(before.signed) {
				t.Fatalf("%+v: one more took a signer away", p)
			}
			if o.allowed == (o.reason != "") {
				t.Fatalf("%+v: allowed is %v, for the reason %q", p, o.allowed, o.reason)
			}
			before = o
		}
		if before.allowed {
			allowed++
		}
	}
	if allowed < 500 || allowed > 2500 {
		t.Errorf("%d of 3000 were allowed: the test shows little", allowed)
	}
}

func TestASuspendedAuthorityCountsForNothing(t *testing.T) {
	p := &Policy{Require: anyOf("release", "ci")}
	evidence := evidencePool(t)[:1]
	if o := decide(p, nil, subject(), evidence, nil, time.Now()); !o.allowed || !slices.Equal(o.signed, []string{"release"}) {
		t.Fatalf("got %+v", o)
	}
	if o := decide(p, map[string]string{"release": "gone"}, subject(), evidence, nil, time.Now()); o.allowed || o.reason != ReasonUntrusted {
		t.Errorf("got %+v", o)
	}
}

func TestTheZeroPolicyAndTheZeroDecisionDeny(t *testing.T) {
	if o := decide(&Policy{}, nil, subject(), evidencePool(t), nil, time.Now()); o.allowed {
		t.Error("the zero Policy allows")
	}
	if (Decision{}).Served() {
		t.Error("the zero Decision is served")
	}
}

func TestServed(t *testing.T) {
	for _, test := range []struct {
		d    Decision
		want bool
	}{
		{Decision{Allowed: true}, true},
		{Decision{Reason: ReasonUnsigned}, false},
		{Decision{Reason: ReasonUnsigned, Enforcement: Warn}, true},
		{Decision{Reason: ReasonInconclusive, Enforcement: Warn}, true},
		{Decision{Reason: ReasonUnsigned, Enforcement: Observe}, true},
		{Decision{Reason: ReasonRevoked, Enforcement: Warn}, false},
		{Decision{Reason: ReasonRevoked, Enforcement: Observe}, false},
	} {
		if got := test.d.Served(); got != test.want {
			t.Errorf("%+v is served: %v", test.d, got)
		}
	}
}
