package verifier_test

import (
	"crypto"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// There is no byte of a bundle with a certificate that could be another one and make
// another signer, another time or another kind of evidence of it.
func TestABundleWithACertificateSaysOneThing(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	ci := []verifier.Authority{keyless(t, "ci", s.trust(notary.Has{Logs: true}), githubIssuer, "**@**")}
	good := encode(t, unproven(versioned(s.sign(h, statement(subject.Digest, predicateSign)), version01), "proof", "stamp"))
	look := func(data []byte) verifier.Evidence {
		r := newRegistry()
		r.listed = []v1.Descriptor{r.artifact(t, version01, data)}
		about := subject
		about.Now = s.Now
		report := verifier.Verify(t.Context(), r, about, ci, verifier.Sources(), nil)
		if len(report.Evidence) != 1 || len(report.Failures) > 0 {
			t.Fatalf("%s: report %+v", data, report)
		}
		return report.Evidence[0]
	}
	want := look(good)
	if !want.Verified() {
		t.Fatal(want.Detail())
	}
	at, _ := want.SignedAt()
	still := 0
	for i := range good {
		changed := append([]byte(nil), good...)
		changed[i] ^= 1
		e := look(changed)
		if got, _ := e.SignedAt(); e.Verified() && (!got.Equal(at) || e.Signer() != want.Signer() || e.Form() != want.Form()) {
			t.Errorf("byte %d, %s: %s at %v", i, changed[max(0, i-10):min(len(changed), i+10)], e.Signer(), got)
		}
		if e.Verified() {
			still++
		}
	}
	if still > 40 { // the kind of the entry, which its body says again; spare bits of base64
		t.Errorf("%d bytes do not matter", still)
	}
}

// FuzzCertificate: whatever a bundle or an annotation with a certificate holds, nothing is
// verified that the one signature of the certificate does not cover, and nothing panics.
func FuzzCertificate(f *testing.F) {
	s := newSigstore(f)
	h := s.Issue(githubIssuer, workflow)
	about := statement(other, predicateSign)
	f.Add(encode(f, s.sign(h, about)), []byte("{}"), []byte("{}"))
	f.Add(encode(f, versioned(s.sign(h, about), version01)), []byte("{}"), []byte("{}"))
	f.Add(encode(f, s.second(githubIssuer, workflow, about)), []byte("{}"), []byte("{}"))
	p := payload(f, other, nil) // all that is signed is about another manifest
	attached := s.attach(h.PEM(), p, sign(f, h.Key, crypto.SHA256, p), s.Now)
	f.Add([]byte("{}"), []byte(attached["dev.sigstore.cosign/bundle"]), []byte(attached["dev.sigstore.cosign/rfc3161timestamp"]))
	ci := []verifier.Authority{keyless(f, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)}
	f.Fuzz(func(t *testing.T, data, entry, stamp []byte) {
		if len(data) == 0 {
			return
		}
		r := newRegistry()
		r.listed = append(r.listed, r.artifact(t, bundleType, data), r.artifact(t, version01, data))
		r.tag(t, sigTag, r.layer(p, sign(t, h.Key, crypto.SHA256, p)).annotated(map[string]string{
			"dev.sigstore.cosign/certificate": string(h.PEM()), "dev.sigstore.cosign/bundle": string(entry), "dev.sigstore.cosign/rfc3161timestamp": string(stamp),
		}))
		now := subject
		now.Now = s.Now
		if report := verifier.Verify(t.Context(), r, now, ci, verifier.Sources(), nil); anyVerified(report.Evidence) || len(report.Failures) > 0 {
			t.Fatalf("report %+v", report)
		}
	})
}
