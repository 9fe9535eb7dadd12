package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// signatureBy is a signature artifact as cosign writes it.
func signatureBy(key lying.Key, name string, digest v1.Hash) lying.Content {
	return lying.Signatures(lying.Signature(key, lying.Payload(name, digest, nil)))
}

// A24: signers at once, each of which reads, adds and writes as cosign does, lose none
// of one another's signatures.
func TestA24FiftySignersThroughOneProxyLoseNothing(t *testing.T) {
	t.Parallel()
	const signers = 50
	p := newPushing(t, lying.Start(t))
	image := lying.Image("signed by fifty")
	digest := p.up.Push("open/web", image, "v1")
	var group sync.WaitGroup
	for range signers {
		group.Go(func() {
			// each has read that there is none, and writes its own
			p.created(p.image("local/open/web", signatureBy(lying.P256(), "local/open/web", digest), lying.SignatureTag(digest)))
		})
	}
	group.Wait()
	if n := p.layersOf("open/web", lying.SignatureTag(digest)); n != signers {
		t.Errorf("%d signatures, want %d", n, signers)
	}
	body, _, _ := p.up.Manifest("open/web", lying.SignatureTag(digest))
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	config, ok := p.up.Blob("open/web", m.Config.Digest)
	var file v1.ConfigFile
	if !ok || json.Unmarshal(config, &file) != nil || len(file.RootFS.DiffIDs) != signers {
		t.Errorf("the config that goes with them is not there or does not list them: %s", config)
	}
}

// A18: what is evidence by its bytes is put under its own tag and by digest, and is
// not signed itself; what is only shaped like it is an image like any.
func TestA18EvidenceIsNotSigned(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("image")
	p.created(p.image("local/acme/web", image, "v1"))
	key := lying.P256()
	evidence := signatureBy(key, "local/acme/web", image.Digest())
	p.created(p.image("local/acme/web", evidence, evidence.Digest().String()))
	p.created(p.image("local/acme/web", evidence, lying.SignatureTag(image.Digest())))
	for _, content := range []lying.Content{evidence} {
		if n := p.layersOf("acme/web", lying.SignatureTag(content.Digest())); n != 0 {
			t.Errorf("the signature is signed %d times", n)
		}
	}
	if n := p.layersOf("acme/web", lying.SignatureTag(image.Digest())); n != 2 {
		t.Errorf("%d signatures of the image", n)
	}

	// The same under a tag of its own, and an image under a tag for signatures.
	p.created(p.image("local/acme/web", evidence, "signature"))
	if n := len(p.signatures("acme/web", evidence.Digest())); n != 1 {
		t.Errorf("under a tag of its own it has %d signatures", n)
	}
	shaped := signatureBy(key, "local/acme/web", lying.Image("another").Digest())
	for name, content := range map[string]lying.Content{"an image": lying.Image("smuggled"), "a signature of another": shaped} {
		response, text := p.image("local/acme/web", content, lying.SignatureTag(image.Digest()))
		if response.StatusCode != http.StatusBadRequest || !strings.Contains(text, "holds signatures") {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
	}
	if n := p.layersOf("acme/web", lying.SignatureTag(image.Digest())); n != 2 {
		t.Errorf("%d signatures of the image afterwards", n)
	}
	// An image under the fallback tag's form is signed before, too.
	copied := lying.Image("copied by digest")
	p.created(p.image("local/acme/web", copied, lying.FallbackTag(copied.Digest())))
	if n := len(p.signatures("acme/web", copied.Digest())); n != 1 {
		t.Errorf("the copy has %d signatures", n)
	}
}

// A17: a push into one repository vouches for nothing in another, though its signature
// be copied there.
func TestA17ThePushesOfOneRepositoryVouchForNoOther(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("oracle")
	p.created(p.image("local/acme/sandbox", image, "v1"))
	p.up.Push("acme/prod", image, "v1")
	body, mediaType, _ := p.up.Manifest("acme/sandbox", lying.SignatureTag(image.Digest()))
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	copied := lying.RawManifest(mediaType, body)
	for _, desc := range append(m.Layers, m.Config) {
		blob, _ := p.up.Blob("acme/sandbox", desc.Digest)
		copied.Blobs = append(copied.Blobs, blob)
	}
	p.up.Push("acme/prod", copied, lying.SignatureTag(image.Digest()))
	if status := p.pulls("local/acme/prod", "v1"); status != http.StatusForbidden {
		t.Errorf("it is pulled with %d", status)
	}
	if status := p.pulls("local/acme/sandbox", "v1"); status != http.StatusOK {
		t.Errorf("where it was pushed it is pulled with %d", status)
	}
}

// A signature that passes takes back the denial of a moment ago.
func TestASignatureThatPassesCountsAtOnce(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("signed later")
	p.up.Push("acme/web", image, "v1")
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusForbidden {
		t.Fatalf("unsigned, it is pulled with %d", status)
	}
	// signed elsewhere, by the authority's own key
	other := newPushing(t, lying.Start(t))
	other.created(other.image("local/acme/web", image, "v1"))
	body, mediaType, _ := other.up.Manifest("acme/web", lying.SignatureTag(image.Digest()))
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	for _, desc := range append(m.Layers, m.Config) {
		blob, _ := other.up.Blob("acme/web", desc.Digest)
		p.created(p.blob("local/acme/web", blob))
	}
	p.created(p.manifest("local/acme/web", lying.SignatureTag(image.Digest()), lying.RawManifest(mediaType, body)))
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("signed, it is pulled with %d", status)
	}
}

func TestReferrersAreListedForEverybody(t *testing.T) {
	t.Parallel()
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("with the API: %v", api), func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			if !api {
				up.WithoutReferrers()
			}
			p := newPushing(t, up)
			image := lying.Image("subject")
			p.created(p.image("local/open/web", image, "v1"))
			const count = 10
			var group sync.WaitGroup
			for i := range count {
				group.Go(func() {
					sbom := lying.Artifact("application/spdx+json", image.Descriptor(), lying.Layer{MediaType: "application/spdx+json", Data: fmt.Appendf(nil, `{"n":%d}`, i)})
					response := p.created(p.image("local/open/web", sbom, sbom.Digest().String()))
					if got := response.Header.Get("Oci-Subject"); got != image.Digest().String() {
						t.Errorf("OCI-Subject is %q", got)
					}
				})
			}
			group.Wait()
			response, text := p.do("GET", "/v2/local/open/web/referrers/"+image.Digest().String(), nil, nil)
			var list v1.IndexManifest
			if err := json.Unmarshal([]byte(text), &list); err != nil || response.StatusCode != http.StatusOK || len(list.Manifests) != count {
				t.Errorf("%d, %d referrers: %v", response.StatusCode, len(list.Manifests), err)
			}
			for _, desc := range list.Manifests {
				if desc.ArtifactType != "application/spdx+json" {
					t.Errorf("artifactType is %q", desc.ArtifactType)
				}
			}
			_, _, kept := up.Manifest("open/web", lying.FallbackTag(image.Digest()))
			if kept == api {
				t.Errorf("the fallback tag is there: %v", kept)
			}
			if api {
				return
			}
			// A list that a client writes adds to it.
			p.created(p.manifest("local/open/web", lying.FallbackTag(image.Digest()), lying.IndexOf(list.Manifests[0])))
			body, _, _ := up.Manifest("open/web", lying.FallbackTag(image.Digest()))
			if err := json.Unmarshal(body, &list); err != nil || len(list.Manifests) != count {
				t.Errorf("after a client wrote a shorter list there are %d", len(list.Manifests))
			}
			// And an image does not take its place.
			response, text = p.image("local/open/web", lying.Image("copy"), lying.FallbackTag(image.Digest()))
			if response.StatusCode != http.StatusConflict {
				t.Errorf("%d %s", response.StatusCode, text)
			}
		})
	}
}

func TestDeletingTakesAlongWhatIsAboutItAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("with the API: %v", api), func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			if !api {
				up.WithoutReferrers()
			}
			p := newPushing(t, up)
			web, other := lying.Image("web"), lying.Image("other")
			p.created(p.image("local/acme/web", web, "v1"))
			p.created(p.image("local/acme/web", web, "v2"))
			p.created(p.image("local/acme/web", other, "other"))
			sbom := lying.Artifact("application/spdx+json", web.Descriptor(), lying.Layer{MediaType: "application/spdx+json", Data: []byte(`{}`)})
			p.created(p.image("local/acme/web", sbom, sbom.Digest().String()))
			// an image that refers to it, and one that stands under its tag
			child := lying.ImageManifest{Config: lying.Layer{MediaType: "application/vnd.oci.image.config.v1+json", Data: []byte(`{"os":"linux"}`)}, Subject: new(web.Descriptor())}.Build()
			p.created(p.image("local/acme/web", child, "child"))
			up.Tag("acme/web", lying.FallbackTag(web.Digest())+".sbom", other.Digest())

			delete := func(reference string, want int) {
				t.Helper()
				if response, text := p.do("DELETE", "/v2/local/acme/web/manifests/"+reference, nil, nil); response.StatusCode != want {
					t.Fatalf("delete %s: %d %s", reference, response.StatusCode, text)
				}
			}
			delete("v2", http.StatusAccepted)
			for reference, want := range map[string]int{"v1": 200, "v2": 404, web.Digest().String(): 200} {
				if status := p.pulls("local/acme/web", reference); status != want {
					t.Errorf("after the tag was deleted, %s is pulled with %d", reference, status)
				}
			}
			delete(web.Digest().String(), http.StatusAccepted)
			for reference, want := range map[string]int{"v1": 404, web.Digest().String(): 404, "other": 200, other.Digest().String(): 200, "child": 200} {
				if status := p.pulls("local/acme/web", reference); status != want {
					t.Errorf("%s is pulled with %d, want %d", reference, status, want)
				}
			}
			for _, gone := range []string{lying.SignatureTag(web.Digest()), sbom.Digest().String(), lying.FallbackTag(web.Digest()), lying.FallbackTag(web.Digest()) + ".sbom"} {
				if _, _, ok := up.Manifest("acme/web", gone); ok {
					t.Errorf("%s is still there", gone)
				}
			}
			if !slices.Contains(up.Tags("acme/web"), lying.SignatureTag(other.Digest())) {
				t.Error("another image's signature is gone")
			}
			delete(web.Digest().String(), http.StatusNotFound)
			// Pushed again it is there again.
			p.created(p.image("local/acme/web", web, "v1"))
			if status := p.pulls("local/acme/web", web.Digest().String()); status != http.StatusOK {
				t.Errorf("pushed again it is pulled with %d", status)
			}
			response, _ := p.do("DELETE", "/v2/local/acme/web/blobs/"+lying.Digest(web.Blobs[0]).String(), nil, nil)
			if response.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("a blob is deleted with %d", response.StatusCode)
			}
		})
	}
}
