package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/verifier"
)

const (
	predicateVuln = "https://cosign.sigstore.dev/attestation/vuln/v1"
	mediaTypeDSSE = "application/vnd.dsse.envelope.v1+json"
)

// attested is a layer of the image of attestations. What its annotation says of the
// predicate is not signed.
func attested(envelope fields, said string) lying.Layer {
	return lying.Layer{MediaType: mediaTypeDSSE, Data: lying.Encode(envelope), Annotations: map[string]string{"predicateType": said}}
}

func pushAttested(w *world, image lying.Content, layers ...lying.Layer) {
	w.up.Push("acme/web", lying.Signatures(layers...), strings.TrimSuffix(tag(image.Digest()), ".sig")+".att")
}

// A policy asks for a vulnerability scan by both keys, and each of these is none.
func TestA16AttestationsThatAreNotTheOnesAskedFor(t *testing.T) {
	image, other := lying.Image("web"), lying.Image("other")
	about := func(digest v1.Hash, predicateType string) []byte { return lying.Statement(digest, predicateType, nil) }
	scanned := about(image.Digest(), predicateVuln)
	signed := func(statement []byte, keys ...lying.Key) fields {
		envelope := lying.SignStatement(keys[0], statement)
		for _, key := range keys[1:] {
			envelope["signatures"] = append(envelope["signatures"].([]any), lying.SignStatement(key, statement)["signatures"].([]any)...)
		}
		return envelope
	}
	subjects := func(list string) []byte {
		i := bytes.Index(scanned, []byte(`"subject":`)) + len(`"subject":`)
		j := i + bytes.Index(scanned[i:], []byte("]")) + 1
		return append(append(bytes.Clone(scanned[:i]), list...), scanned[j:]...)
	}
	many := strings.Repeat(`{"digest":{"sha256":"`+image.Digest().Hex+`"}},`, 1024)
	both := func(w *world, statement []byte) {
		pushAttested(w, image, attested(signed(statement, w.key, w.foreign), predicateVuln))
	}
	for _, tt := range []struct {
		name string
		put  func(w *world)
	}{
		{"CVE-2022-35929 CVE-2022-35930: a valid one of another type", func(w *world) {
			both(w, about(image.Digest(), lying.PredicateSLSA))
			for _, key := range []lying.Key{w.key, w.foreign} {
				w.up.Attest("acme/web", image, key)
			}
		}},
		{"CVE-2022-35929: a signature, which is no attestation", func(w *world) {
			for _, key := range []lying.Key{w.key, w.foreign} {
				w.up.SignBundle("acme/web", image, key)
			}
		}},
		{"CVE-2022-35929: a type with something behind", func(w *world) { both(w, about(image.Digest(), predicateVuln+"/")) }},
		{"about another manifest", func(w *world) { both(w, about(other.Digest(), predicateVuln)) }},
		{"about no list", func(w *world) { both(w, subjects("null")) }},
		{"about nothing that has a digest", func(w *world) { both(w, subjects("[null]")) }},
		{"about 1025 subjects", func(w *world) {
			both(w, subjects("["+strings.TrimSuffix(many, ",")+`,{"digest":{"sha256":"`+image.Digest().Hex+`"}}]`))
		}},
		{"another payload type", func(w *world) {
			envelope := signed(scanned, w.key, w.foreign)
			envelope["payloadType"] = "application/json"
			pushAttested(w, image, attested(envelope, predicateVuln))
		}},
		{"CVE-2026-39395: signed, and not to be parsed", func(w *world) { both(w, scanned[:len(scanned)-1]) }},
		{"by one of two", func(w *world) { pushAttested(w, image, attested(signed(scanned, w.key), predicateVuln)) }},
		{"CVE-2026-49834: by one of two, twice in one envelope", func(w *world) {
			pushAttested(w, image, attested(signed(scanned, w.key, w.key), predicateVuln))
		}},
		{"CVE-2026-49834: by one of two, in two envelopes and a bundle", func(w *world) {
			pushAttested(w, image, attested(signed(scanned, w.key), predicateVuln), attested(signed(scanned, w.key), ""))
			w.up.Bundle("acme/web", image, w.key, predicateVuln)
		}},
		{"by one of two, and the other with a signature of something else", func(w *world) {
			envelope := signed(scanned, w.key)
			stolen := signed(about(image.Digest(), lying.PredicateSLSA), w.foreign)
			envelope["signatures"] = append(envelope["signatures"].([]any), stolen["signatures"].([]any)...)
			pushAttested(w, image, attested(envelope, predicateVuln))
		}},
		{"by a stranger who calls himself one of the keys", func(w *world) {
			envelope := signed(scanned, lying.P256())
			envelope["signatures"].([]any)[0].(fields)["keyid"] = w.key.ID()
			pushAttested(w, image, attested(envelope, predicateVuln))
		}},
	} {
		t.Run("A16: "+tt.name, func(t *testing.T) {
			w := newWorld(t, func(w *world, s *settings) {
				s.authorities = append(s.authorities, authority(t, "scan", w.foreign))
				s.policies[0].Require = policy.Require{}
				s.policies[0].Attestations = []policy.Attestation{{PredicateType: predicateVuln, Require: policy.Require{AtLeast: 2, Of: []string{"release", "scan"}}}}
			})
			w.up.Push("acme/web", image, "v1")
			tt.put(w)
			refusedEverywhere(t, w, web, "v1", image, "attestation-missing")
			both(w, scanned)
			w.clock.pass(10 * time.Second)
			served(t, w.get(manifestPath(web, "v1")), image)
		})
	}
}

// CVE-2023-46737: the list of attestations has no end.
func TestCVE202346737TenThousandAttestations(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t, func(_ *world, s *settings) {
		s.policies[0].Attestations = []policy.Attestation{{PredicateType: predicateVuln, Require: s.policies[0].Require}}
	})
	w.up.PushSigned("acme/web", image, w.key, "v1")
	layer := attested(lying.SignStatement(w.foreign, lying.Statement(image.Digest(), predicateVuln, nil)), predicateVuln)
	var list []any
	for i := range 10_000 {
		list = append(list, fields{"mediaType": layer.MediaType, "size": len(layer.Data), "digest": lying.Digest(fmt.Append(nil, i)).String()})
	}
	manifest := lying.Encode(fields{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": fields{"mediaType": types.OCIConfigJSON, "size": 2, "digest": lying.Digest([]byte("{}")).String()}, "layers": list})
	w.up.Push("acme/web", lying.Content{MediaType: string(types.OCIManifestSchema1), Body: manifest}, strings.TrimSuffix(tag(image.Digest()), ".sig")+".att")
	begun := time.Now()
	refused(t, w.get(manifestPath(web, "v1")), http.StatusForbidden, "DENIED", "too-many-signatures")
	if n, took := len(w.up.Log()), time.Since(begun); n > verifier.DecisionRequests || took > verifier.DecisionTime {
		t.Errorf("%d requests, in %v", n, took)
	}
}

// A key counts in its window, and a time is what is proven.
func TestCVE202654787KeysOutsideOfTheirTime(t *testing.T) {
	s, elsewhere := newSigstore(t), newSigstoreElsewhere(t)
	image := lying.Image("web")
	payload := lying.Payload("", image.Digest(), nil)
	until := s.Now.Add(-20 * time.Second).Truncate(time.Second) // as a log has it
	for _, tt := range []struct {
		name    string
		refused bool
		layer   func(key lying.Key) lying.Layer
	}{
		{"signed at no proven time", true, func(key lying.Key) lying.Layer { return lying.Signature(key, payload) }},
		{"logged within", false, func(key lying.Key) lying.Layer {
			return s.layer(signer{key, nil}, payload, until.Add(-time.Second), nil)
		}},
		{"logged after", true, func(key lying.Key) lying.Layer { return s.layer(signer{key, nil}, payload, until, nil) }},
		{"logged within, by another log", true, func(key lying.Key) lying.Layer {
			return elsewhere.layer(signer{key, nil}, payload, until.Add(-time.Second), nil)
		}},
		{"with what was logged within of another signature", true, func(key lying.Key) lying.Layer {
			before := s.layer(signer{key, nil}, payload, until.Add(-time.Second), nil)
			after := lying.Signature(key, payload) // ECDSA: another one
			before.Annotations[lying.SignatureAnnotation] = after.Annotations[lying.SignatureAnnotation]
			return before
		}},
		{"logged within for another key", true, func(key lying.Key) lying.Layer {
			l := s.layer(signer{key, nil}, payload, until.Add(-time.Second), nil)
			l.Annotations["dev.sigstore.cosign/bundle"] = s.layer(signer{lying.P256(), nil}, payload, until.Add(-time.Second), nil).Annotations["dev.sigstore.cosign/bundle"]
			return l
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(w *world, settings *settings) {
				w.clock.at = s.Now
				a := &settings.authorities[0]
				a.Root, a.Windows = s.trust(true, false), map[string]verifier.Window{a.Keys[0].ID(): {Until: until}}
			})
			w.up.Push("acme/web", image, "v1")
			pushLayers(w, image, tt.layer(w.key))
			if tt.refused {
				refusedEverywhere(t, w, web, "v1", image, "expired")
				return
			}
			served(t, w.get(manifestPath(web, "v1")), image)
		})
	}
}

// A policy that asks for an age takes no signature from before (a rollback), nor one
// that was logged to seem old.
func TestA5SignaturesOfAnotherAge(t *testing.T) {
	s := newSigstore(t)
	image := lying.Image("web")
	said := lying.Statement(image.Digest(), lying.PredicateSign, nil)
	for _, tt := range []struct {
		name             string
		maxAge, minAge   time.Duration
		ago, later       time.Duration
		reason, reasonIn string // now, and later
	}{
		{"a signature that grows too old", time.Minute, 0, 30 * time.Second, 40 * time.Second, "", "expired"},
		{"a signature that is too young yet", 0, time.Minute, 30 * time.Second, 40 * time.Second, "expired", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := accused(t, s, s.trust(true, false), func(settings *settings) {
				settings.policies[0].MaxAge, settings.policies[0].MinAge = tt.maxAge, tt.minAge
			})
			w.up.Push("acme/web", image, "v1")
			pushBundle(w, image, lying.Encode(s.bundle(s.issue(testIssuer, workflow), said, s.Now.Add(-tt.ago))))
			for _, reason := range []string{tt.reason, tt.reasonIn} {
				if reason == "" {
					served(t, w.get(manifestPath(web, "v1")), image)
				} else {
					refusedEverywhere(t, w, web, "v1", image, reason)
				}
				w.clock.pass(tt.later)
			}
		})
	}
}

// A trust root that is withdrawn takes its signatures along, from what is cached too;
// one that cannot be read leaves it open.
func TestA21A23ATrustRootThatIsGone(t *testing.T) {
	s, elsewhere := newSigstore(t), newSigstoreElsewhere(t)
	image := lying.Image("web")
	w := accused(t, s, s.trust(true, true))
	w.up.Push("acme/web", image, "v1")
	pushBundle(w, image, lying.Encode(s.bundle(s.issue(testIssuer, workflow), lying.Statement(image.Digest(), lying.PredicateSign, nil), s.Now)))
	pull(t, w, web, "v1", image)

	w.use("A23", func(settings *settings) {
		settings.authorities[1].Suspended, settings.authorities[1].Root = "trusted_root.json does not exist", nil
	})
	refused(t, w.get(manifestPath(web, "v1"), "If-None-Match", `"`+image.Digest().String()+`"`), http.StatusServiceUnavailable, "UNAVAILABLE", "inconclusive")
	w.use("A21", func(settings *settings) {
		settings.authorities[1] = elsewhere.keyless("ci", elsewhere.trust(true, true), workflow)
	})
	refusedEverywhere(t, w, web, "v1", image, "untrusted")
	w.use("back", func(settings *settings) { settings.authorities[1] = s.keyless("ci", s.trust(true, true), workflow) })
	served(t, w.get(manifestPath(web, "v1")), image)
}
