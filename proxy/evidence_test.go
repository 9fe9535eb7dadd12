package proxy_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
)

// statement is a DSSE envelope with an in-toto statement about digest.
func statement(digest v1.Hash) string {
	payload := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`, digest.Hex)
	return fmt.Sprintf(`{"payloadType":"application/vnd.in-toto+json","payload":%q,"signatures":[{"sig":"eA=="}]}`, base64.StdEncoding.EncodeToString([]byte(payload)))
}

// bundle is a sigstore bundle about a subject, as a referrer.
func bundle(subject v1.Descriptor, about v1.Hash) lying.Content {
	const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	data := fmt.Sprintf(`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":%s}`, mediaType, statement(about))
	return lying.Artifact(mediaType, subject, lying.Layer{MediaType: mediaType, Data: []byte(data)})
}

func attestation(digest v1.Hash) lying.Content {
	return lying.Signatures(lying.Layer{MediaType: "application/vnd.dsse.envelope.v1+json", Data: []byte(statement(digest))})
}

func sbom(subject v1.Descriptor) lying.Content {
	return lying.Artifact("application/spdx+json", subject, lying.Layer{MediaType: "application/spdx+json", Data: []byte(`{"spdxVersion":"SPDX-2.3"}`)})
}

// evidence are artifacts about an image and the tag that they lie under, if any.
func evidence(key lying.Key, image lying.Content) map[string]struct {
	content lying.Content
	tag     string
} {
	type artifact = struct {
		content lying.Content
		tag     string
	}
	digest := image.Digest()
	return map[string]artifact{
		"a signature at .sig":        {lying.Signatures(lying.Signature(key, lying.Payload("", digest, nil))), tag(digest)},
		"a signature at .cosign":     {lying.Signatures(lying.Signature(key, lying.LegacyPayload("", digest, nil))), lying.LegacyTag(digest)},
		"an attestation at .att":     {attestation(digest), strings.TrimSuffix(tag(digest), ".sig") + ".att"},
		"a bundle as referrer":       {bundle(image.Descriptor(), digest), ""},
		"a bundle v0.1":              {bundleOf(lying.Bundle01, key, image), ""},
		"a bundle v0.2":              {bundleOf(lying.Bundle02, key, image), ""},
		"a bundle v0.3":              {bundleOf(lying.Bundle03, key, image), ""},
		"a signature with a subject": {lying.SignatureArtifact(image.Descriptor(), lying.Signature(key, lying.Payload("", digest, nil))), ""},
		"an SBOM as referrer":        {sbom(image.Descriptor()), ""},
		"an SBOM with a tag":         {sbom(image.Descriptor()), strings.TrimSuffix(tag(digest), ".sig") + ".sbom"},
		"a signature as referrer": {lying.ImageManifest{
			Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}, Subject: new(image.Descriptor()),
			Layers: []lying.Layer{lying.Signature(key, lying.Payload("", digest, nil))},
		}.Build(), ""},
	}
}

func bundleOf(mediaType types.MediaType, key lying.Key, image lying.Content) lying.Content {
	bundle := lying.Encode(lying.BundleFields(mediaType, key, lying.Statement(image.Digest(), lying.PredicateSign, nil)))
	return lying.BundleArtifact(image.Descriptor(), mediaType, bundle, lying.PredicateSign)
}

func TestEvidencePassesWithItsSubject(t *testing.T) {
	image := lying.Image("web")
	for _, sign := range []bool{true, false} {
		for name, artifact := range evidence(lying.P256(), image) {
			t.Run(fmt.Sprintf("%s, subject signed: %v", name, sign), func(t *testing.T) {
				w := newWorld(t, onDisk)
				w.up.Push("acme/web", image, "v1")
				if sign {
					layer := lying.Signature(w.key, lying.Payload("", image.Digest(), nil))
					if name == "a signature at .sig" { // the artifact takes the place of what signs
						artifact.content = lying.Signatures(layer)
					} else {
						w.up.Push("acme/web", lying.Signatures(layer), tag(image.Digest()))
					}
				}
				tags := []string{}
				if artifact.tag != "" {
					tags = append(tags, artifact.tag)
				}
				w.up.Push("acme/web", artifact.content, tags...)
				references := append(tags, artifact.content.Digest().String())
				for range 2 {
					for _, reference := range references {
						a := w.get(manifestPath(web, reference))
						if sign {
							served(t, a, artifact.content)
						} else if a.status != 403 || fault(t, a).Errors[0].Code != "DENIED" {
							t.Errorf("%s: status %d\n%s", reference, a.status, a.body)
						}
					}
					for _, blob := range artifact.content.Blobs {
						a := w.get(blobPath(web, lying.Digest(blob)))
						if sign {
							servedBlob(t, a, blob)
						} else {
							refused(t, a, 404, "BLOB_UNKNOWN", "")
						}
					}
					w.restart()
				}
				if !sign {
					return
				}
				// the subject's fall is theirs
				w.use("revoked", func(s *settings) { s.revoked = []v1.Hash{image.Digest()} })
				for _, reference := range references {
					if a := w.get(manifestPath(web, reference), "If-None-Match", `"`+artifact.content.Digest().String()+`"`); a.status != 403 {
						t.Errorf("%s: status %d", reference, a.status)
					}
				}
				for _, blob := range artifact.content.Blobs {
					refused(t, w.get(blobPath(web, lying.Digest(blob))), 404, "BLOB_UNKNOWN", "")
				}
			})
		}
	}
}

func TestEvidenceOfASubjectThatIsNotThere(t *testing.T) {
	image := lying.Image("web")
	for name, artifact := range evidence(lying.P256(), image) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", artifact.content, "x")
			if a := w.get(byDigest(web, artifact.content)); a.status != 403 {
				t.Errorf("status %d", a.status)
			}
		})
	}
}

// Referrers whose layers name another subject than their field does are what
// they are not.
func TestEvidenceAboutSomethingElse(t *testing.T) {
	image, other := lying.Image("web"), lying.Image("other")
	w := newWorld(t)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image) // it stays allowed for a day
	for name, content := range map[string]lying.Content{
		"a bundle": bundle(image.Descriptor(), other.Digest()),
		"a signature": lying.ImageManifest{
			Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}, Subject: new(image.Descriptor()),
			Layers: []lying.Layer{lying.Signature(w.key, lying.Payload("", other.Digest(), nil))},
		}.Build(),
		"an SBOM of another image, at this one's tag": sbom(other.Descriptor()),
		"more signatures than are read":               lying.Signatures(noise(w, image, 65)...),
		"an attestation whose config is no JSON": lying.ImageManifest{
			Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("tar")},
			Layers: []lying.Layer{{MediaType: "application/vnd.dsse.envelope.v1+json", Data: []byte(statement(image.Digest()))}},
		}.Build(),
		"a subject that is itself": lying.ImageManifest{
			Config:  lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")},
			Subject: &v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: lying.Digest([]byte("nothing")), Size: 7},
		}.Build(),
	} {
		t.Run(name, func(t *testing.T) {
			references := []string{content.Digest().String(), tag(image.Digest())}
			if strings.HasPrefix(name, "an SBOM") {
				w.up.PushSigned("acme/web", other, w.key)
				references = references[1:] // by digest it is what it is
			}
			w.up.Push("acme/web", content, tag(image.Digest()))
			w.clock.pass(time.Minute)
			for _, reference := range references {
				if a := w.get(manifestPath(web, reference)); a.status != 403 {
					t.Errorf("%s: status %d", reference, a.status)
				}
			}
		})
	}
}

func TestEvidenceThatCannotBeReadIsNoDecision(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	att := attestation(image.Digest())
	w.up.Push("acme/web", att)
	lie := w.up.Lie(lying.Blob("acme/web", lying.Digest(att.Blobs[1])), lying.Status(500))
	refused(t, w.get(byDigest(web, att)), 503, "UNAVAILABLE", "inconclusive")
	lie.Stop()
	served(t, w.get(byDigest(web, att)), att)
}

func TestASignatureOfASignature(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	signature := w.up.Sign("acme/web", image.Digest(), w.key)
	second := w.up.Sign("acme/web", signature.Digest(), w.foreign)
	served(t, w.get(manifestPath(web, tag(image.Digest()))), signature)
	// its subject is evidence, not an allowed image
	refused(t, w.get(manifestPath(web, tag(signature.Digest()))), 403, "DENIED", "untrusted")
	w.up.Sign("acme/web", signature.Digest(), w.key)
	w.clock.pass(time.Minute)
	if a := w.get(manifestPath(web, tag(signature.Digest()))); a.status != 200 || string(a.body) == string(second.Body) {
		t.Errorf("a signature by release over a signature: status %d", a.status)
	}
}

func TestEvidenceMakesNothingServable(t *testing.T) {
	image, evil := lying.Image("web"), lying.Image("evil")
	t.Run("what a fallback tag lists", func(t *testing.T) {
		w := newWorld(t)
		w.up.WithoutReferrers()
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.Push("acme/web", evil)
		w.up.PutBlob("acme/web", evil.Digest().String(), evil.Body)
		good := sbom(image.Descriptor())
		w.up.Push("acme/web", good)
		listing := lying.IndexOf(evil.Descriptor(), good.Descriptor())
		w.up.Push("acme/web", listing, lying.FallbackTag(image.Digest()))
		for range 2 {
			served(t, w.get(manifestPath(web, lying.FallbackTag(image.Digest()))), listing)
			served(t, w.get(byDigest(web, listing)), listing)
			refused(t, w.get(byDigest(web, evil)), 403, "DENIED", "unsigned")
			for _, blob := range append(evil.Blobs, evil.Body) {
				refused(t, w.get(blobPath(web, lying.Digest(blob))), 404, "BLOB_UNKNOWN", "")
			}
			served(t, w.get(byDigest(web, good)), good)
		}
		for _, r := range w.records.list() {
			if r.Digest == listing.Digest().String() && r.Subject == "" {
				t.Errorf("the list was thought of as what may allow something: %+v", r)
			}
		}
		if a := w.get("/v2/" + web + "/referrers/" + image.Digest().String()); a.status != 200 || !strings.Contains(string(a.body), evil.Digest().String()) {
			t.Errorf("the list is a list: %d %s", a.status, a.body)
		}
	})
	t.Run("a fallback tag of an image that is refused", func(t *testing.T) {
		w := newWorld(t)
		w.up.WithoutReferrers()
		w.up.Push("acme/web", image, "v1")
		w.up.Push("acme/web", lying.IndexOf(sbom(image.Descriptor()).Descriptor()), lying.FallbackTag(image.Digest()))
		refused(t, w.get(manifestPath(web, lying.FallbackTag(image.Digest()))), 403, "DENIED", "unsigned")
	})
	t.Run("a list of referrers by digest after its tag has moved on", func(t *testing.T) {
		w := newWorld(t)
		w.up.WithoutReferrers()
		w.up.PushSigned("acme/web", image, w.key, "v1")
		listing := lying.IndexOf(sbom(image.Descriptor()).Descriptor())
		w.up.Push("acme/web", listing, lying.FallbackTag(image.Digest()))
		served(t, w.get(manifestPath(web, lying.FallbackTag(image.Digest()))), listing)
		w.up.Push("acme/web", lying.IndexOf(), lying.FallbackTag(image.Digest()))
		w.clock.pass(time.Minute)
		refused(t, w.get(byDigest(web, listing)), 403, "DENIED", "unsigned")
	})
	t.Run("the blobs of an image that a signed image has as subject", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", evil)
		subject := evil.Descriptor()
		signed := lying.ImageManifest{Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}, Subject: &subject}.Build()
		w.up.PushSigned("acme/web", signed, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), signed)
		refused(t, w.get(byDigest(web, evil)), 403, "DENIED", "unsigned")
		refused(t, w.get(blobPath(web, lying.Digest(evil.Blobs[1]))), 404, "BLOB_UNKNOWN", "")
	})
}

// A subject does not let an artifact pass where a client asks for the thing
// itself, under a tag of its own, or where the artifact is one to be installed.
func TestAnArtifactThatClaimsASubject(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	subject := image.Descriptor()
	plain := sbom(subject)
	w.up.Push("acme/web", plain, "v2")
	refused(t, w.get(manifestPath(web, "v2")), 403, "DENIED", "unsigned")
	served(t, w.get(byDigest(web, plain)), plain)
	w.up.Sign("acme/web", plain.Digest(), w.key)
	w.clock.pass(time.Minute)
	served(t, w.get(manifestPath(web, "v2")), plain) // as what it is, and signed

	for _, test := range []struct{ config, layer string }{
		{"application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"},
		{"application/vnd.cncf.flux.config.v1+json", "application/vnd.cncf.flux.content.v1.tar+gzip"},
		{"application/vnd.example+json", "Application/vnd.cncf.helm.chart.content.v1.tar+gzip; x=y"},
	} {
		chart := lying.ImageManifest{
			Config: lying.Layer{MediaType: types.MediaType(test.config), Data: []byte("{}")}, Subject: &subject,
			Layers: []lying.Layer{{MediaType: types.MediaType(test.layer), Data: []byte("chart")}},
		}.Build()
		w.up.Push("acme/web", chart, "v3")
		w.clock.pass(time.Minute)
		for _, reference := range []string{"v3", chart.Digest().String()} {
			refused(t, w.get(manifestPath(web, reference)), 403, "DENIED", "unsigned")
		}
		refused(t, w.get(blobPath(web, lying.Digest([]byte("chart")))), 404, "BLOB_UNKNOWN", "")
	}
}

// In a repository that is allowed unverified, or denied, evidence is nothing
// special, and none is read to decide about it.
func TestEvidenceWhereNoneIsNeeded(t *testing.T) {
	w := newWorld(t, func(w *world, s *settings) { s.ceiling = policy.Enforce })
	image := lying.Image("web")
	for repository, status := range map[string]int{"open/web": 200, "old/web": 403, "none/web": 403} {
		w.up.PushSigned(repository, image, w.key, "v1")
		w.up.Forget()
		if a := w.get(manifestPath("ghcr.io/"+repository, tag(image.Digest()))); a.status != status {
			t.Errorf("%s: status %d", repository, a.status)
		}
		asked(t, w.up, "GET /v2/"+repository+"/manifests/"+tag(image.Digest()))
	}
}
