package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/verifier"
)

func TestAnImageSignedByABundleIsServed(t *testing.T) {
	image := lying.Image("web")
	for _, tt := range []struct {
		name string
		put  func(w *world)
	}{
		{"that the referrers API lists", func(w *world) {}},
		{"on the last of several pages", func(w *world) {
			w.up.PageSize(1)
			for n := range 5 {
				w.up.PushReferrer("acme/web", image.Digest(), lying.Artifact(fmt.Sprintf("application/x-%d", n), image.Descriptor()))
			}
		}},
		{"that the fallback tag lists", func(w *world) { w.up.WithoutReferrers() }},
		{"whose list is called JSON with a charset", func(w *world) {
			w.up.Lie(lying.Referrers("", v1.Hash{}), lying.ContentType("application/vnd.oci.image.index.v1+json; charset=utf-8"))
		}},
		{"where the API is answered with 405", func(w *world) { w.up.WithoutReferrers(); w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Status(405)) }},
		{"where the API is answered with 400", func(w *world) { w.up.WithoutReferrers(); w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Status(400)) }},
		{"where the API is answered with 406", func(w *world) { w.up.WithoutReferrers(); w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Status(406)) }},
		{"while the API fails", func(w *world) { w.up.WithoutReferrers(); w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Status(500)) }},
		{"while the signature tags fail", func(w *world) {
			w.up.Lie(lying.Manifest("", tag(image.Digest())), lying.Status(500))
			w.up.Lie(lying.Manifest("", lying.LegacyTag(image.Digest())), lying.Reset())
		}},
		{"beside an attestation and a bundle by a stranger", func(w *world) {
			w.up.Attest("acme/web", image, w.key)
			w.up.SignBundle("acme/web", image, w.foreign)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			tt.put(w)
			artifact := w.up.SignBundle("acme/web", image, w.key)
			pull(t, w, web, "v1", image)
			served(t, w.get(byDigest(web, artifact)), artifact)
			servedBlob(t, w.get(blobPath(web, lying.Digest(artifact.Blobs[1]))), artifact.Blobs[1])
		})
	}
	t.Run("which takes 6 requests, three of them at once", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", image, "v1")
		artifact := w.up.SignBundle("acme/web", image, w.key)
		signatures := lying.Manifest("", tag(image.Digest()))
		w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Before(func(ctx context.Context) {
			if _, err := w.up.Await(ctx, signatures, 1); err != nil { // else nobody waits for it
				t.Error(err)
			}
		}))
		served(t, w.get(manifestPath(web, "v1")), image)
		const path = "GET /v2/acme/web/"
		asked(t, w.up, path+"manifests/v1", path+"manifests/"+tag(image.Digest()), path+"referrers/"+image.Digest().String(),
			path+"manifests/"+artifact.Digest().String(), path+"blobs/"+lying.Digest(artifact.Blobs[1]).String())
	})
}

// evidenceIn returns the evidence in the last record.
func evidenceIn(t *testing.T, w *world) []map[string]any {
	t.Helper()
	records := w.records.list()
	var evidence []map[string]any
	if err := json.Unmarshal(records[len(records)-1].Evidence, &evidence); err != nil {
		t.Fatal(err)
	}
	return evidence
}

func TestWhatIsNotSignedByABundleIsRefused(t *testing.T) {
	image, other := lying.Image("web"), lying.Image("other")
	fields := func(w *world) map[string]any {
		return lying.BundleFields(lying.Bundle03, w.key, lying.Statement(image.Digest(), lying.PredicateSign, nil))
	}
	push := func(w *world, data []byte) {
		artifact := lying.BundleArtifact(image.Descriptor(), lying.Bundle03, data, lying.PredicateSign)
		w.up.PushReferrer("acme/web", image.Digest(), artifact)
	}
	for _, tt := range []struct {
		name, reason, form string
		put                func(w *world)
	}{
		{"trap 1: attested only", "attested-not-signed", "attestation", func(w *world) { w.up.Attest("acme/web", image, w.key) }},
		{"attested, and signed by a stranger", "attested-not-signed", "", func(w *world) {
			w.up.Attest("acme/web", image, w.key)
			w.up.SignBundle("acme/web", image, w.foreign)
		}},
		{"attested by a stranger", "untrusted", "bundle-dsse", func(w *world) { w.up.Attest("acme/web", image, w.foreign) }},
		{"signed by a stranger", "untrusted", "bundle-dsse", func(w *world) { w.up.SignBundle("acme/web", image, w.foreign) }},
		{"A6: the attacker's key in every slot", "untrusted", "bundle-dsse", func(w *world) {
			f := lying.BundleFields(lying.Bundle03, w.foreign, lying.Statement(image.Digest(), lying.PredicateSign, nil))
			f["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": string(w.foreign.PublicPEM()), "rawBytes": w.foreign.PublicPEM()}}
			push(w, lying.Encode(f))
		}},
		{"A6: the attacker's certificate", "untrusted", "bundle-dsse", func(w *world) {
			f := fields(w)
			f["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": w.foreign.PublicPEM()}}
			push(w, lying.Encode(f))
		}},
		{"A13: another predicate", "attested-not-signed", "attestation", func(w *world) {
			w.up.Bundle("acme/web", image, w.key, "https://sigstore.dev/cosign/sign/v2")
		}},
		{"A14: a layer of another type", "unsigned", "", func(w *world) {
			w.up.PushReferrer("acme/web", image.Digest(), lying.BundleArtifact(image.Descriptor(), "application/octet-stream", lying.Encode(fields(w)), ""))
		}},
		{"A16: about another manifest", "digest-mismatch", "bundle-dsse", func(w *world) {
			push(w, lying.Encode(lying.BundleFields(lying.Bundle03, w.key, lying.Statement(other.Digest(), lying.PredicateSign, nil))))
		}},
		{"with another subject in the artifact", "payload-invalid", "bundle", func(w *world) {
			w.up.WithoutReferrers()
			artifact := lying.BundleArtifact(other.Descriptor(), lying.Bundle03, lying.Encode(fields(w)), "")
			w.up.Push("acme/web", artifact)
			w.up.Push("acme/web", lying.IndexOf(artifact.Descriptor()), lying.FallbackTag(image.Digest()))
		}},
		{"B10: trailing data", "payload-invalid", "bundle", func(w *world) { push(w, append(lying.Encode(fields(w)), "{}"...)) }},
		{"B10: a name twice", "payload-invalid", "bundle", func(w *world) {
			push(w, []byte(strings.Replace(string(lying.Encode(fields(w))), `"payload"`, `"PAYLOAD":"","payload"`, 1)))
		}},
		{"B17: gzip in the blob", "payload-invalid", "bundle", func(w *world) { push(w, []byte("\x1f\x8b\x08\x00bomb")) }},
		{"trap 14: an image at the fallback tag", "unsigned", "", func(w *world) {
			w.up.WithoutReferrers()
			w.up.Push("acme/web", other, lying.FallbackTag(image.Digest()))
		}},
		{"the image itself at the fallback tag", "unsigned", "", func(w *world) { w.up.Push("acme/web", image, lying.FallbackTag(image.Digest())) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			tt.put(w)
			refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", tt.reason)
			refused(t, w.get(byDigest(web, image)), 403, "DENIED", tt.reason)
			if tt.form == "" {
				return
			}
			found := evidenceIn(t, w)
			if len(found) != 1 || found[0]["form"] != tt.form || !strings.HasPrefix(found[0]["source"].(string), "referrer sha256:") {
				t.Errorf("evidence %v", found)
			}
		})
	}
	t.Run("A11: one key in two forms is one of two", func(t *testing.T) {
		w := newWorld(t, func(w *world, s *settings) {
			s.authorities = append(s.authorities, authority(t, "ci", lying.P256()))
			s.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"release", "ci"}}
		})
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.SignBundle("acme/web", image, w.key)
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "threshold")
	})
	t.Run("two keys in two forms are two", func(t *testing.T) {
		ci := lying.P256()
		w := newWorld(t, func(w *world, s *settings) {
			s.authorities = append(s.authorities, authority(t, "ci", ci))
			s.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"release", "ci"}}
		})
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.SignBundle("acme/web", image, ci)
		served(t, w.get(manifestPath(web, "v1")), image)
	})
}

// What cannot be read is no "unsigned".
func TestReferrersThatCannotBeReadLeaveADecisionOpen(t *testing.T) {
	image := lying.Image("web")
	listed := lying.Referrers("", v1.Hash{})
	for _, tt := range []struct {
		name string
		lie  func(t *testing.T, w *world, artifact lying.Content)
	}{
		{"500", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Status(500)) }},
		{"401", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Status(401)) }},
		{"403", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Status(403)) }},
		{"429", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Status(429)) }},
		{"a reset", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Reset()) }},
		{"no list", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.Body([]byte("hello"))) }},
		{"HTML", func(_ *testing.T, w *world, _ lying.Content) { w.up.Lie(listed, lying.ContentType("text/html")) }},
		{"the second page missing", func(_ *testing.T, w *world, _ lying.Content) {
			w.up.PageSize(1)
			w.up.Attest("acme/web", image, w.foreign)
			w.up.Lie(listed.Nth(2), lying.Status(404))
			w.up.Lie(listed.From(3), lying.Status(500))
		}},
		{"a redirect to elsewhere", func(_ *testing.T, w *world, _ lying.Content) {
			w.up.Lie(listed, lying.Redirect(303, "http://169.254.169.254/"))
		}},
		{"the fallback tag", func(_ *testing.T, w *world, _ lying.Content) {
			w.up.Lie(listed, lying.NotFound())
			w.up.Lie(lying.Manifest("", lying.FallbackTag(image.Digest())), lying.Status(500))
		}},
		{"the artifact", func(_ *testing.T, w *world, artifact lying.Content) {
			w.up.Lie(lying.Manifest("", artifact.Digest().String()), lying.Status(500))
		}},
		{"other bytes for the artifact", func(_ *testing.T, w *world, artifact lying.Content) {
			w.up.Lie(lying.Manifest("", artifact.Digest().String()), lying.Body(image.Body))
		}},
		{"the bundle", func(_ *testing.T, w *world, artifact lying.Content) {
			w.up.Lie(lying.Blob("", lying.Digest(artifact.Blobs[1])), lying.Status(500))
		}},
		{"other bytes for the bundle", func(_ *testing.T, w *world, artifact lying.Content) {
			w.up.Lie(lying.Blob("", lying.Digest(artifact.Blobs[1])), lying.Body([]byte("x")))
		}},
		{"B17: an encoded bundle", func(_ *testing.T, w *world, artifact lying.Content) {
			w.up.Lie(lying.Blob("", lying.Digest(artifact.Blobs[1])), lying.Gzip())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // the client tries again, and waits between
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			artifact := w.up.SignBundle("acme/web", image, w.key)
			tt.lie(t, w, artifact)
			refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
			w.up.Sign("acme/web", image.Digest(), w.key) // trap 2: what can be read suffices
			w.clock.pass(time.Minute)
			served(t, w.get(manifestPath(web, "v1")), image)
		})
	}
}

func TestTenThousandReferrersOfAnImage(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t)
	w.up.Push("acme/web", image, "v1")
	many := make([]v1.Descriptor, 10_000)
	for i := range many {
		many[i] = v1.Descriptor{MediaType: types.OCIManifestSchema1, ArtifactType: string(lying.Bundle03), Size: 9, Digest: lying.Digest(fmt.Append(nil, i))}
	}
	list := lying.IndexOf(many...)
	w.up.Push("acme/web", list, lying.FallbackTag(image.Digest()))
	w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Body(list.Body))
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "too-many-signatures")
	if n := len(w.up.Log()); n > verifier.DecisionRequests {
		t.Errorf("%d requests", n)
	}
	w.up.Sign("acme/web", image.Digest(), w.key)
	w.clock.pass(time.Minute)
	served(t, w.get(manifestPath(web, "v1")), image)
}

func TestABundleClaimsANameWhenItHasOne(t *testing.T) {
	image := lying.Image("web")
	named := func(name string) map[string]any { return map[string]any{"docker-reference": name, "env": "prod"} }
	for _, tt := range []struct {
		name        string
		signedAs    policy.SignedAs
		annotations map[string]any
		want        map[string]string // annotations
		reason      string
	}{
		{"no name, where one may be", policy.IfPresent, nil, nil, ""},
		{"no name, where one must be", policy.Repository, nil, nil, "identity-mismatch"},
		{"its name", policy.Repository, named("ghcr.io/acme/web"), nil, ""},
		{"another name", policy.IfPresent, named("ghcr.io/acme/other"), nil, "identity-mismatch"},
		{"another name, which is ignored", policy.Ignore, named("ghcr.io/acme/other"), nil, ""},
		{"annotations", policy.IfPresent, map[string]any{"env": "prod"}, map[string]string{"env": "prod"}, ""},
		{"other annotations", policy.IfPresent, map[string]any{"env": "test"}, map[string]string{"env": "prod"}, "annotation-mismatch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(_ *world, s *settings) {
				s.policies[0].SignedAs, s.policies[0].Annotations = tt.signedAs, tt.want
			})
			w.up.Push("acme/web", image, "v1")
			bundle := lying.Encode(lying.BundleFields(lying.Bundle03, w.key, lying.Statement(image.Digest(), lying.PredicateSign, tt.annotations)))
			w.up.PushReferrer("acme/web", image.Digest(), lying.BundleArtifact(image.Descriptor(), lying.Bundle03, bundle, ""))
			if tt.reason == "" {
				served(t, w.get(manifestPath(web, "v1")), image)
			} else {
				refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", tt.reason)
			}
		})
	}
}

// While the upstream cannot be asked, the referrers that it last listed serve, and a
// denial that they do not turn stays open.
func TestReferrersFromBefore(t *testing.T) {
	image := lying.Image("web")
	for _, noAPI := range []bool{false, true} {
		t.Run(fmt.Sprintf("without the API: %v", noAPI), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, onDisk)
			if noAPI {
				w.up.WithoutReferrers()
			}
			w.up.Push("acme/web", image, "v1")
			w.up.SignBundle("acme/web", image, w.key)
			pull(t, w, web, "v1", image)
			w.restart()
			w.up.Lie(lying.Any(), lying.Status(http.StatusServiceUnavailable))
			w.clock.pass(time.Minute)
			pull(t, w, web, "v1", image)
			w.use("another key", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
			refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
		})
	}
	t.Run("are no manifest that can be pulled", func(t *testing.T) {
		w := newWorld(t, onDisk)
		w.up.Push("acme/web", image, "v1")
		artifact := w.up.SignBundle("acme/web", image, w.key)
		signatures := lying.Manifest("", tag(image.Digest()))
		w.up.Lie(lying.Referrers("", v1.Hash{}), lying.Before(func(ctx context.Context) {
			if _, err := w.up.Await(ctx, signatures, 1); err != nil { // else nobody waits for it
				t.Error(err)
			}
		}))
		served(t, w.get(manifestPath(web, "v1")), image)
		listed := artifact.Descriptor()
		listed.ArtifactType = string(lying.Bundle03)
		listed.Annotations = map[string]string{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": lying.PredicateSign}
		list, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{listed}})
		if err != nil {
			t.Fatal(err)
		}
		w.restart() // what was stored beside the answer is
		if _, _, err := w.store.Open(context.Background(), lying.Digest(list)); err != nil {
			t.Fatalf("the list is not where this test looks for it: %v", err)
		}
		w.use("open", func(s *settings) {
			s.policies[0].AllowUnverified, s.policies[0].Require = true, policy.Require{}
		})
		refused(t, w.get("/v2/"+web+"/manifests/"+lying.Digest(list).String()), 404, "MANIFEST_UNKNOWN", "")
	})
	t.Run("are forgotten when there are none any more", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, onDisk)
		w.up.Push("acme/web", image, "v1")
		w.up.SignBundle("acme/web", image, w.key)
		served(t, w.get(manifestPath(web, "v1")), image)
		w.restart() // what was stored beside the answer is
		lie := w.up.Lie(lying.Referrers("", v1.Hash{}), lying.NotFound())
		w.use("two", func(*settings) {})
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		lie.Stop()
		w.up.Lie(lying.Any(), lying.Status(http.StatusServiceUnavailable))
		w.use("three", func(*settings) {})
		w.clock.pass(time.Minute)
		refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
	})
}

func TestManyWhoAskShareOneListOfReferrers(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t)
	w.up.Push("acme/web", image, "v1")
	w.up.SignBundle("acme/web", image, w.key)
	held := make(chan struct{})
	listed := lying.Referrers("acme/web", image.Digest())
	w.up.Lie(listed, lying.Hang(held))
	together(t, 20, func() { served(t, w.get(manifestPath(web, "v1")), image) }, func() {
		if _, err := w.up.Await(t.Context(), listed, 1); err != nil {
			t.Error(err)
		}
		close(held)
	})
	if got := w.up.Log(listed); len(got) != 1 || slices.ContainsFunc(w.up.Log(), func(s string) bool { return strings.HasSuffix(s, lying.FallbackTag(image.Digest())) }) {
		t.Errorf("requests %v", w.up.Log())
	}
}
