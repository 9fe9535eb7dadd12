package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// public is a key as a log entry names the owner of a signature.
func public(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkixOf(t, key.Public())})
}

func TestAKeysSignatureHasTheTimeThatATrustRootProves(t *testing.T) {
	s := newSigstore(t)
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	at := s.Now.Add(-30 * time.Minute).Truncate(time.Second)
	signed := func() object { return bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)) }
	proven := func() object { return s.prove(signed(), public(t, key), at) }
	both, logs, stamps := notary.Has{Logs: true, Stamps: true}, notary.Has{Logs: true}, notary.Has{Stamps: true}
	for _, tt := range []struct {
		name   string
		trust  notary.Has
		bundle object
		at     time.Time // zero: none is proven
		why    string
	}{
		{"the log's and the timestamp's: the earlier", both, proven(), at, ""},
		{"the log's", logs, proven(), at, ""},
		{"the timestamp's", stamps, proven(), s.Now, ""},
		{"the timestamp's, for the entry has no promise", both, unproven(proven(), "promise"), s.Now, ""},
		{"a message's", logs, s.prove(overMessage(t, key, crypto.SHA256, []byte("subject")), public(t, key), at), at, ""},
		{"none, for nothing proves it", both, signed(), time.Time{}, "neither a log entry nor a timestamp"},
		{"none, for the root has no such thing", notary.Has{}, proven(), time.Time{}, "no trust root"},
		{"none, for the log's proof tells no time", logs, unproven(proven(), "promise"), time.Time{}, "no time is proven"},
		{"none, for the entry is of another key", logs, s.prove(signed(), public(t, stranger), at), time.Time{}, "does not match"},
		{"none, for the entry is to come", logs, s.prove(signed(), public(t, key), s.Now.Add(10*time.Minute)), time.Time{}, "yet to come"},
		{"none, for the entry is nobody's", logs, func() object {
			b := proven()
			part(b, "verificationMaterial", "tlogEntries", "inclusionPromise")["signedEntryTimestamp"] = []byte("none")
			return b
		}(), time.Time{}, "not enough verified log entries"},
		{"none, for the entry cannot be read", logs, func() object {
			b := proven()
			part(b, "verificationMaterial", "tlogEntries")["canonicalizedBody"] = []byte("{}")
			return b
		}(), time.Time{}, "not a recognizable"},
		{"none, for the entry has nonsense in it", logs, func() object {
			b := proven()
			part(b, "verificationMaterial", "tlogEntries")["logIndex"] = object{}
			return b
		}(), time.Time{}, "bundle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			source := r.list(t, tt.bundle)
			release := authority(t, "release", key)
			release.Root = s.trust(tt.trust)
			report := s.find(t, r, release)
			want(t, report, outcome{Source: source, Authorities: []string{"release"}}) // in any case
			e := report.Evidence[0]
			got, ok := e.SignedAt()
			if ok == tt.at.IsZero() || got.Sub(tt.at).Abs() > 10*time.Second || !strings.Contains(e.Untimed(), tt.why) || ok != (e.Untimed() == "") {
				t.Errorf("signed at %v (%v): %s", got, ok, e.Untimed())
			}
		})
	}
}

func TestAKeysSignatureInASignatureImageHasATime(t *testing.T) {
	s := newSigstore(t)
	key := newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, nil)
	signature := sign(t, key, crypto.SHA256, p)
	release := authority(t, "release", key)
	release.Root = s.trust(notary.Has{Logs: true, Stamps: true})
	good := s.attach(public(t, key), p, signature, s.Now)
	changed := func(name, value string) map[string]string {
		copied := map[string]string{}
		for n, v := range good {
			copied[n] = v
		}
		copied[name] = value
		return copied
	}
	for _, tt := range []struct {
		name     string
		attached map[string]string
		timed    bool
	}{
		{"as cosign attaches it", good, true},
		{"nothing", map[string]string{}, false},
		{"an entry that is none", changed("dev.sigstore.cosign/bundle", "{"), false},
		{"an entry without a body", changed("dev.sigstore.cosign/bundle", `{"SignedEntryTimestamp":"AA==","Payload":{}}`), false},
		{"a timestamp that is none", changed("dev.sigstore.cosign/rfc3161timestamp", `{"SignedRFC3161Timestamp":"!"}`), false},
		{"a certificate that is none beside it", changed("dev.sigstore.cosign/certificate", "none"), false},
		{"too much", changed("dev.sigstore.cosign/bundle", strings.Repeat(" ", 200<<10)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, r.layer(p, signature).annotated(tt.attached))
			report := s.find(t, r, release)
			want(t, report, outcome{Source: sigTag, Authorities: []string{"release"}})
			if _, ok := report.Evidence[0].SignedAt(); ok != tt.timed {
				t.Errorf("timed %v: %s", ok, report.Evidence[0].Untimed())
			}
		})
	}
	// The same signature twice: what cannot be read beside the one hides nothing.
	r := newRegistry()
	r.tag(t, sigTag, r.layer(p, signature), r.layer(p, signature).annotated(good))
	report := s.find(t, r, release)
	if !slices.ContainsFunc(report.Evidence, func(e verifier.Evidence) bool { _, ok := e.SignedAt(); return ok }) {
		t.Errorf("none of %d has a time", len(report.Evidence))
	}
}

// Whatever an attacker puts where keys and certificates stand, whoever is pinned: it
// is by nobody (GHSA-fx35-mq7g-6g98), and a signature by the pinned key stays one.
func TestNoSlotBringsAKeyAlong(t *testing.T) {
	s := newSigstore(t)
	key, attacker := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	h, evil := s.Issue(githubIssuer, workflow), s.Issue(githubIssuer, "https://github.com/evil/web/.github/workflows/release.yml@refs/tags/v1")
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	release := authority(t, "release", key)
	release.Root = trust
	ci := keyless(t, "ci", trust, githubIssuer, workflow)
	p := payload(t, subject.Digest, nil)
	said := statement(subject.Digest, predicateSign)
	bundles := map[string]object{
		"the attacker's certificate":           s.sign(evil, said),
		"the attacker's key, logged":           s.prove(bundle(t, attacker, crypto.SHA256, said), public(t, attacker), s.Now),
		"the attacker's key as a certificate":  nil,
		"the right certificate, the wrong key": nil,
		"an entry that names the pinned key":   s.prove(bundle(t, attacker, crypto.SHA256, said), public(t, key), s.Now),
	}
	b := bundle(t, attacker, crypto.SHA256, said)
	delete(part(b, "verificationMaterial"), "publicKey")
	part(b, "verificationMaterial")["certificate"] = object{"rawBytes": pkixOf(t, attacker.Public())}
	bundles["the attacker's key as a certificate"] = b
	bundles["the right certificate, the wrong key"] = s.prove(bundle(t, attacker, crypto.SHA256, said), h.PEM(), s.Now)
	for name, b := range bundles {
		t.Run(name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, b)
			if report := s.find(t, r, release, ci); anyVerified(report.Evidence) || len(report.Evidence) != 1 {
				t.Errorf("report %+v", report)
			}
		})
	}
	attached := map[string]string{}
	for _, name := range []string{"certificate", "chain", "bundle", "rfc3161timestamp", "cert", "publicKey", "key"} {
		attached["dev.sigstore.cosign/"+name] = string(public(t, attacker))
	}
	for _, tt := range []struct {
		name     string
		attached map[string]string
		key      crypto.Signer
		verified bool
	}{
		{"the attacker's key in every slot", attached, attacker, false},
		{"the attacker's certificate", s.attach(evil.PEM(), p, sign(t, evil.Key, crypto.SHA256, p), s.Now), evil.Key, false},
		{"the right certificate over the attacker's signature", s.attach(h.PEM(), p, sign(t, attacker, crypto.SHA256, p), s.Now), attacker, false},
		{"the pinned key, and the attacker's in every slot", attached, key, true},
		{"the pinned key, and the attacker's certificate", s.attach(evil.PEM(), p, sign(t, evil.Key, crypto.SHA256, p), s.Now), key, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, r.layer(p, sign(t, tt.key, crypto.SHA256, p)).annotated(tt.attached))
			report := s.find(t, r, release, ci)
			if len(report.Evidence) != 1 || report.Evidence[0].Verified() != tt.verified {
				t.Errorf("report %+v", report)
			}
			if tt.verified && !slices.Equal(report.Evidence[0].Authorities(), []string{"release"}) {
				t.Errorf("by %v", report.Evidence[0].Authorities())
			}
		})
	}
}

// A certificate where a key is pinned is nobody's, and a key where an identity is.
func TestCertificatesAndKeysDoNotStandInForEachOther(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	r := newRegistry()
	r.list(t, s.sign(h, statement(subject.Digest, predicateSign)))
	pinned := authority(t, "release", h.Key) // even its very key
	pinned.Root = trust
	report := s.find(t, r, pinned)
	if anyVerified(report.Evidence) {
		t.Errorf("a certificate counts where its key is pinned: %+v", report)
	}
	key := newECDSA(t, elliptic.P256())
	r = newRegistry()
	r.list(t, s.prove(bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)), public(t, key), s.Now))
	if report := s.find(t, r, keyless(t, "ci", trust, githubIssuer, workflow)); anyVerified(report.Evidence) {
		t.Errorf("a key counts where an identity is asked for: %+v", report)
	}
}

// Who holds a key that is configured, and a certificate for it, has not signed twice.
func TestAKeyAndItsCertificateAreOneSigner(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	r := newRegistry()
	r.list(t, s.sign(h, statement(subject.Digest, predicateSign)))
	r.list(t, bundle(t, h.Key, crypto.SHA256, statement(subject.Digest, predicateSign)))
	release := authority(t, "release", h.Key)
	signers := make(map[string][]string)
	for _, e := range s.find(t, r, keyless(t, "ci", trust, githubIssuer, workflow), release).Evidence {
		signers[e.Signer()] = append(signers[e.Signer()], e.Authorities()...)
	}
	if got := signers[release.Keys[0].ID()]; len(signers) != 1 || len(got) != 2 {
		t.Errorf("signers %v", signers)
	}
}

// A rekor entry swapped between two signatures that are both good proves neither
// (CVE-2022-23649, CVE-2026-22703).
func TestLogEntriesOfTwoSignaturesAreNotExchanged(t *testing.T) {
	s := newSigstore(t)
	ci := keyless(t, "ci", s.trust(notary.Has{Logs: true}), githubIssuer, workflow)
	h := s.Issue(githubIssuer, workflow)
	p, q := payload(t, subject.Digest, nil), payload(t, subject.Digest, map[string]any{"n": 1})
	mine, its := sign(t, h.Key, crypto.SHA256, p), sign(t, h.Key, crypto.SHA256, q)
	own, others := s.attach(h.PEM(), p, mine, s.Now), s.attach(h.PEM(), q, its, s.Now)
	if !bytes.Contains([]byte(own["dev.sigstore.cosign/bundle"]), []byte("SignedEntryTimestamp")) {
		t.Fatal("no entry")
	}
	own["dev.sigstore.cosign/bundle"], others["dev.sigstore.cosign/bundle"] = others["dev.sigstore.cosign/bundle"], own["dev.sigstore.cosign/bundle"]
	r := newRegistry()
	r.tag(t, sigTag, r.layer(p, mine).annotated(own), r.layer(q, its).annotated(others))
	report := s.find(t, r, ci)
	if anyVerified(report.Evidence) || len(report.Evidence) != 2 {
		t.Errorf("report %+v", report)
	}
}

// A workflow that others may call signs for the repository that has called it, and not
// for its own.
func TestAReusableWorkflowDoesNotSignForAnotherRepository(t *testing.T) {
	s := newSigstore(t)
	id, err := verifier.ParseIdentity(githubIssuer, "https://github.com/acme/web/.github/workflows/release.yml@**", "https://github.com/acme/web")
	if err != nil {
		t.Fatal(err)
	}
	ci := verifier.Authority{Name: "ci", Root: s.trust(notary.Has{Logs: true, Stamps: true}), Identities: []verifier.Identity{id}}
	for repository, verified := range map[string]bool{"https://github.com/acme/web": true, "https://github.com/evil/web": false, "": true} {
		h := s.Issue(githubIssuer, workflow)
		if repository != "" {
			h = s.Issue(githubIssuer, workflow, from(repository))
		}
		r := newRegistry()
		r.list(t, s.sign(h, statement(subject.Digest, predicateSign)))
		if e := s.find(t, r, ci).Evidence[0]; e.Verified() != verified {
			t.Errorf("for %q: verified %v: %s", repository, e.Verified(), e.Detail())
		}
	}
}
