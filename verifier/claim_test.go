package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// claiming looks in all sources for what is claimed, and checks that nothing counts.
func (s *sigstore) claiming(t *testing.T, r *registry, roots []*verifier.Root, authorities ...verifier.Authority) []verifier.Evidence {
	t.Helper()
	about := subject
	about.Now, about.Claims, about.ClaimRoots = s.Now, true, roots
	report := look(t, r, about, authorities, verifier.Sources(), nil)
	for _, e := range report.Evidence {
		if e.Verified() || e.Signer() != "" || len(e.Authorities())+len(e.Signers())+len(e.SignedBy()) > 0 {
			t.Errorf("what is claimed counts: %+v", e)
		}
	}
	return report.Evidence
}

// Whom a certificate names is told though nobody asked for him; it is proven where a
// trust root is there to prove it, and only of a signature that holds, of this manifest.
func TestClaimsAreToldAndCountForNothing(t *testing.T) {
	s := newSigstore(t)
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	other := newSigstore(t).trust(notary.Has{Logs: true, Stamps: true})
	h := s.Issue(githubIssuer, workflow, from("https://github.com/acme/web"))
	sign := func(digest v1.Hash) object { return s.sign(h, statement(digest, predicateSign)) }
	broken := sign(subject.Digest)
	signature := part(broken, "dsseEnvelope", "signatures")
	signature["sig"] = append([]byte(nil), signature["sig"].([]byte)...)
	signature["sig"].([]byte)[9] ^= 1
	elsewhere := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	wrong := keyless(t, "ci", trust, githubIssuer, "https://github.com/acme/other/**")
	key := authority(t, "release", newECDSA(t, elliptic.P256()))
	for _, tt := range []struct {
		name   string
		bundle object
		roots  []*verifier.Root
		asked  []verifier.Authority
		proven bool
		why    string
	}{
		{"nobody is asked for", sign(subject.Digest), []*verifier.Root{trust}, nil, true, ""},
		{"keys are asked for", sign(subject.Digest), []*verifier.Root{trust}, []verifier.Authority{key}, true, ""},
		{"another workflow is asked for", sign(subject.Digest), []*verifier.Root{trust}, []verifier.Authority{wrong}, true, ""},
		{"another root first", sign(subject.Digest), []*verifier.Root{other, trust}, nil, true, ""},
		{"no trust root", sign(subject.Digest), nil, nil, false, "no trust root is configured"},
		{"another trust root", sign(subject.Digest), []*verifier.Root{other}, nil, false, "does not hold"},
		{"another digest", sign(elsewhere), []*verifier.Root{trust}, nil, false, elsewhere.String()},
		{"a broken signature", broken, []*verifier.Root{trust}, nil, false, "not by the key in its certificate"},
		{"nothing proves it", unproven(sign(subject.Digest), "entry", "stamp"), []*verifier.Root{trust}, nil, false, "does not hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			found := s.claiming(t, r, tt.roots, tt.asked...)
			if len(found) != 1 {
				t.Fatalf("evidence %+v", found)
			}
			c, ok := found[0].Claimed()
			if !ok || c.Issuer != githubIssuer || c.Subject != workflow || c.Source != "https://github.com/acme/web" {
				t.Errorf("claimed %+v", c)
			}
			if c.Proven != tt.proven || !strings.Contains(c.Detail, tt.why) {
				t.Errorf("proven %v: %s", c.Proven, c.Detail)
			}
			if timed := !c.SignedAt.IsZero(); timed != tt.proven || c.Logged != tt.proven || (c.ProvenBy != "") != tt.proven {
				t.Errorf("claimed %+v", c)
			}
		})
	}
}

func TestClaimsOfAttachedCertificates(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	p := payload(t, subject.Digest, nil)
	signature := sign(t, h.Key, crypto.SHA256, p)
	layer := func(r *registry) {
		l := r.layer(p, signature)
		annotations := l["annotations"].(map[string]string)
		for name, value := range s.attach(h.PEM(), p, signature, s.Now) {
			annotations[name] = value
		}
		r.tag(t, sigTag, l)
	}
	for _, trusted := range []bool{true, false} {
		r := newRegistry()
		layer(r)
		var roots []*verifier.Root
		if trusted {
			roots = append(roots, s.trust(notary.Has{Logs: true}))
		}
		found := s.claiming(t, r, roots)
		if len(found) != 1 {
			t.Fatalf("evidence %+v", found)
		}
		if c, _ := found[0].Claimed(); c.Subject != workflow || c.Proven != trusted {
			t.Errorf("with a root %v: claimed %+v", trusted, c)
		}
	}
	// one who asks for nothing is told nothing, and nothing is fetched for him
	r := newRegistry()
	layer(r)
	report := look(t, r, subject, nil, verifier.Sources(), nil)
	if _, ok := report.Evidence[0].Claimed(); ok || len(report.Failures) > 0 {
		t.Errorf("report %+v", report)
	}
	for _, asked := range r.asked() {
		if strings.Contains(asked, digestOf(p).String()) {
			t.Errorf("asked for %s", asked)
		}
	}
}

// A bundle hints at a key by its hash; that tells whom to ask, and no more.
func TestHintsAtKeysAreClaims(t *testing.T) {
	s := newSigstore(t)
	key := newECDSA(t, elliptic.P256())
	id, err := hex.DecodeString(keyOf(t, key).ID())
	if err != nil || len(id) != sha256.Size {
		t.Fatal(err)
	}
	for hint, want := range map[string]string{
		base64.StdEncoding.EncodeToString(id): keyOf(t, key).ID(),
		"me\x1b[31m":                          `"me\x1b[31m"`,
		strings.Repeat("x", 129):              "",
	} {
		r := newRegistry()
		b := bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign))
		part(b, "verificationMaterial")["publicKey"] = object{"hint": hint}
		r.list(t, b)
		found := s.claiming(t, r, nil, authority(t, "release", newECDSA(t, elliptic.P256())))
		if len(found) != 1 {
			t.Fatalf("evidence %+v", found)
		}
		if c, _ := found[0].Claimed(); c.Key != want || c.Proven {
			t.Errorf("hint %q: claimed %+v", hint, c)
		}
	}
}

// What was checked is told in order, and what proves the time.
func TestChecksAreTold(t *testing.T) {
	s := newSigstore(t)
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	h := s.Issue(githubIssuer, workflow)
	ci := keyless(t, "ci", trust, githubIssuer, workflow)
	elsewhere := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	key := newECDSA(t, elliptic.P256())
	for _, tt := range []struct {
		name   string
		bundle object
		by     verifier.Authority
		want   string
	}{
		{"by a certificate", s.sign(h, statement(subject.Digest, predicateSign)), ci,
			"form holds, identity holds, signature holds, certificate holds, log holds, timestamp holds, digest holds"},
		{"of another digest", s.sign(h, statement(elsewhere, predicateSign)), ci,
			"form holds, identity holds, signature holds, certificate holds, log holds, timestamp holds, digest fails"},
		{"by somebody else", s.sign(s.Issue(githubIssuer, workflow+"x"), statement(subject.Digest, predicateSign)), ci, "identity fails"},
		{"without an entry", unproven(s.sign(h, statement(subject.Digest, predicateSign)), "entry"), ci, "identity holds, signature holds, log fails"},
		{"in a log that proves no time", s.second(githubIssuer, workflow, statement(subject.Digest, predicateSign)), ci,
			"form holds, identity holds, signature holds, certificate holds, log holds, timestamp holds, digest holds"},
		{"by a key", bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)), authority(t, "release", key),
			"form holds, signature holds, digest holds, time absent"},
		{"by another key", bundle(t, newECDSA(t, elliptic.P256()), crypto.SHA256, statement(subject.Digest, predicateSign)), authority(t, "release", key), "signature fails"},
		{"no payload", bundle(t, key, crypto.SHA256, object{"a": "b"}), authority(t, "release", key), "form fails, signature holds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			report := s.find(t, r, tt.by)
			if len(report.Evidence) != 1 {
				t.Fatalf("report %+v", report)
			}
			var got []string
			for _, c := range report.Evidence[0].Checks() {
				got = append(got, c.Name+" "+c.Outcome)
				if c.Outcome == verifier.OutcomeFails && c.Detail == "" {
					t.Errorf("%s fails without a word", c.Name)
				}
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("got  %s\nwant %s\n%s", strings.Join(got, ", "), tt.want, report.Evidence[0].Detail())
			}
			if by := report.Evidence[0].ProvenBy(); (by != "") != strings.Contains(tt.want, "log holds") {
				t.Errorf("proven by %q", by)
			}
		})
	}
}

func TestRejectedEvidenceIsWrittenWithItsClaims(t *testing.T) {
	s := newSigstore(t)
	r := newRegistry()
	r.list(t, s.sign(s.Issue(githubIssuer, workflow), statement(subject.Digest, predicateSign)))
	encoded, err := json.Marshal(s.claiming(t, r, []*verifier.Root{s.trust(notary.Has{Stamps: true})}))
	if err != nil {
		t.Fatal(err)
	}
	var read []verifier.Written
	if err := json.Unmarshal(encoded, &read); err != nil {
		t.Fatal(err)
	}
	c := read[0].Claimed
	if c == nil || !c.Proven || c.Subject != workflow || c.ProvenBy != verifier.ProvenByTimestamp || c.Logged || s.Now.Sub(c.SignedAt).Abs() > time.Hour {
		t.Errorf("written %s", encoded)
	}
}
