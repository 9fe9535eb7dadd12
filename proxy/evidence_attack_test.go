package proxy_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/e2e/notary"
	"vidimus/policy"
	"vidimus/verifier"
)

// The rows of the project's catalogue of attacks that are about evidence, each through
// the proxy's handler. The tests of this file and of attestation_attack_test.go have
// those about certificates, logs, times and attestations. The others are in:
//
//	A1 A2 A3 A4 A6 A12 A13 A14 B10  TestSignatures, TestWhatIsNotSignedByABundleIsRefused; verifier: TestAttacksOnASignature
//	A5                              TestA5AnOlderSignedVersionUnderATag
//	A9                              TestA9KeysOfEveryKind; verifier: TestParseKeyNamesWhatItFoundInstead
//	A10                             verifier: TestWycheproofIsAgreedWith
//	A11                             TestA11OneSignerTwiceIsNotTwo
//	A15                             TestA15NothingRidesTheExemption and its neighbours
//	A19 GHSA-g2pf-6v5v-qcc8         cmd/vidimus: TestBadConfigurations; here TestD2D3Routing
//	A20                             cmd/vidimus: the tests of reload
//	A21 CVE-2026-122321             TestP6ARevisionEndsTheShortPath, TestB1ATagThatMovesBetweenHeadAndGet
//	B13                             children_test.go
//	B17, cosign oci/remote.Bundle   TestWhatIsNotSignedByABundleIsRefused (gzip in the blob), TestReferrersThatCannotBeReadLeaveADecisionOpen
//	CVE-2023-46737 CVE-2024-29902/3 TestB5EvidenceIsBounded, TestTenThousandReferrersOfAnImage; verifier: TestAMillionLayersTakeLittleMemory
//	CVE-2026-24137                  cmd/vidimus: root_refresh_test.go

// accused is a world in which ghcr.io/acme/** asks for ci, whom a certificate of s names.
func accused(t *testing.T, s *sigstore, trust *verifier.Root, change ...func(*settings)) *world {
	t.Helper()
	return newWorld(t, func(w *world, settings *settings) {
		w.clock.at = s.Now
		settings.authorities = append(settings.authorities, s.keyless("ci", trust, workflow))
		settings.policies[0].Require.Of = []string{"ci"}
		for _, c := range change {
			c(settings)
		}
	})
}

func pushBundle(w *world, image lying.Content, data []byte) {
	w.up.PushReferrer("acme/web", image.Digest(), lying.BundleArtifact(image.Descriptor(), lying.Bundle03, data, lying.PredicateSign))
}

func pushLayers(w *world, image lying.Content, layers ...lying.Layer) {
	w.up.Push("acme/web", lying.Signatures(layers...), tag(image.Digest()))
}

// Each of these proves nothing, and takes nothing from what does.
func TestAttacksOnCertificatesAndLogs(t *testing.T) {
	s, elsewhere := newSigstore(t), newSigstoreElsewhere(t)
	image, other := lying.Image("web"), lying.Image("other")
	said, payload := lying.Statement(image.Digest(), lying.PredicateSign, nil), lying.Payload("", image.Digest(), nil)
	h, twin := s.issue(testIssuer, workflow), s.issue(testIssuer, workflow)
	attacker := signer{lying.P256(), nil}
	both, logged, stamped := s.trust(true, true), s.trust(true, false), s.trust(false, true)
	good := func() fields { return s.bundle(h, said, s.Now) }
	bundled := func(change func(b fields)) func(*world) {
		return func(w *world) {
			b := good()
			change(b)
			pushBundle(w, image, lying.Encode(b))
		}
	}
	by := func(h signer, at time.Time) func(*world) {
		return func(w *world) { pushBundle(w, image, lying.Encode(s.bundle(h, said, at))) }
	}
	layered := func(h signer, further map[string]string) func(*world) {
		return func(w *world) { pushLayers(w, image, s.layer(h, payload, s.Now, further)) }
	}
	entryOf := func(b fields) fields { return material(b)["tlogEntries"].([]any)[0].(fields) }
	spoilt := func(from []byte) []byte { return append(bytes.Clone(from[:len(from)-1]), from[len(from)-1]^1) }
	late := func(c *x509.Certificate) { c.NotAfter = s.Now.Add(-time.Second) }
	foreign := string(attacker.PublicPEM())
	for _, tt := range []struct {
		name, reason string
		trust        *verifier.Root
		put          func(w *world)
	}{
		{"CVE-2022-23649 GHSA-ccxc-vr6p-4858: the log entry of another signature of the image", "untrusted", both, func(w *world) {
			marked := lying.Payload("", image.Digest(), map[string]any{"n": 1})
			a, b := s.layer(h, payload, s.Now, nil), s.layer(h, marked, s.Now, nil)
			const slot = "dev.sigstore.cosign/bundle"
			a.Annotations[slot], b.Annotations[slot] = b.Annotations[slot], a.Annotations[slot]
			pushLayers(w, image, a, b)
		}},
		{"CVE-2026-22703 GHSA-whqx-f9j3-ch6m: a bundle with some other valid entry", "untrusted", both, bundled(func(b fields) {
			about := s.bundle(h, lying.Statement(other.Digest(), lying.PredicateSign, nil), s.Now)
			material(b)["tlogEntries"] = material(about)["tlogEntries"]
		})},
		{"CVE-2022-36056 (1): a bundle over other bytes", "untrusted", both, func(w *world) {
			b := lying.MessageFields(h.Key, other.Body)
			b["verificationMaterial"] = material(good())
			pushBundle(w, image, lying.Encode(b))
		}},
		{"CVE-2022-36056 (2): another identity", "untrusted", both, by(s.issue(testIssuer, strings.Replace(workflow, "acme", "evil", 1)), s.Now)},
		{"CVE-2022-36056 (3): a bundle that is none", "payload-invalid", both, func(w *world) { pushBundle(w, image, []byte(`{"base64Signature":"","cert":""}`)) }},
		{"CVE-2022-36056 (4): a log entry that does not hold", "untrusted", both, bundled(func(b fields) {
			promise := entryOf(b)["inclusionPromise"].(fields)
			promise["signedEntryTimestamp"] = spoilt(promise["signedEntryTimestamp"].([]byte))
		})},
		{"CVE-2026-39395 GHSA-w6c6-c85g-mmv6: a signed statement that cannot be parsed", "payload-invalid", both, func(w *world) {
			pushBundle(w, image, lying.Encode(s.bundle(h, []byte(`{"_type":`), s.Now)))
		}},
		{"CVE-2024-45395: 33 log entries", "payload-invalid", both, bundled(func(b fields) {
			var many []any
			for range 33 {
				many = append(many, entryOf(b))
			}
			material(b)["tlogEntries"] = many
		})},
		{"CVE-2024-45395: 33 timestamps", "payload-invalid", both, bundled(func(b fields) {
			var many []any
			for range 33 {
				many = append(many, fields{"signedTimestamp": []byte("x")})
			}
			material(b)["timestampVerificationData"] = fields{"rfc3161Timestamps": many}
		})},
		{"CVE-2026-39984: a timestamp of another authority", "untrusted", stamped, bundled(func(b fields) {
			material(b)["timestampVerificationData"] = elsewhere.Stamps(signatureOf(b))
		})},
		{"CVE-2026-44310: a list of no certificates", "payload-invalid", both, bundled(func(b fields) {
			delete(material(b), "certificate")
			material(b)["x509CertificateChain"] = fields{"certificates": []any{}}
		})},
		{"sigstore-go #609: a statement about nothing", "payload-invalid", both, func(w *world) {
			pushBundle(w, image, lying.Encode(s.bundle(h, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"`+lying.PredicateSign+`","predicate":{}}`), s.Now)))
		}},
		{"sigstore-go #562: an entry of a version that nobody knows", "payload-invalid", both, bundled(func(b fields) {
			unknown := bytes.Replace(entryOf(b)["canonicalizedBody"].([]byte), []byte(`"apiVersion":"0.0.1"`), []byte(`"apiVersion":"0.0.9"`), 1)
			e := s.Entry("dsse", unknown, s.Now)
			e["kindVersion"] = fields{"kind": "dsse", "version": "0.0.9"}
			material(b)["tlogEntries"] = []any{e}
		})},
		{"sigstore-go #611: an entry about another digest", "untrusted", both, bundled(func(b fields) {
			material(b)["tlogEntries"] = []any{s.Entry("dsse", notary.Body("dsse", []byte("other"), signatureOf(b), h.owner()), s.Now)}
		})},
		{"GHSA-fx35-mq7g-6g98: the attacker's key as the cert of a log entry", "untrusted", both, layered(attacker, map[string]string{
			"dev.sigstore.cosign/bundle": `{"base64Signature":"x","cert":` + string(mustJSON(foreign)) + `,"rekorBundle":{}}`,
		})},

		{"A6: the attacker's key as a certificate", "payload-invalid", both, layered(attacker, map[string]string{"dev.sigstore.cosign/certificate": foreign})},
		{"A6: the attacker's key as a chain", "untrusted", both, layered(attacker, map[string]string{"dev.sigstore.cosign/chain": foreign})},
		{"A6: the attacker's own authority as a chain", "untrusted", both, func(w *world) {
			evil := elsewhere.issue(testIssuer, workflow)
			pushLayers(w, image, s.layer(evil, payload, s.Now, map[string]string{"dev.sigstore.cosign/chain": string(notary.PEM(elsewhere.Intermediate, elsewhere.Root))}))
		}},
		{"A6: ci's certificate, and the attacker's signature", "untrusted", both, layered(attacker, map[string]string{"dev.sigstore.cosign/certificate": string(h.owner())})},
		{"A6: ci's certificate behind the attacker's", "payload-invalid", both, func(w *world) {
			evil := s.issue(testIssuer, "https://github.com/evil/x")
			pushLayers(w, image, s.layer(evil, payload, s.Now, map[string]string{"dev.sigstore.cosign/certificate": string(evil.owner()) + string(h.owner())}))
		}},
		{"A6: the attacker's key as the hint", "untrusted", both, bundled(func(b fields) {
			delete(material(b), "certificate")
			material(b)["publicKey"] = fields{"hint": base64.StdEncoding.EncodeToString([]byte(foreign))}
		})},
		{"A6: the attacker's self-signed certificate", "untrusted", both, func(w *world) {
			forged := s.issue(testIssuer, workflow, func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true })
			forged.certificate = s.Certify(forged.certificate, nil, forged.Signer().Public(), forged.Signer())
			by(forged, s.Now)(w)
		}},

		{"A7: no log entry", "untrusted", both, bundled(func(b fields) { delete(material(b), "tlogEntries") })},
		{"A7: no promise, and so no time", "untrusted", logged, bundled(func(b fields) { delete(entryOf(b), "inclusionPromise") })},
		{"A7: an entry of another log", "untrusted", both, bundled(func(b fields) {
			material(b)["tlogEntries"] = []any{elsewhere.Entry("dsse", entryOf(b)["canonicalizedBody"].([]byte), s.Now)}
		})},
		{"A7: the entry of another certificate", "untrusted", both, bundled(func(b fields) {
			material(b)["tlogEntries"] = []any{s.Entry("dsse", notary.Body("dsse", said, signatureOf(b), twin.owner()), s.Now)}
		})},
		{"A7: no annotation with an entry", "untrusted", both, layered(h, map[string]string{"dev.sigstore.cosign/bundle": ""})},

		{"A8: an expired certificate, logged now", "untrusted", both, by(s.issue(testIssuer, workflow, late), s.Now)},
		{"A8: an expired certificate, stamped now", "untrusted", stamped, by(s.issue(testIssuer, workflow, late), s.Now)},
		{"A8: logged before the certificate was", "untrusted", both, by(h, s.Now.Add(-2*time.Minute))},
		{"A8: another issuer", "untrusted", both, by(s.issue("https://evil.example", workflow), s.Now)},
		{"A8: a subject that goes on", "untrusted", both, by(s.issue(testIssuer, workflow+".attacker"), s.Now)},
		{"A8: a subject that begins before", "untrusted", both, by(s.issue(testIssuer, "https://evil.example/"+workflow), s.Now)},
		{"A8: ci's subject beside another", "payload-invalid", both, by(s.issue(testIssuer, workflow, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "https", Host: "evil.example"})
		}), s.Now)},
		{"A8: a certificate for servers", "untrusted", both, by(s.issue(testIssuer, workflow, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), s.Now)},
		{"A22: logged 61 seconds from now", "untrusted", logged, by(h, s.Now.Add(61*time.Second))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := accused(t, s, tt.trust)
			w.up.Push("acme/web", image, "v1")
			tt.put(w)
			refusedEverywhere(t, w, web, "v1", image, tt.reason)
			pushBundle(w, image, lying.Encode(good()))
			w.clock.pass(10 * time.Second)
			served(t, w.get(manifestPath(web, "v1")), image)
		})
	}
}

func mustJSON(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}

func TestA22SkewIsGrantedInOneDirection(t *testing.T) {
	s := newSigstore(t)
	image := lying.Image("web")
	w := accused(t, s, s.trust(true, false))
	w.up.Push("acme/web", image, "v1")
	said := lying.Statement(image.Digest(), lying.PredicateSign, nil)
	pushBundle(w, image, lying.Encode(s.bundle(s.issue(testIssuer, workflow), said, s.Now.Add(59*time.Second))))
	served(t, w.get(manifestPath(web, "v1")), image)
}

// The whole chain holds at the time that is proven, and where none is proven now.
func TestCVE202624122AnExpiredIntermediate(t *testing.T) {
	image := lying.Image("web")
	said := lying.Statement(image.Digest(), lying.PredicateSign, nil)
	for _, private := range []bool{false, true} {
		for until, reason := range map[time.Duration]string{time.Hour: "", -time.Second: "untrusted"} {
			t.Run(fmt.Sprintf("A8: a private PKI: %v, ends in %v", private, until), func(t *testing.T) {
				s := newSigstore(t)
				s.Intermediate = s.Certify(notary.Authority("between", s.Now.Add(-time.Hour), s.Now.Add(until)), s.Root, s.Key.Public(), s.RootKey)
				trust := s.trust(true, true)
				h := s.issue(testIssuer, workflow)
				b := s.bundle(h, said, s.Now)
				if private {
					var err error
					if trust, err = verifier.ParseCAs(notary.PEM(s.Root)); err != nil {
						t.Fatal(err)
					}
					b = fields{"mediaType": lying.Bundle02, "dsseEnvelope": b["dsseEnvelope"], "verificationMaterial": fields{
						"x509CertificateChain": fields{"certificates": []any{fields{"rawBytes": h.certificate.Raw}, fields{"rawBytes": s.Intermediate.Raw}}},
					}}
				}
				w := accused(t, s, trust, func(settings *settings) { settings.authorities[1].PrivatePKI = private })
				w.up.Push("acme/web", image, "v1")
				w.up.PushReferrer("acme/web", image.Digest(), lying.BundleArtifact(image.Descriptor(), types.MediaType(fmt.Sprint(b["mediaType"])), lying.Encode(b), ""))
				if reason != "" {
					refusedEverywhere(t, w, web, "v1", image, reason)
					return
				}
				served(t, w.get(manifestPath(web, "v1")), image)
				w.clock.pass(9*time.Minute + time.Second) // after the signer's certificate
				if a := w.get(manifestPath(web, "v1")); private {
					refused(t, a, http.StatusForbidden, "DENIED", "untrusted")
				} else {
					served(t, a, image)
				}
			})
		}
	}
}

// What is hostile is one piece of evidence, and no end of the process.
func TestHostileProofsArePiecesOfEvidence(t *testing.T) {
	s := newSigstore(t)
	image := lying.Image("web")
	said, payload := lying.Statement(image.Digest(), lying.PredicateSign, nil), lying.Payload("", image.Digest(), nil)
	h := s.issue(testIssuer, workflow)
	w := accused(t, s, s.trust(true, true))
	w.up.Push("acme/web", image, "v1")
	var layers []lying.Layer
	for _, hostile := range []string{
		`null`, `[]`, `{}`, `{"Payload":null}`, `{"SignedEntryTimestamp":null,"Payload":{"body":null}}`, `{"Payload":{"body":{"spec":7}}}`,
		`{"SignedEntryTimestamp":"AA==","Payload":{"body":"bnVsbA==","integratedTime":-1,"logIndex":-9223372036854775808,"logID":"00"}}`,
		`{"SignedEntryTimestamp":"AA==","Payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"signatures":[]}}`)) + `","logID":"00"}}`,
		`{"SignedEntryTimestamp":"AA==","Payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"signature":{},"data":{}}}`)) + `","logID":"00"}}`,
		strings.Repeat(`[`, 20_000),
	} {
		layers = append(layers, s.layer(h, payload, s.Now, map[string]string{"dev.sigstore.cosign/bundle": hostile}))
	}
	for _, hostile := range []string{`null`, `{}`, `{"SignedRFC3161Timestamp":null}`, `{"SignedRFC3161Timestamp":"MIAA"}`, `{"SignedRFC3161Timestamp":"MAA="}`} {
		layers = append(layers, s.layer(h, payload, s.Now, map[string]string{"dev.sigstore.cosign/bundle": "", "dev.sigstore.cosign/rfc3161timestamp": hostile}))
	}
	pushLayers(w, image, layers...)
	for _, hostile := range []string{"verificationMaterial", "tlogEntries", "certificate"} {
		b := s.bundle(h, said, s.Now)
		if hostile == "verificationMaterial" {
			b[hostile] = nil
		} else {
			material(b)[hostile] = []any{nil}
		}
		pushBundle(w, image, lying.Encode(b))
	}
	refused(t, w.get(manifestPath(web, "v1")), http.StatusForbidden, "DENIED", "payload-invalid")
	if found := evidenceIn(t, w); len(found) != len(layers)+3 {
		t.Errorf("%d pieces of evidence, want %d", len(found), len(layers)+3)
	}
	pushBundle(w, image, lying.Encode(s.bundle(h, said, s.Now)))
	w.clock.pass(10 * time.Second)
	together(t, 8, func() { served(t, w.get(manifestPath(web, "v1")), image) }, func() {})
}

// One who is in two authorities, or has many certificates, has signed once.
func TestCVE202649834OneSignerManyTimesIsOne(t *testing.T) {
	s := newSigstore(t)
	image := lying.Image("web")
	trust := s.trust(true, true)
	w := accused(t, s, trust, func(settings *settings) {
		settings.authorities[1] = s.keyless("ci", trust, "https://github.com/acme/web/**")
		settings.authorities = append(settings.authorities, s.keyless("any", trust, "https://github.com/acme/**"))
		settings.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"ci", "any"}}
	})
	w.up.Push("acme/web", image, "v1")
	said := lying.Statement(image.Digest(), lying.PredicateSign, nil)
	for range 3 {
		pushBundle(w, image, lying.Encode(s.bundle(s.issue(testIssuer, workflow), said, s.Now)))
	}
	pushLayers(w, image, s.layer(s.issue(testIssuer, workflow), lying.Payload("", image.Digest(), nil), s.Now, nil))
	refusedEverywhere(t, w, web, "v1", image, "threshold")
	pushBundle(w, image, lying.Encode(s.bundle(s.issue(testIssuer, "https://github.com/acme/other"), said, s.Now)))
	w.clock.pass(10 * time.Second)
	served(t, w.get(manifestPath(web, "v1")), image)
}
