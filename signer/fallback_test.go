package signer

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What hands out the fallback tag to an image keeps the image: also one for several
// platforms, which is an index as a list of referrers is.
func TestAnImageUnderTheFallbackTagIsNotDestroyed(t *testing.T) {
	image := imageManifest("v1")
	index := indexManifest(t, types.OCIManifestSchema1, digestOf(image))
	platforms, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: digestOf(image), Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		subject, held []byte
	}{
		{"the image itself", image, image},
		{"the image itself, for several platforms", platforms, platforms},
		{"another, for several platforms", image, platforms},
		{"the image itself, an index without platforms", index, index},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newTestRegistry()
				reg.image(t, "v1")
				put := func(reference string, manifest []byte) v1.Hash {
					mediaType := types.OCIImageIndex
					if digestOf(manifest) == digestOf(image) {
						mediaType = types.OCIManifestSchema1
					}
					return reg.put(t, reference, mediaType, manifest)
				}
				subject := put("signed", test.subject)
				held := put(FallbackTag(subject), test.held)
				s, err := New(Config{Registry: reg, Key: mustKey(t)})
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Sign(t.Context(), request(subject))
				if err == nil || !strings.Contains(err.Error(), "an image, which cosign copy tags so") || !strings.Contains(err.Error(), "the format tag can") {
					t.Errorf("error %v", err)
				}
				listed := json.RawMessage(`{"digest":"` + digestOf([]byte("a referrer")).String() + `"}`)
				_, err = Add(t.Context(), Config{Registry: reg}, Addition{
					Repository: testRepository, Tag: FallbackTag(subject), List: true, Descriptors: []json.RawMessage{listed},
				})
				if err == nil {
					t.Error("a referrer is listed in it")
				}
				data, err := reg.Manifest(t.Context(), testRepository, FallbackTag(subject))
				if err != nil || digestOf(data) != held {
					t.Errorf("the tag names %s, %v", data, err)
				}
			})
		})
	}
}

// A list of referrers may tell a referrer's platform: oras copies attestations of
// BuildKit's so. It is added to, and what it says stays.
func TestAListThatTellsAPlatformIsAddedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		attestation := v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Digest: reg.image(t, "attestation"), Size: 1,
			ArtifactType: "application/vnd.docker.attestation.manifest.v1+json", Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
		}
		list, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{attestation}})
		if err != nil {
			t.Fatal(err)
		}
		reg.put(t, FallbackTag(subject), types.OCIImageIndex, list)
		if _, err := mustSigner(t, Config{Registry: reg, Formats: []Format{FormatBundle}}).Sign(t.Context(), request(subject)); err != nil {
			t.Fatal(err)
		}
		data, err := reg.Manifest(t.Context(), testRepository, FallbackTag(subject))
		if err != nil {
			t.Fatal(err)
		}
		listed := ReferrersIndex(data)
		if len(listed) != 2 || listed[0].Digest != attestation.Digest || listed[0].Platform == nil {
			t.Errorf("listed are %+v", listed)
		}
	})
}
