package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// unproven takes parts of what proves a bundle away.
func unproven(b object, names ...string) object {
	for _, name := range names {
		switch name {
		case "promise":
			delete(part(b, "verificationMaterial", "tlogEntries"), "inclusionPromise")
		case "proof":
			delete(part(b, "verificationMaterial", "tlogEntries"), "inclusionProof")
		case "entry":
			delete(part(b, "verificationMaterial"), "tlogEntries")
		case "stamp":
			delete(part(b, "verificationMaterial"), "timestampVerificationData")
		}
	}
	return b
}

func versioned(b object, mediaType string) object {
	b["mediaType"] = mediaType
	return b
}

const (
	version01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	version02 = "application/vnd.dev.sigstore.bundle+json;version=0.2"
)

func TestACertificateCountsInEveryFormThatProvesIt(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	dsse := func() object { return s.sign(h, statement(subject.Digest, predicateSign)) }
	message := func() object {
		return s.prove(overMessage(t, h.Key, crypto.SHA256, []byte("subject")), h.PEM(), s.Now)
	}
	both, logs, stamps := notary.Has{Logs: true, Stamps: true}, notary.Has{Logs: true}, notary.Has{Stamps: true}
	for _, tt := range []struct {
		name   string
		trust  notary.Has
		bundle object
		form   string
	}{
		{"v0.3, promise, proof and timestamp", both, dsse(), verifier.FormBundleDSSE},
		{"v0.3, promise and proof", logs, unproven(dsse(), "stamp"), verifier.FormBundleDSSE},
		{"v0.3, promise and proof, and a timestamp by nobody known", logs, dsse(), verifier.FormBundleDSSE},
		{"v0.3, proof and timestamp", both, unproven(dsse(), "promise"), verifier.FormBundleDSSE},
		{"v0.3, a timestamp, and the root has no log", stamps, unproven(dsse(), "entry"), verifier.FormBundleDSSE},
		{"v0.3, a timestamp, and an entry of no log of the root", stamps, dsse(), verifier.FormBundleDSSE},
		{"v0.2, promise and proof", logs, unproven(versioned(dsse(), version02), "stamp"), verifier.FormBundleDSSE},
		{"v0.1, a promise alone", logs, unproven(versioned(dsse(), version01), "stamp", "proof"), verifier.FormBundleDSSE},
		{"a message, promise and proof", both, message(), verifier.FormBundleMessage},
		{"a message, v0.1, a promise alone", logs, unproven(versioned(message(), version01), "stamp", "proof"), verifier.FormBundleMessage},
		{"a message, a timestamp alone", stamps, unproven(message(), "entry"), verifier.FormBundleMessage},
		{"Rekor v2", both, s.second(githubIssuer, "dev@acme.example", statement(subject.Digest, predicateSign)), verifier.FormBundleDSSE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			source := r.list(t, tt.bundle)
			ci := keyless(t, "ci", s.trust(tt.trust), githubIssuer, workflow)
			ci.Identities = append(ci.Identities, identity(t, githubIssuer, "*@acme.example"))
			report := s.find(t, r, authority(t, "release", newECDSA(t, elliptic.P256())), ci)
			want(t, report, outcome{Source: source, Authorities: []string{"ci"}})
			e := report.Evidence[0]
			issuer, name := e.Identity()
			at, proven := e.SignedAt()
			if e.Form() != tt.form || e.KeyID() != "" || issuer != githubIssuer || e.Signer() != issuer+" "+name || !slices.Equal(e.SignedBy(), []string{"ci"}) {
				t.Errorf("form %s, key %q, signer %q by %v", e.Form(), e.KeyID(), e.Signer(), e.SignedBy())
			}
			if !proven || at.Sub(s.Now).Abs() > time.Minute || !e.Until().IsZero() {
				t.Errorf("signed at %v %v, until %v", at, proven, e.Until())
			}
			if text := string(encode(t, e)); !strings.Contains(text, `"issuer":"`+githubIssuer+`"`) || !strings.Contains(text, `"subject":"`+name+`"`) || !strings.Contains(text, `"signedAt":"20`) {
				t.Errorf("as JSON: %s", text)
			}
		})
	}
}

func TestACertificateInASignatureImageCounts(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	p := payload(t, subject.Digest, nil)
	signature := sign(t, h.Key, crypto.SHA256, p)
	attached := s.attach(h.PEM(), p, signature, s.Now)
	ci := keyless(t, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)

	r := newRegistry()
	r.tag(t, sigTag, r.layer(p, signature).annotated(attached))
	want(t, s.find(t, r, ci), outcome{Source: sigTag, Authorities: []string{"ci"}})

	r = newRegistry()
	desc := r.referrer(t, object{
		"schemaVersion": 2, "mediaType": ociManifest, "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
		"config":  object{"mediaType": "application/vnd.dev.cosign.artifact.sig.v1+json", "size": 2, "digest": digestOf([]byte("{}")).String()},
		"layers":  []any{r.layer(p, signature).annotated(attached)},
		"subject": object{"mediaType": ociManifest, "size": 7, "digest": subject.Digest.String()},
	})
	r.listed = append(r.listed, desc)
	report := s.find(t, r, ci)
	want(t, report, outcome{Source: "referrer " + desc.Digest.String(), Authorities: []string{"ci"}})
	if at, ok := report.Evidence[0].SignedAt(); !ok || at.Unix() != s.Now.Unix() {
		t.Errorf("signed at %v, %v", at, ok)
	}
}

// Of what proves a signature one thing is wrong, and it does not count.
func TestACertificateThatIsNotProvenIsRejected(t *testing.T) {
	s := newSigstore(t)
	elsewhere := newSigstoreElsewhere(t)
	h := s.Issue(githubIssuer, workflow)
	said := func() object { return statement(subject.Digest, predicateSign) }
	good := func() object { return s.sign(h, said()) }
	entryOf := func(b object) object { return part(b, "verificationMaterial", "tlogEntries") }
	changed := func(change func(b object)) object {
		b := good()
		change(b)
		return b
	}
	signature := func(b object) []byte { return part(b, "dsseEnvelope", "signatures")["sig"].([]byte) }
	another := s.sign(h, statement(other, predicateSign))
	twin := s.Issue(githubIssuer, workflow)
	both, logs, stamps := notary.Has{Logs: true, Stamps: true}, notary.Has{Logs: true}, notary.Has{Stamps: true}
	for _, tt := range []struct {
		name, detail string
		trust        notary.Has
		bundle       object
	}{
		{"nothing proves it", "not enough verified log entries", both, unproven(good(), "entry", "stamp")},
		{"a timestamp, where there are logs", "not enough verified log entries", both, unproven(good(), "entry")},
		{"a log's proof and no time", "threshold not met", logs, unproven(good(), "promise", "stamp")},
		{"Rekor v2 and no timestamp", "threshold not met", both, unproven(s.second(githubIssuer, workflow, said()), "stamp")},
		{"no timestamp, and the root has nothing else", "threshold not met", stamps, unproven(good(), "entry", "stamp")},
		{"another promise", "not enough verified log entries", both, changed(func(b object) {
			part(entryOf(b), "inclusionPromise")["signedEntryTimestamp"] = part(entryOf(another), "inclusionPromise")["signedEntryTimestamp"]
		})},
		{"the entry of another signature", "transparency log signature does not match", both, changed(func(b object) {
			part(b, "verificationMaterial")["tlogEntries"] = part(another, "verificationMaterial")["tlogEntries"]
		})},
		{"the entry of another certificate", "transparency log certificate does not match", both, changed(func(b object) {
			e := part(b, "dsseEnvelope")
			part(b, "verificationMaterial")["tlogEntries"] = []any{s.Entry("dsse", notary.Body("dsse", e["payload"].([]byte), signature(b), twin.PEM()), s.Now)}
		})},
		{"the entry of another payload", "does not match envelope payload hash", both, changed(func(b object) {
			part(b, "verificationMaterial")["tlogEntries"] = []any{s.Entry("dsse", notary.Body("dsse", []byte("other"), signature(b), h.PEM()), s.Now)}
		})},
		{"an entry of another kind", "signature does not match", both, changed(func(b object) {
			part(b, "verificationMaterial")["tlogEntries"] = []any{s.Entry("hashedrekord", notary.Body("hashedrekord", []byte("x"), sign(t, h.Key, crypto.SHA256, []byte("x")), h.PEM()), s.Now)}
		})},
		{"an entry that is none", "not a recognizable", both, changed(func(b object) {
			part(b, "verificationMaterial")["tlogEntries"] = []any{s.Entry("dsse", []byte("{}"), s.Now)}
		})},
		{"an entry of another log", "not enough verified log entries", both, changed(func(b object) {
			e := part(b, "dsseEnvelope")
			part(b, "verificationMaterial")["tlogEntries"] = []any{elsewhere.Entry("dsse", notary.Body("dsse", e["payload"].([]byte), signature(b), h.PEM()), s.Now)}
		})},
		{"a checkpoint of another log", "", both, changed(func(b object) {
			part(entryOf(b), "inclusionProof")["checkpoint"] = part(elsewhere.Entry("dsse", entryOf(b)["canonicalizedBody"].([]byte), s.Now), "inclusionProof")["checkpoint"]
		})},
		{"a checkpoint of another tree", "", both, changed(func(b object) {
			part(entryOf(b), "inclusionProof")["checkpoint"] = part(entryOf(another), "inclusionProof")["checkpoint"]
		})},
		{"the same entry twice", "duplicate tlog entries", both, changed(func(b object) {
			m := part(b, "verificationMaterial")
			m["tlogEntries"] = append(m["tlogEntries"].([]any), m["tlogEntries"].([]any)...)
		})},
		{"logged before the certificate began", "integrated time outside certificate validity", both,
			s.prove(bundle(t, h.Key, crypto.SHA256, said()), h.PEM(), s.Now.Add(-2*time.Minute))},
		{"logged after the certificate had ended", "integrated time outside certificate validity", both,
			s.prove(bundle(t, h.Key, crypto.SHA256, said()), h.PEM(), s.Now.Add(10*time.Minute))},
		{"logged at a time to come", "yet to come", both, s.prove(bundle(t, h.Key, crypto.SHA256, said()), h.PEM(), s.Now.Add(5*time.Minute))},
		{"the timestamp of another signature", "threshold not met", stamps, changed(func(b object) {
			part(b, "verificationMaterial")["timestampVerificationData"] = part(another, "verificationMaterial")["timestampVerificationData"]
		})},
		{"a timestamp of another authority", "threshold not met", stamps, changed(func(b object) {
			part(b, "verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")["signedTimestamp"] = elsewhere.Stamp(signature(b))
		})},
		{"stamped after the certificate had ended", "leaf certificate verification failed", stamps, func() object {
			late := s.Issue(githubIssuer, workflow, func(c *x509.Certificate) { c.NotAfter = s.Now.Add(-time.Second) })
			return s.sign(late, said())
		}()},
		{"a certificate of another authority", "leaf certificate verification failed", both, s.sign(elsewhere.Issue(githubIssuer, workflow), said())},
		{"a certificate that may not sign code", "leaf certificate verification failed", both,
			s.sign(s.Issue(githubIssuer, workflow, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), said())},
		{"a certificate without the promise of a certificate log", "SCT", notary.Has{Logs: true, Promises: true}, good()},
		{"a certificate for another key", "not by the key in its certificate", both, changed(func(b object) {
			part(b, "verificationMaterial")["certificate"] = object{"rawBytes": twin.Certificate.Raw}
		})},
		{"a statement that is not the signed one", "not by the key in its certificate", both, changed(func(b object) {
			part(b, "dsseEnvelope")["payload"] = part(another, "dsseEnvelope")["payload"]
		})},
		{"another issuer", "none of the identities", both, s.sign(s.Issue("https://evil.example", workflow), said())},
		{"an issuer that begins alike", "none of the identities", both, s.sign(s.Issue(githubIssuer+".evil.example", workflow), said())},
		{"another subject", "none of the identities", both, s.sign(s.Issue(githubIssuer, "https://github.com/evil/web/.github/workflows/release.yml@refs/tags/v1"), said())},
		{"a subject that goes on", "none of the identities", both, s.sign(s.Issue(githubIssuer, workflow+".attacker"), said())},
		{"no issuer", "none of the identities", both, s.sign(s.Issue("", workflow), said())},
		{"two subjects", "names 2 subjects", both, s.sign(s.Issue(githubIssuer, workflow, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} }), said())},
		{"no subject", "no Subject Alternative Name", both, s.sign(s.Issue(githubIssuer, workflow, func(c *x509.Certificate) { c.URIs = nil }), said())},
		{"a certificate that is none", "cannot be used", both, changed(func(b object) {
			part(b, "verificationMaterial")["certificate"] = object{"rawBytes": []byte("none")}
		})},
		{"33 log entries", "more than 32", both, changed(func(b object) {
			m := part(b, "verificationMaterial")
			m["tlogEntries"] = slices.Repeat(m["tlogEntries"].([]any), 33)
		})},
		{"a chain in a bundle that has one certificate", "no chain", both, changed(func(b object) {
			m := part(b, "verificationMaterial")
			delete(m, "certificate")
			m["x509CertificateChain"] = object{"certificates": []any{object{"rawBytes": h.Certificate.Raw}, object{"rawBytes": s.Intermediate.Raw}}}
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			report := s.find(t, r, keyless(t, "ci", s.trust(tt.trust), githubIssuer, workflow))
			if len(report.Evidence) != 1 || len(report.Failures) > 0 || report.TooMany {
				t.Fatalf("report %+v", report)
			}
			e := report.Evidence[0]
			if e.Verified() || len(e.SignedBy()) > 0 || e.Signer() != "" || e.Detail() == "" || !strings.Contains(e.Detail(), tt.detail) {
				t.Errorf("verified %v, by %v, %s: %s", e.Verified(), e.SignedBy(), e.Reason(), e.Detail())
			}
		})
	}
}

// What proves a time is told from what else the root has: without Unlogged a log's
// entry is wanted where there are logs.
func TestAnAuthorityMayDoWithoutALogButNotWithoutATime(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	for _, tt := range []struct {
		name     string
		bundle   object
		verified bool
	}{
		{"a timestamp alone", unproven(s.sign(h, statement(subject.Digest, predicateSign)), "entry"), true},
		{"an entry alone", unproven(s.sign(h, statement(subject.Digest, predicateSign)), "stamp"), true},
		{"neither", unproven(s.sign(h, statement(subject.Digest, predicateSign)), "entry", "stamp"), false},
	} {
		r := newRegistry()
		r.list(t, tt.bundle)
		ci := keyless(t, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)
		ci.Unlogged = true
		if e := s.find(t, r, ci).Evidence[0]; e.Verified() != tt.verified {
			t.Errorf("%s: verified %v: %s", tt.name, e.Verified(), e.Detail())
		}
	}
}

func TestWhatACertificateSignedIsCheckedAsWhatAKeySigned(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	ci := keyless(t, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)
	for _, tt := range []struct {
		name, reason, detail string
		bundle               object
	}{
		{"about another manifest", "digest-mismatch", workflow, s.sign(h, statement(other, predicateSign))},
		{"no statement", "payload-invalid", "statement: json", s.sign(h, []byte("x"))},
		{"a predicate in a second spelling", "payload-invalid", "", func() object {
			said := statement(subject.Digest, predicateSign)
			said["predicate_type"] = predicateSLSA
			return s.sign(h, said)
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			e := s.find(t, r, ci).Evidence[0]
			if e.Verified() || e.Reason() != tt.reason || !strings.Contains(e.Detail(), tt.detail) {
				t.Errorf("verified %v, by %v, %s: %s", e.Verified(), e.SignedBy(), e.Reason(), e.Detail())
			}
		})
	}
	r := newRegistry()
	r.list(t, s.sign(h, statement(subject.Digest, predicateSLSA)))
	if e := s.find(t, r, ci).Evidence[0]; !e.Verified() || e.IsSignature() || e.PredicateType() != predicateSLSA {
		t.Errorf("an attestation: verified %v, signature %v: %s", e.Verified(), e.IsSignature(), e.Detail())
	}
}
