package policy

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

const (
	slsa02   = "https://slsa.dev/provenance/v0.2"
	spdx     = "https://spdx.dev/Document"
	dsseType = "application/vnd.dsse.envelope.v1+json"
)

var attTag = "sha256-" + image.Hex + ".att"

// statement is what one envelope of the tag of attestations says, and who signed it.
type statement struct {
	of        string // the predicate type
	by        string // names of signers, separated by spaces
	predicate string // JSON; empty: {}
	about     v1.Hash
}

// attestAt puts an attestation image into repository, in place of the one before.
func (w *world) attestAt(repository string, statements ...statement) {
	w.t.Helper()
	const payloadType = "application/vnd.in-toto+json"
	layers := []any{}
	for _, s := range statements {
		if s.predicate == "" {
			s.predicate = "{}"
		}
		if s.about == (v1.Hash{}) {
			s.about = image
		}
		payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"pkg:docker/elsewhere","digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
			s.about.Hex, s.of, s.predicate)
		sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
		signatures := []any{}
		for _, signer := range strings.Fields(s.by) {
			signature, err := w.keys[signer].Sign(rand.Reader, sum[:], crypto.SHA256)
			if err != nil {
				w.t.Fatal(err)
			}
			signatures = append(signatures, map[string]any{"keyid": "", "sig": signature})
		}
		envelope := w.marshal(map[string]any{"payload": payload, "payloadType": payloadType, "signatures": signatures})
		w.put(repository+"@"+digestOf(envelope).String(), envelope)
		layers = append(layers, map[string]any{"mediaType": dsseType, "digest": digestOf(envelope).String(), "size": len(envelope)})
	}
	w.put(repository+"/"+attTag, w.marshal(map[string]any{"schemaVersion": 2, "layers": layers}))
}

func provenance(r Require) Attestation { return Attestation{PredicateType: slsa, Require: r} }

func TestAnAttestationThatIsRequired(t *testing.T) {
	for _, test := range []struct {
		name         string
		attestations []Attestation
		statements   []statement
		reason       string
		sentence     string
	}{
		{"is there", []Attestation{provenance(one("ci"))}, []statement{{of: slsa, by: "ci"}}, "",
			"signed by release; attested by ci: slsaprovenance1 (" + slsa + ")"},
		{"there is none", []Attestation{provenance(one("ci"))}, nil, ReasonAttestationMissing,
			"not attested; an attestation of slsaprovenance1 (" + slsa + ") by ci is needed"},
		{"of another type", []Attestation{provenance(one("ci"))}, []statement{{of: spdx, by: "ci"}}, ReasonAttestationMissing,
			"ci attested spdx (" + spdx + ") only; an attestation of slsaprovenance1"},
		{"of another version of the type", []Attestation{provenance(one("ci"))}, []statement{{of: slsa02, by: "ci"}}, ReasonAttestationMissing, "ci attested slsaprovenance (" + slsa02},
		{"of a type in other letters", []Attestation{provenance(one("ci"))}, []statement{{of: strings.ToUpper(slsa), by: "ci"}}, ReasonAttestationMissing, "only"},
		{"by another authority", []Attestation{provenance(one("ci"))}, []statement{{of: slsa, by: "release"}}, ReasonAttestationMissing,
			"attested as that by release only; an attestation of slsaprovenance1"},
		{"by a stranger", []Attestation{provenance(one("ci"))}, []statement{{of: slsa, by: "stranger"}}, ReasonAttestationMissing, "attested by nobody who is required"},
		{"by a stranger and by the one who is required", []Attestation{provenance(one("ci"))}, []statement{{of: slsa, by: "stranger ci"}}, "", "attested by ci"},
		{"about another image", []Attestation{provenance(one("ci"))}, []statement{{of: slsa, by: "ci", about: otherImage}}, ReasonAttestationMissing, "ci attested another digest"},
		{"among others", []Attestation{provenance(one("ci"))}, []statement{{of: spdx, by: "ci"}, {of: slsa, by: "stranger"}, {of: slsa, by: "ci"}}, "", "attested by ci"},
		{"by two, in one envelope", []Attestation{provenance(allOf("ci", "vendor"))}, []statement{{of: slsa, by: "ci vendor"}}, "", "attested by ci, vendor"},
		{"by two, in an envelope each", []Attestation{provenance(allOf("ci", "vendor"))}, []statement{{of: slsa, by: "ci"}, {of: slsa, by: "vendor"}}, "", "attested by ci, vendor"},
		{"by one of two, twice over", []Attestation{provenance(allOf("ci", "vendor"))}, []statement{{of: slsa, by: "ci ci"}, {of: slsa, by: "ci", predicate: `{"a":1}`}}, ReasonAttestationMissing,
			"attested by ci only; an attestation of slsaprovenance1 (" + slsa + ") by all of ci, vendor is needed"},
		{"two types, and both are there", []Attestation{provenance(one("ci")), {PredicateType: spdx, Require: one("vendor")}},
			[]statement{{of: slsa, by: "ci"}, {of: spdx, by: "vendor"}}, "", "attested by ci: slsaprovenance1 (" + slsa + "); attested by vendor: spdx"},
		{"two types, and one is there", []Attestation{provenance(one("ci")), {PredicateType: spdx, Require: one("vendor")}},
			[]statement{{of: slsa, by: "ci"}}, ReasonAttestationMissing, "an attestation of spdx (" + spdx + ") by vendor is needed"},
		{"what one authority may, another may not", []Attestation{provenance(one("ci")), {PredicateType: spdx, Require: one("vendor")}},
			[]statement{{of: slsa, by: "vendor"}, {of: spdx, by: "ci"}}, ReasonAttestationMissing, "by ci is needed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.sign(web, "release")
			w.attestAt(web, test.statements...)
			e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Attestations: test.attestations}}}, Options{})
			var d Decision
			if test.reason == "" {
				d = allow(t, e, w, subject())
			} else {
				d = deny(t, e, w, subject(), test.reason)
				if !strings.Contains(d.Hint, "vidimus attest --key cosign.key --type ") {
					t.Errorf("hint: %s", d.Hint)
				}
			}
			if !strings.Contains(d.Explained, test.sentence) {
				t.Errorf("explained: %s", d.Explained)
			}
			for _, e := range d.Evidence {
				if e.Predicate() != nil {
					t.Error("the decision keeps what an attestation says")
				}
			}
		})
	}
}

func TestAnAttestationTakesNoSignaturesPlace(t *testing.T) {
	w := newWorld(t)
	w.attestAt(web, statement{of: slsa, by: "ci release"})
	both := Policy{Match: mustMatch(t, "**"), Require: one("release"), Attestations: []Attestation{provenance(one("ci"))}}
	d := deny(t, w.evaluator(Config{Policies: []Policy{both}}, Options{}), w, subject(), ReasonAttestedNotSigned)
	if !strings.Contains(d.Explained, "an attestation is no signature") {
		t.Errorf("explained: %s", d.Explained)
	}
	w.attestAt(web, statement{of: slsa, by: "stranger"})
	deny(t, w.evaluator(Config{Policies: []Policy{both}}, Options{}), w, subject(), ReasonUnsigned)

	t.Run("a policy may ask for attestations alone", func(t *testing.T) {
		alone := both
		alone.Require = Require{}
		e := w.evaluator(Config{Policies: []Policy{alone}}, Options{})
		deny(t, e, w, subject(), ReasonAttestationMissing)
		w.sign(web, "ci", "release")
		deny(t, e, w, subject(), ReasonAttestationMissing)
		w.attestAt(web, statement{of: slsa, by: "ci"})
		if d := allow(t, e, w, subject()); d.Explained != "attested by ci: slsaprovenance1 ("+slsa+")" || len(d.Satisfied) != 1 {
			t.Errorf("%v: %s", d.Satisfied, d.Explained)
		}
	})
	t.Run("a bundle counts as well", func(t *testing.T) {
		w := newWorld(t)
		w.sign(web, "release")
		w.attest(web, slsa, "ci")
		allow(t, w.evaluator(Config{Policies: []Policy{both}}, Options{}), w, subject())
	})
}

func TestAttestationsCostARequestWhereTheyAreAskedForOnly(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	w.attestAt(web, statement{of: slsa, by: "ci"})
	var asked atomic.Bool // sources are asked at once
	w.failWith(func(reference string) error {
		if strings.HasSuffix(reference, ".att") {
			asked.Store(true)
		}
		return nil
	})
	plain := []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}
	allow(t, w.evaluator(Config{Policies: plain}, Options{}), w, subject())
	stranger := []Policy{{Match: mustMatch(t, "**"), Require: one("vendor")}}
	deny(t, w.evaluator(Config{Policies: stranger}, Options{}), w, subject(), ReasonUntrusted)
	if asked.Load() {
		t.Error("a policy without attestations asks for them")
	}
	shows := func(name string, config Config, options Options) {
		t.Run(name, func(t *testing.T) {
			d, err := w.evaluator(config, options).Evaluate(t.Context(), w, subject())
			last := d.Evidence[len(d.Evidence)-1]
			if err != nil || last.PredicateType() != slsa || last.Predicate() != nil {
				t.Errorf("%v, %v", d.Evidence, err)
			}
		})
	}
	shows("who explains sees them", Config{Policies: plain}, Options{Everything: true})
	shows("who observes sees them", Config{Policies: plain, Enforcement: Observe}, Options{})
	shows("who observes without a policy sees them", Config{Enforcement: Observe}, Options{})
	shows("a denial shows them", Config{Policies: stranger}, Options{Everything: true})
	t.Run("what is only shown may be unreadable", func(t *testing.T) {
		w.failWith(func(reference string) error {
			if strings.HasSuffix(reference, ".att") {
				return errors.New("no answer")
			}
			return nil
		})
		allow(t, w.evaluator(Config{Policies: plain}, Options{Everything: true}), w, subject())
		deny(t, w.evaluator(Config{Policies: stranger}, Options{Everything: true}), w, subject(), ReasonUntrusted)
	})
}

func TestAttestationsThatCannotBeReadAreADoubt(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	policies := []Policy{{Match: mustMatch(t, "**"), Require: one("release"), Attestations: []Attestation{provenance(one("ci"))}}}
	e := w.evaluator(Config{Policies: policies}, Options{})
	unreadable := func(suffix string) {
		w.failWith(func(reference string) error {
			if strings.HasSuffix(reference, suffix) {
				return errors.New("no answer")
			}
			return nil
		})
	}
	unreadable(".att")
	cannotTell(t, e, w, subject())
	w.attest(web, slsa, "ci")
	allow(t, e, w, subject()) // the bundle is enough, whatever there may be besides
	unreadable("/sha256-" + image.Hex)
	allow(t, e, w, subject())
}

func TestASuspendedAuthorityMayHaveAttested(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	authorities := w.authorities()
	for i := range authorities {
		if authorities[i].Name == "ci" {
			authorities[i].Suspended = "ci.pub does not exist"
		}
	}
	e := w.evaluator(Config{Authorities: authorities, Policies: []Policy{
		{Match: mustMatch(t, "**"), Require: one("release"), Attestations: []Attestation{provenance(one("ci"))}},
	}}, Options{})
	d := deny(t, e, w, subject(), ReasonAttestationMissing) // nobody's attestation is there
	if !strings.Contains(d.Hint, "put the key file of ci back") {
		t.Errorf("hint: %s", d.Hint)
	}
	w.attestAt(web, statement{of: slsa, by: "vendor"})
	deny(t, e, w, subject(), ReasonAttestationMissing)
	w.attestAt(web, statement{of: slsa, by: "ci"})
	cannotTell(t, e, w, subject())
	w.sign(web, "stranger")
	deny(t, e, w, subject(), ReasonUntrusted) // the signature is missing whatever ci attested
}

func TestMoreAttestationsThanAreLookedAt(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release")
	var many []statement
	for i := range 10 * verifier.MaxSignatures {
		many = append(many, statement{of: fmt.Sprintf("https://example.com/%d", i), by: "stranger"})
	}
	w.attestAt(web, append(many, statement{of: slsa, by: "ci"})...)
	e := w.evaluator(Config{Policies: []Policy{
		{Match: mustMatch(t, "**"), Require: one("release"), Attestations: []Attestation{provenance(one("ci"))}},
	}}, Options{})
	d := deny(t, e, w, subject(), ReasonTooManySignatures)
	if !strings.Contains(d.Explained, "by ci is needed") || w.reads > verifier.DecisionRequests {
		t.Errorf("%d reads: %s", w.reads, d.Explained)
	}
	w.attestAt(web, append([]statement{{of: slsa, by: "ci"}}, many...)...)
	allow(t, e, w, subject())
}
