package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

var today = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// faults are those in an error of New.
func faults(t *testing.T, err error) []*Fault {
	t.Helper()
	var list []*Fault
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var f *Fault
			if !errors.As(e, &f) {
				t.Errorf("%v is no *Fault", e)
				continue
			}
			list = append(list, f)
		}
	}
	return list
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	all := mustMatch(t, "**")
	policy := func(p Policy) Config {
		if len(p.Match.include) == 0 {
			p.Match = all
		}
		return Config{Policies: []Policy{p}}
	}
	exception := func(x Exception) Config { return Config{Exceptions: []Exception{x}} }
	sound := Exception{Match: all, Digests: []v1.Hash{image}, Until: today.AddDate(0, 0, 7), Reason: "INC-4711"}
	unsound := func(change func(*Exception)) Config {
		x := sound
		change(&x)
		return exception(x)
	}
	twins := []verifier.Authority{{Name: "ci", Keys: []verifier.Key{w.key("ci")}}, {Name: "release", Keys: []verifier.Key{w.key("release"), w.key("ci")}}}
	for _, test := range []struct {
		name        string
		config      Config
		where, want string
	}{
		{"an authority without keys", Config{Authorities: []verifier.Authority{{Name: "qa"}}}, "authorities.qa", "has no keys"},
		{"an authority without a name", Config{Authorities: []verifier.Authority{{Keys: []verifier.Key{w.key("ci")}}}}, "authorities.", "has no name"},
		{"an authority twice", Config{Authorities: append(w.authorities(), w.authorities()[0])}, "authorities.release", "stands twice"},
		{"an authority's name with a line break", Config{Authorities: []verifier.Authority{{Name: "a\nb", Keys: []verifier.Key{w.key("ci")}}}}, `authorities.a\u000ab`, "cannot be printed"},
		{"an unknown authority", policy(Policy{Require: one("relaese")}), "policies[0]", "require names relaese, which is no authority: add it to authorities, or write one of release, ci, vendor, dev"},
		{"an unknown authority of an attestation", policy(Policy{Require: one("ci"), Attestations: []Attestation{{PredicateType: slsa, Require: one("cii")}}}), "policies[0]", "attestations[0] require names cii, which is no authority"},
		{"an attestation by nobody", policy(Policy{Attestations: []Attestation{{PredicateType: slsa}}}), "policies[0]", "attestations[0] require names no authority"},
		{"an attestation of no type", policy(Policy{Attestations: []Attestation{{Require: one("ci")}}}), "policies[0]", "attestations[0] has no predicate type"},
		{"a signature as an attestation", policy(Policy{Attestations: []Attestation{{PredicateType: "https://sigstore.dev/cosign/sign/v1", Require: one("ci")}}}), "policies[0]", "attestations[0] has no predicate type of an attestation"},
		{"the same key in two authorities of one attestation", Config{Authorities: twins, Policies: []Policy{{Match: all, Attestations: []Attestation{{PredicateType: slsa, Require: anyOf("ci", "release")}}}}}, "policies[0]", "attestations[0] require counts distinct signers"},
		{"attestations and allow", policy(Policy{AllowUnverified: true, Attestations: []Attestation{{PredicateType: slsa, Require: one("ci")}}}), "policies[0]", "has attestations and allow: unverified: keep one"},
		{"attestations and deny", policy(Policy{Deny: "x", Attestations: []Attestation{{PredicateType: slsa, Require: one("ci")}}}), "policies[0]", "has attestations and deny: keep one"},
		{"Rego beside allow", policy(Policy{AllowUnverified: true, Rego: &recorder{}}), "policies[0]", "has rego, which only denies"},
		{"Rego alone", policy(Policy{Rego: &recorder{}}), "policies[0]", "says nothing of what it matches"},
		{"the same key in two authorities of one require", Config{Authorities: twins, Policies: []Policy{{Match: all, Require: anyOf("ci", "release")}}}, "policies[0]", "is both ci's and release's"},
		{"atLeast 0", policy(Policy{Require: some(0, "ci")}), "policies[0]", "atLeast is 0"},
		{"atLeast below 0", policy(Policy{Require: some(-1, "ci")}), "policies[0]", "atLeast is -1"},
		{"atLeast above the number", policy(Policy{Require: some(3, "ci", "release")}), "policies[0]", "nothing could meet it"},
		{"atLeast of nobody", policy(Policy{Require: some(1)}), "policies[0]", "names no authority"},
		{"an authority twice in of", policy(Policy{Require: some(2, "ci", "ci")}), "policies[0]", "names ci twice"},
		{"no match", Config{Policies: []Policy{{AllowUnverified: true}}}, "policies[0]", "has no match"},
		{"neither require nor allow nor deny", policy(Policy{}), "policies[0]", "write require, attestations, allow: unverified or deny"},
		{"require and allow", policy(Policy{Require: one("ci"), AllowUnverified: true}), "policies[0]", "has require and allow: unverified: keep one"},
		{"all three", policy(Policy{Require: one("ci"), AllowUnverified: true, Deny: "no"}), "policies[0]", "has require and allow: unverified and deny: keep one"},
		{"signedAs without require", policy(Policy{AllowUnverified: true, SignedAs: Exact}), "policies[0]", "only a policy with require reads"},
		{"annotations without require", policy(Policy{Deny: "no", Annotations: map[string]string{"a": "b"}}), "policies[0]", "only a policy with require reads"},
		{"a signedAs that there is not", policy(Policy{Require: one("ci"), SignedAs: 99}), "policies[0]", "signedAs is none of"},
		{"a prefix beside another signedAs", policy(Policy{Require: one("ci"), Remap: Remap{"a", "b"}}), "policies[0]", "keep one"},
		{"a prefix that begins no name", policy(Policy{Require: one("ci"), SignedAs: Remapped, Remap: Remap{"GHCR.io/", "docker.io"}}), "policies[0]", `signedAs prefix "GHCR.io/"`},
		{"no signedPrefix", policy(Policy{Require: one("ci"), SignedAs: Remapped, Remap: Remap{Prefix: "ghcr.io"}}), "policies[0]", `signedAs signedPrefix ""`},
		{"a prefix in front of nothing", policy(Policy{Match: mustMatch(t, "quay.io/**"), Require: one("ci"), SignedAs: Remapped, Remap: Remap{"ghcr.io", "docker.io"}}), "policies[0]", "in front of nothing"},
		{"an annotation without a name", policy(Policy{Require: one("ci"), Annotations: map[string]string{"": "b"}}), "policies[0]", "empty name"},
		{"a message as long as a book", policy(Policy{Require: one("ci"), Message: strings.Repeat("a", 1001)}), "policies[0]", "message has more than"},
		{"enforcement above the ceiling", Config{Enforcement: Warn, Policies: []Policy{{Match: all, AllowUnverified: true, Enforcement: new(Enforce)}}}, "policies[0]", "enforcement enforce is higher than the ceiling warn"},
		{"warn above observe", Config{Enforcement: Observe, Policies: []Policy{{Match: all, AllowUnverified: true, Enforcement: new(Warn)}}}, "policies[0]", "enforcement warn is higher than the ceiling observe"},
		{"an enforcement that there is not", policy(Policy{AllowUnverified: true, Enforcement: new(Enforcement(7))}), "policies[0]", "none of observe, warn and enforce"},
		{"a ceiling that there is not", Config{Enforcement: -1}, "enforcement", "none of observe, warn and enforce"},
		{"two policies of one name", Config{Policies: []Policy{{Name: "a", Match: all, AllowUnverified: true}, {Name: "a", Match: all, AllowUnverified: true}}}, "policies[1]", `is called "a" as policies[0] is`},
		{"two policies of one first match", Config{Policies: []Policy{{Match: all, AllowUnverified: true}, {Match: all, AllowUnverified: true}}}, "policies[1]", `is called "**" as policies[0] is`},
		{"an exception without match", unsound(func(x *Exception) { x.Match = Match{} }), "exceptions[0]", "has no match"},
		{"an exception without digests", unsound(func(x *Exception) { x.Digests = nil }), "exceptions[0]", "has no digests"},
		{"an exception with an empty digest", unsound(func(x *Exception) { x.Digests = []v1.Hash{{}} }), "exceptions[0]", "is not a digest"},
		{"an exception without reason", unsound(func(x *Exception) { x.Reason = " " }), "exceptions[0]", "has no reason"},
		{"an exception without end", unsound(func(x *Exception) { x.Until = time.Time{} }), "exceptions[0]", "write the day it ends, 2026-12-22 at the latest"},
		{"an exception of 31 days", unsound(func(x *Exception) { x.Until = today.AddDate(0, 0, 31) }), "exceptions[0]", "write 2026-12-22 at the latest"},
		{"a revoked digest that is none", Config{Revoked: []v1.Hash{image, {Algorithm: "sha256", Hex: "ABC"}}}, "revoked[1]", "is not a digest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Now = func() time.Time { return today }
			if test.config.Authorities == nil {
				test.config.Authorities = w.authorities()
			}
			set, err := New(test.config)
			list := faults(t, err)
			if set != nil || len(list) != 1 {
				t.Fatalf("got %v, want one fault", err)
			}
			if list[0].Where != test.where || !strings.Contains(list[0].Message, test.want) {
				t.Errorf("got %q, want at %s: %q", list[0], test.where, test.want)
			}
		})
	}
}

func TestNewReturnsAllFaultsAtOnce(t *testing.T) {
	_, err := New(Config{
		Now:         func() time.Time { return today },
		Authorities: []verifier.Authority{{Name: "qa"}},
		Policies:    []Policy{{}, {Match: mustMatch(t, "**"), Require: some(5, "nobody", "nobody")}},
		Exceptions:  []Exception{{}},
		Revoked:     []v1.Hash{{}},
	})
	if list := faults(t, err); len(list) != 11 {
		t.Errorf("got %d faults, want 11:\n%v", len(list), err)
	}
}

func TestNewAccepts(t *testing.T) {
	w := newWorld(t)
	all := mustMatch(t, "**")
	for name, config := range map[string]Config{
		"nothing at all":                     {},
		"a suspended authority without key":  {Authorities: []verifier.Authority{{Name: "gone", Suspended: "release.pub is gone"}}, Policies: []Policy{{Match: all, Require: one("gone")}}},
		"an exception that has ended":        {Exceptions: []Exception{{Match: all, Digests: []v1.Hash{image}, Until: today.AddDate(-1, 0, 0), Reason: "old"}}},
		"an exception of 30 days":            {Exceptions: []Exception{{Match: all, Digests: []v1.Hash{image}, Until: today.AddDate(0, 0, 30), Reason: "new"}}},
		"enforcement at the ceiling":         {Enforcement: Warn, Policies: []Policy{{Match: all, AllowUnverified: true, Enforcement: new(Warn)}}},
		"enforcement below the ceiling":      {Policies: []Policy{{Match: all, AllowUnverified: true, Enforcement: new(Observe)}}},
		"the same key in two requires":       {Authorities: append(w.authorities(), verifier.Authority{Name: "ci2", Keys: []verifier.Key{w.key("ci")}}), Policies: []Policy{{Match: mustMatch(t, "a/b"), Require: one("ci")}, {Match: all, Require: one("ci2")}}},
		"the same key twice in an authority": {Authorities: []verifier.Authority{{Name: "ci", Keys: []verifier.Key{w.key("ci"), w.key("ci")}}}, Policies: []Policy{{Match: all, Require: one("ci")}}},
		"a prefix of whole names":            {Policies: []Policy{{Match: mustMatch(t, "ghcr.io/acme/web"), Require: one("ci"), SignedAs: Remapped, Remap: Remap{"ghcr.io/acme/web", "docker.io/acme/web"}}}, Authorities: w.authorities()},
	} {
		config.Now = func() time.Time { return today }
		if _, err := New(config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
