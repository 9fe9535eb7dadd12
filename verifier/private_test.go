package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

func cas(t *testing.T, certificates ...*x509.Certificate) *verifier.Root {
	t.Helper()
	r, err := verifier.ParseCAs(notary.PEM(certificates...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of a private PKI the whole chain must be valid at the proven time or, without one,
// now (CVE-2026-24122).
func TestACertificateOfAPrivatePKI(t *testing.T) {
	s := newSigstore(t)
	rootKey, key := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	trusted := s.Certify(notary.Authority("acme root", s.Now.Add(-time.Hour), s.Now.Add(time.Hour)), nil, rootKey.Public(), rootKey)
	between := func(from, until time.Duration) *x509.Certificate {
		return s.Certify(notary.Authority("acme", s.Now.Add(from), s.Now.Add(until)), trusted, key.Public(), rootKey)
	}
	good, expired, early := between(-time.Hour, 30*time.Minute), between(-time.Hour, -time.Second), between(time.Minute, time.Hour)
	issued := func(parent *x509.Certificate, from, until time.Duration) notary.Holder {
		own := *s.Notary
		own.Intermediate, own.Key = parent, key
		return own.Issue("", "dev@acme.example", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = s.Now.Add(from), s.Now.Add(until) })
	}
	signed := func(h notary.Holder, others ...*x509.Certificate) object {
		b := versioned(bundle(t, h.Key, crypto.SHA256, statement(subject.Digest, predicateSign)), version02)
		m := part(b, "verificationMaterial")
		delete(m, "publicKey")
		chain := []any{object{"rawBytes": h.Certificate.Raw}}
		for _, c := range others {
			chain = append(chain, object{"rawBytes": c.Raw})
		}
		m["x509CertificateChain"] = object{"certificates": chain}
		return b
	}
	stamped := func(b object) object {
		m := part(b, "verificationMaterial")
		m["timestampVerificationData"] = object{"rfc3161Timestamps": []any{object{
			"signedTimestamp": s.Stamp(part(b, "dsseEnvelope", "signatures")["sig"].([]byte)),
		}}}
		return b
	}
	alone := func(h notary.Holder) object {
		b := versioned(bundle(t, h.Key, crypto.SHA256, statement(subject.Digest, predicateSign)), bundleType)
		m := part(b, "verificationMaterial")
		delete(m, "publicKey")
		m["certificate"] = object{"rawBytes": h.Certificate.Raw}
		return b
	}
	longer := func(h notary.Holder, others ...*x509.Certificate) object {
		return versioned(signed(h, others...), bundleType)
	}
	valid := func() notary.Holder { return issued(good, -time.Hour, 20*time.Minute) }
	for _, tt := range []struct {
		name   string
		root   *verifier.Root
		bundle object
		until  time.Duration // of what counts
		why    string        // it does not
	}{
		{"the root, and the intermediate with the signature", cas(t, trusted), signed(valid(), good), 20 * time.Minute, ""},
		{"the same in a bundle v0.3", cas(t, trusted), longer(valid(), good), 20 * time.Minute, ""},
		{"both are configured", cas(t, trusted, good), alone(valid()), 20 * time.Minute, ""},
		{"the intermediate ends first", cas(t, trusted, good), alone(issued(good, -time.Hour, 50*time.Minute)), 30 * time.Minute, ""},
		{"no intermediate", cas(t, trusted), alone(valid()), 0, "unknown authority"},
		{"another root", cas(t, s.Root), signed(valid(), good, trusted), 0, "unknown authority"},
		{"an expired certificate", cas(t, trusted, good), alone(issued(good, -time.Hour, -time.Second)), 0, "now, for no time is proven"},
		{"a certificate to come", cas(t, trusted, good), alone(issued(good, time.Minute, time.Hour)), 0, "now, for no time is proven"},
		{"an expired intermediate", cas(t, trusted), signed(issued(expired, -time.Hour, time.Hour), expired), 0, "expired"},
		{"an expired intermediate that is configured", cas(t, trusted, expired), alone(issued(expired, -time.Hour, time.Hour)), 0, "expired"},
		{"an intermediate to come", cas(t, trusted), signed(issued(early, -time.Hour, time.Hour), early), 0, "now, for no time is proven"},
		{"a timestamp that nobody vouches for does not revive it", cas(t, trusted, good), stamped(alone(issued(good, -time.Hour, -time.Second))), 0, "expired"},
		{"another key than the certificate's", cas(t, trusted, good), alone(notary.Holder{Certificate: valid().Certificate, Key: newECDSA(t, elliptic.P256())}), 0, "not by the key in its certificate"},
		{"too long a chain", cas(t, trusted), signed(valid(), good, good, good, good, good, good, good, good), 0, "more than 8"},
		{"the root's other certificate as its own", cas(t, trusted), signed(notary.Holder{Certificate: trusted, Key: rootKey}), 0, "No Subject Alternative Name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			acme := keyless(t, "acme", tt.root, "", "*@acme.example")
			acme.PrivatePKI = true
			report := s.find(t, r, acme)
			if len(report.Evidence) != 1 {
				t.Fatalf("report %+v", report)
			}
			e := report.Evidence[0]
			if e.Verified() != (tt.why == "") || !strings.Contains(strings.ToLower(e.Detail()), strings.ToLower(tt.why)) {
				t.Fatalf("verified %v: %s", e.Verified(), e.Detail())
			}
			if _, timed := e.SignedAt(); timed || tt.why == "" && e.Until().Sub(s.Now.Add(tt.until)).Abs() > time.Second {
				t.Errorf("timed %v, until %v", timed, e.Until())
			}
			acme.PrivatePKI = false
			if report := s.find(t, r, acme); anyVerified(report.Evidence) {
				t.Error("it counts although the authority is of no private PKI")
			}
		})
	}
}

// A timestamp of the trust root settles when a private certificate was used.
func TestAProvenTimeSettlesAPrivateCertificate(t *testing.T) {
	s := newSigstore(t)
	acme := keyless(t, "acme", s.trust(notary.Has{Stamps: true}), "", "*@acme.example")
	acme.PrivatePKI = true
	h := s.Issue("", "dev@acme.example")
	b := unproven(s.sign(h, statement(subject.Digest, predicateSign)), "entry")
	r := newRegistry()
	r.list(t, b)
	for _, later := range []time.Duration{0, 30 * time.Minute} { // after the certificate has ended
		about := subject
		about.Now = s.Now.Add(later)
		report := verifier.Verify(t.Context(), r, about, []verifier.Authority{acme}, verifier.Sources(), nil)
		e := report.Evidence[0]
		if at, ok := e.SignedAt(); !e.Verified() || !ok || at.Sub(s.Now).Abs() > time.Minute || !e.Until().IsZero() {
			t.Errorf("after %v: verified %v, at %v, until %v: %s", later, e.Verified(), at, e.Until(), e.Detail())
		}
	}
	late := s.Issue("", "dev@acme.example", func(c *x509.Certificate) { c.NotAfter = s.Now.Add(-time.Second) })
	r = newRegistry()
	r.list(t, unproven(s.sign(late, statement(subject.Digest, predicateSign)), "entry"))
	if e := s.find(t, r, acme).Evidence[0]; e.Verified() || !strings.Contains(e.Detail(), "at its proven time") {
		t.Errorf("verified %v: %s", e.Verified(), e.Detail())
	}
}

func TestATrustRootThatIsNoneIsRefused(t *testing.T) {
	s := newSigstore(t)
	good := string(s.Trust(notary.Has{Logs: true, Stamps: true, Promises: true}))
	leaf := s.Issue("", "a@b.example").Certificate
	for _, tt := range []struct {
		name, data, want string
		parse            func([]byte) (*verifier.Root, error)
	}{
		{"empty", "", "json", verifier.ParseRoot},
		{"no JSON", "x", "json", verifier.ParseRoot},
		{"two names", `{"mediaType":"a","MediaType":"b"}`, "twice", verifier.ParseRoot},
		{"another type", `{"mediaType":"application/json"}`, "mediaType is", verifier.ParseRoot},
		{"a member that is unknown", `{"other":1}`, "unknown field", verifier.ParseRoot},
		{"a log without a key", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{"hashAlgorithm":"SHA2_256"}]}`, "log ID", verifier.ParseRoot},
		{"null for an authority", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","certificateAuthorities":[{}]}`, "cert chain", verifier.ParseRoot},
		{"too large", strings.Repeat(" ", verifier.MaxRootSize+1), "more than", verifier.ParseRoot},
		{"no PEM", "x", "PEM", verifier.ParseCAs},
		{"a key", string(block("PUBLIC KEY", pkixOf(t, s.Key.Public()))), "PEM certificates alone", verifier.ParseCAs},
		{"a signer's certificate", string(notary.PEM(leaf)), "no authority's", verifier.ParseCAs},
		{"no root", string(notary.PEM(s.Intermediate)), "self-signed", verifier.ParseCAs},
		{"nothing", "", "self-signed", verifier.ParseCAs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := tt.parse([]byte(tt.data)); err == nil || r != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
	for _, mediaType := range []string{"application/vnd.dev.sigstore.trustedroot.v0.1+json", "application/vnd.dev.sigstore.trustedroot.v0.2+json"} {
		data := strings.Replace(good, "application/vnd.dev.sigstore.trustedroot+json;version=0.1", mediaType, 1)
		if data == good {
			t.Fatal("nothing is replaced")
		}
		r, err := verifier.ParseRoot([]byte(data))
		if err != nil || !r.HasLogs() || !r.HasTimes() || !r.HasAuthorities() || len(r.ID()) != 64 || !strings.Contains(r.String(), "1 logs") {
			t.Errorf("%s: %v, %v", mediaType, r, err)
		}
	}
}
