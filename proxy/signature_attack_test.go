package proxy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/verifier"
)

// refusedEverywhere asks for a manifest in all ways and wants one refusal.
func refusedEverywhere(t *testing.T, w *world, repository, tagName string, content lying.Content, reason string) {
	t.Helper()
	for _, reference := range []string{tagName, content.Digest().String()} {
		path := manifestPath(repository, reference)
		refused(t, w.get(path), http.StatusForbidden, "DENIED", reason)
		if a := w.head(path); a.status != http.StatusForbidden || len(a.body) != 0 || a.header.Get("Docker-Content-Digest") != "" {
			t.Errorf("HEAD %s: status %d, %v", path, a.status, a.header)
		}
		refused(t, w.get(path, "If-None-Match", `"`+content.Digest().String()+`"`), http.StatusForbidden, "DENIED", reason)
	}
	for _, blob := range content.Blobs {
		refused(t, w.get(blobPath(repository, lying.Digest(blob))), http.StatusNotFound, "BLOB_UNKNOWN", "")
	}
}

func TestSignatures(t *testing.T) {
	image := lying.Image("web")
	digest := image.Digest()
	tests := []struct {
		name   string
		setUp  func(w *world)
		reason string // empty: served
	}{
		{"A1 an unsigned image is refused", func(*world) {}, "unsigned"},
		{"A2 a signature by another key is refused", func(w *world) { w.up.Sign("acme/web", digest, w.foreign) }, "untrusted"},
		{"A3 a signature over another digest at our tag is refused", func(w *world) {
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, lying.Payload("", lying.Image("other").Digest(), nil))), tag(digest))
		}, "digest-mismatch"},
		{"A4 a signature that names another repository is refused", func(w *world) {
			w.up.SignAs("acme/web", digest, "ghcr.io/acme/other", nil, w.key)
		}, "identity-mismatch"},
		{"A4 a signature that names this repository is accepted", func(w *world) {
			w.up.SignAs("acme/web", digest, "ghcr.io/acme/web", nil, w.key)
		}, ""},
		{"A4 a signature that names it by its upstream's host is accepted", func(w *world) {
			w.up.SignAs("acme/web", digest, w.up.Host+"/acme/web", nil, w.key)
		}, ""},
		{"A6 a key in an annotation is not trusted", func(w *world) {
			layer := lying.Signature(w.foreign, lying.Payload("", digest, nil))
			layer.Annotations = map[string]string{
				lying.SignatureAnnotation:          layer.Annotations[lying.SignatureAnnotation],
				"dev.sigstore.cosign/certificate":  string(w.foreign.PublicPEM()),
				"dev.sigstore.cosign/chain":        string(w.foreign.PublicPEM()),
				"dev.sigstore.cosign/bundle":       `{"Payload":{"body":"` + string(w.foreign.PublicPEM()) + `"}}`,
				"dev.cosignproject.cosign/pub":     string(w.foreign.PublicPEM()),
				"dev.sigstore.cosign/timestamp":    "{}",
				"org.opencontainers.image.authors": "release",
			}
			w.up.Push("acme/web", lying.Signatures(layer), tag(digest))
		}, "untrusted"},
		{"A12 one good signature after many bad ones is found", func(w *world) {
			w.up.Push("acme/web", lying.Signatures(append(noise(w, image, 40), lying.Signature(w.key, lying.Payload("", digest, nil)))...), tag(digest))
		}, ""},
		{"A12 one good signature beyond the limit is a refusal that says so", func(w *world) {
			w.up.Push("acme/web", lying.Signatures(append(noise(w, image, 64), lying.Signature(w.key, lying.Payload("", digest, nil)))...), tag(digest))
		}, "too-many-signatures"},
		{"A13 another type of payload is refused", func(w *world) {
			payload := strings.Replace(string(lying.Payload("", digest, nil)), "cosign container image signature", "atomic container signature", 1)
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, []byte(payload))), tag(digest))
		}, "payload-invalid"},
		{"A13 a payload with a field too many is refused", func(w *world) {
			payload := strings.Replace(string(lying.Payload("", digest, nil)), `{"critical":{`, `{"critical":{"also":1,`, 1)
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, []byte(payload))), tag(digest))
		}, "payload-invalid"},
		{"A13 a payload without a digest is refused", func(w *world) {
			payload := strings.Replace(string(lying.Payload("", digest, nil)), digest.String(), "", 1)
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, []byte(payload))), tag(digest))
		}, "payload-invalid"},
		{"B10 a payload with a duplicate key is refused", func(w *world) {
			payload := strings.Replace(string(lying.Payload("", digest, nil)), `"docker-manifest-digest"`, `"docker-manifest-digest":"sha256:`+strings.Repeat("0", 64)+`","docker-manifest-digest"`, 1)
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, []byte(payload))), tag(digest))
		}, "payload-invalid"},
		{"B10 a payload with a key in Kelvin's letter is refused", func(w *world) {
			payload := strings.Replace(string(lying.Payload("", digest, nil)), `"docker-manifest-digest"`, `"doc\u212aer-manifest-digest"`, 1)
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, []byte(payload))), tag(digest))
		}, "payload-invalid"},
		{"A14 a payload of another media type is no signature", func(w *world) {
			layer := lying.Signature(w.key, lying.Payload("", digest, nil))
			layer.MediaType = "application/json"
			w.up.Push("acme/web", lying.Signatures(layer), tag(digest))
		}, "unsigned"},
		{"A15 a runnable image at the signature tag is no signature", func(w *world) {
			w.up.Push("acme/web", lying.Image("ride"), tag(digest))
		}, "unsigned"},
		{"v0.1's payload at v0.1's tag is accepted", func(w *world) {
			w.up.Push("acme/web", lying.Signatures(lying.Signature(w.key, lying.LegacyPayload("", digest, nil))), lying.LegacyTag(digest))
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			test.setUp(w)
			if test.reason != "" {
				refusedEverywhere(t, w, "ghcr.io/acme/web", "v1", image, test.reason)
				return
			}
			served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), image)
			served(t, w.get(manifestPath("ghcr.io/acme/web", digest.String())), image)
			for _, blob := range image.Blobs {
				servedBlob(t, w.get(blobPath("ghcr.io/acme/web", lying.Digest(blob))), blob)
			}
		})
	}
}

// noise are distinct signatures by a key that nobody trusts.
func noise(w *world, image lying.Content, n int) []lying.Layer {
	var layers []lying.Layer
	for i := range n {
		layers = append(layers, lying.Signature(w.foreign, lying.Payload("", image.Digest(), map[string]any{"n": i})))
	}
	return layers
}

func TestA5AnOlderSignedVersionUnderATag(t *testing.T) {
	w := newWorld(t)
	old, young := lying.Image("old"), lying.Image("young")
	w.up.PushSigned("acme/web", old, w.key)
	w.up.PushSigned("acme/web", young, w.key, "v1")
	served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), young)
	w.up.Tag("acme/web", "v1", old.Digest())
	served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), young) // within the tag's time
	w.clock.pass(31 * time.Second)
	// Not promised: what is validly signed is served, and the README says so.
	served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), old)
}

func TestA9KeysOfEveryKind(t *testing.T) {
	kinds := map[string]func() lying.Key{"P-256": lying.P256, "P-384": lying.P384, "P-521": lying.P521, "Ed25519": lying.Ed25519, "RSA": lying.RSA}
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world, s *settings) {
				w.key = make()
				s.authorities = []verifier.Authority{authority(t, "release", w.key)}
			})
			image := lying.Image("web")
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), image)
			for other, make := range kinds {
				confused := lying.Image("signed with " + other)
				w.up.PushSigned("acme/web", confused, make(), "v2")
				refused(t, w.get(manifestPath("ghcr.io/acme/web", confused.Digest().String())), http.StatusForbidden, "DENIED", "untrusted")
			}
		})
	}
}

func TestA11OneSignerTwiceIsNotTwo(t *testing.T) {
	image := lying.Image("web")
	two := func(w *world, s *settings) {
		s.authorities = append(s.authorities, authority(t, "ci", w.foreign))
		s.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"release", "ci"}}
	}
	sign := func(keys ...func(*world) lying.Key) func(w *world) {
		return func(w *world) {
			var layers []lying.Layer
			for i, key := range keys {
				layers = append(layers, lying.Signature(key(w), lying.Payload("", image.Digest(), map[string]any{"n": i})))
			}
			w.up.Push("acme/web", lying.Signatures(layers...), tag(image.Digest()))
		}
	}
	release := func(w *world) lying.Key { return w.key }
	ci := func(w *world) lying.Key { return w.foreign }
	for _, test := range []struct {
		name    string
		sign    func(*world)
		refused bool
	}{
		{"A11 copies of one signature", sign(release, release, release), true},
		{"one of each in either order", sign(ci, release), false},
		{"A12 one of each among copies", sign(ci, ci, ci, release), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, two)
			w.up.Push("acme/web", image, "v1")
			test.sign(w)
			if test.refused {
				refusedEverywhere(t, w, "ghcr.io/acme/web", "v1", image, "threshold")
				return
			}
			served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), image)
		})
	}
}

// A signature artifact passes only when its bytes prove what it is.
func TestA15NothingRidesTheExemption(t *testing.T) {
	signed := lying.Image("signed")
	evil := lying.Image("evil")
	tar := lying.Layer{MediaType: lying.SimpleSigning, Data: []byte("usr/bin/evil\x00\x00ustar" + strings.Repeat("\x00", 1024))}
	config := lying.Layer{MediaType: types.OCIConfigJSON, Data: evil.Blobs[0]}
	subject := signed.Descriptor()
	tests := []struct {
		name string
		ride lying.Content
		tag  string
	}{
		{"a runnable image at .sig", evil, tag(signed.Digest())},
		{"a runnable image at .att", evil, strings.TrimSuffix(tag(signed.Digest()), ".sig") + ".att"},
		{"a runnable image at .sbom", evil, strings.TrimSuffix(tag(signed.Digest()), ".sig") + ".sbom"},
		{"a runnable image at .cosign", evil, lying.LegacyTag(signed.Digest())},
		{"a runnable image at the fallback tag", evil, lying.FallbackTag(signed.Digest())},
		{"an index of an image at the fallback tag", lying.Index(evil), lying.FallbackTag(signed.Digest())},
		{"an index of an image at .sig", lying.IndexOf(evil.Descriptor()), tag(signed.Digest())},
		{"layers that are only called signatures", lying.ImageManifest{Config: config, Layers: []lying.Layer{tar}}.Build(), tag(signed.Digest())},
		{"an image whose subject is a signed image", lying.ImageManifest{
			Config: config, Subject: &subject, Layers: []lying.Layer{{MediaType: types.OCILayer, Data: []byte("evil layer")}},
		}.Build(), "ride"},
		{"an image in docker's types whose subject is a signed image", lying.ImageManifest{
			MediaType: types.DockerManifestSchema2, Config: lying.Layer{MediaType: "application/x-none", Data: evil.Blobs[0]},
			Subject: &subject, Layers: []lying.Layer{{MediaType: "application/x-tar", Data: []byte("evil layer")}},
		}.Build(), "ride"},
		{"called signatures, with the signed image as subject", lying.ImageManifest{Config: config, Subject: &subject, Layers: []lying.Layer{tar}}.Build(), "ride"},
		{"a real signature beside a tar", lying.ImageManifest{
			Config: config, Layers: []lying.Layer{lying.Signature(lying.P256(), lying.Payload("", signed.Digest(), nil)), tar},
		}.Build(), tag(signed.Digest())},
		{"a real signature beside an image's layer", lying.ImageManifest{
			Config: config, Layers: []lying.Layer{lying.Signature(lying.P256(), lying.Payload("", signed.Digest(), nil)), {MediaType: types.OCILayer, Data: []byte("evil layer")}},
		}.Build(), tag(signed.Digest())},
		{"a signature of another image at this one's tag", lying.Signatures(lying.Signature(lying.P256(), lying.Payload("", evil.Digest(), nil))), tag(signed.Digest())},
		{"no layers at all", lying.ImageManifest{Config: config}.Build(), tag(signed.Digest())},
	}
	for _, mediaType := range []string{"application/octet-stream", "application/json", "text/html", "", " APPLICATION/OCTET-STREAM", "application/vnd.docker.plugin.v1+json"} {
		tests = append(tests, struct {
			name string
			ride lying.Content
			tag  string
		}{"a subject, and a config of type " + mediaType + " that docker runs", lying.ImageManifest{
			Config: lying.Layer{MediaType: types.MediaType(mediaType), Data: evil.Blobs[0]}, Subject: &subject,
			Layers: []lying.Layer{{MediaType: "application/x-tar", Data: []byte("evil layer")}},
		}.Build(), "ride"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", signed, w.key, "v1")
			served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), signed)
			w.up.Push("acme/web", evil)
			w.up.Push("acme/web", test.ride, test.tag)
			w.clock.pass(time.Minute) // what was known of the tag is asked again
			paths := []string{
				manifestPath("ghcr.io/acme/web", test.tag),
				manifestPath("ghcr.io/acme/web", test.ride.Digest().String()),
				manifestPath("ghcr.io/acme/web", evil.Digest().String()),
			}
			for _, path := range slices.Concat(paths, paths) {
				if a := w.get(path); a.status != http.StatusForbidden {
					t.Errorf("%s: status %d\n%.200s", path, a.status, a.body)
				}
			}
			for _, blob := range slices.Concat(test.ride.Blobs, evil.Blobs) {
				if a := w.get(blobPath("ghcr.io/acme/web", lying.Digest(blob))); a.status != http.StatusNotFound {
					t.Errorf("blob: status %d", a.status)
				}
			}
		})
	}
}
