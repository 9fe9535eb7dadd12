package policy

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"vidimus/verifier"
)

const slsa = "https://slsa.dev/provenance/v1"

// attest puts a bundle of each signer about image into repository, with a statement of
// predicateType, in place of those before.
func (w *world) attest(repository, predicateType string, signers ...string) {
	w.t.Helper()
	const kind, payloadType = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.in-toto+json"
	manifests := []any{}
	for _, signer := range signers {
		statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q}`, image.Hex, predicateType)
		sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
		signature, err := w.keys[signer].Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			w.t.Fatal(err)
		}
		bundle := w.marshal(map[string]any{
			"mediaType": kind, "verificationMaterial": map[string]any{"publicKey": map[string]any{}},
			"dsseEnvelope": map[string]any{
				"payload": statement, "payloadType": payloadType, "signatures": []any{map[string]any{"sig": signature}},
			},
		})
		w.put(repository+"@"+digestOf(bundle).String(), bundle)
		manifest := w.marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"layers":  []any{map[string]any{"mediaType": kind, "size": len(bundle), "digest": digestOf(bundle).String()}},
			"subject": map[string]any{"digest": image.String()},
		})
		w.put(repository+"/"+digestOf(manifest).String(), manifest)
		manifests = append(manifests, map[string]any{"artifactType": kind, "digest": digestOf(manifest).String()})
	}
	w.put(repository+"/referrers/"+image.String(), w.marshal(map[string]any{"manifests": manifests}))
}

func TestAnAttestationIsNoSignature(t *testing.T) {
	for _, test := range []struct {
		name     string
		signed   []string // at the signature tag
		attested []string
		reason   string
		sentence string
	}{
		{"attested only", nil, []string{"release"}, ReasonAttestedNotSigned,
			"not signed, only attested by release (" + slsa + "), and an attestation is no signature; a signature by release is needed"},
		{"attested by another authority", nil, []string{"dev"}, ReasonUntrusted, "signed, but not by release"},
		{"attested, and signed by another", []string{"dev"}, []string{"release"}, ReasonAttestedNotSigned, "only attested by release"},
		{"attested, and signed for another name", []string{"release @ghcr.io/other/web"}, []string{"release"}, ReasonIdentityMismatch, "signed by release, but for ghcr.io/other/web"},
		{"attested and signed", []string{"release"}, []string{"release"}, "", "signed by release"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.signed != nil {
				w.sign(web, test.signed...)
			}
			w.attest(web, slsa, test.attested...)
			e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release")}}}, Options{})
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
	t.Run("nor for who observes", func(t *testing.T) {
		w := newWorld(t)
		w.attest(web, slsa, "release")
		e := w.evaluator(Config{Enforcement: Observe}, Options{})
		if d := deny(t, e, w, subject(), ReasonNoPolicy); len(d.Satisfied) > 0 || len(d.Evidence) != 1 {
			t.Errorf("signed by %v, evidence %v", d.Satisfied, d.Evidence)
		}
		w.attest(web, "https://sigstore.dev/cosign/sign/v1", "release")
		if d := deny(t, e, w, subject(), ReasonNoPolicy); len(d.Satisfied) != 1 {
			t.Errorf("signed by %v", d.Satisfied)
		}
	})
	t.Run("of two that are needed", func(t *testing.T) {
		w := newWorld(t)
		w.sign(web, "release")
		w.attest(web, slsa, "dev")
		e := w.evaluator(Config{Policies: []Policy{{Match: mustMatch(t, "**"), Require: Require{AtLeast: 2, Of: []string{"release", "dev"}}}}}, Options{})
		d := deny(t, e, w, subject(), ReasonThreshold)
		if !strings.Contains(d.Explained, "(dev) attested it, which is no signature") {
			t.Errorf("explained: %s", d.Explained)
		}
	})
}

// A list of referrers counts as what it may be at most.
func TestAListOfReferrersIsWithinTheBudget(t *testing.T) {
	w := newWorld(t)
	b := newBudget(w)
	for n := range verifier.DecisionBytes / verifier.MaxListSize {
		if _, err := b.Referrers(context.Background(), web, image); err == errBudget {
			t.Fatalf("list %d: %v", n, err)
		}
	}
	if _, err := b.Referrers(context.Background(), web, image); err != errBudget {
		t.Errorf("one more: %v", err)
	}
}
