package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/verifier"
)

// junkSignatures are n signatures by a stranger, each over a payload of its own.
func junkSignatures(key lying.Key, digest v1.Hash, n int) []lying.Layer {
	var layers []lying.Layer
	for i := range n {
		layers = append(layers, lying.Signature(key, lying.Payload("local/tags/web", digest, map[string]any{"n": i})))
	}
	return layers
}

// junkAttestations are as many attestations.
func junkAttestations(key lying.Key, digest v1.Hash, n int) []lying.Layer {
	var layers []lying.Layer
	for i := range n {
		statement := lying.Statement(digest, fmt.Sprint("https://junk.example/", i), nil)
		layers = append(layers, lying.Layer{MediaType: "application/vnd.dsse.envelope.v1+json", Data: lying.Encode(lying.SignStatement(key, statement))})
	}
	return layers
}

// However many signatures somebody has put at an image before, what a push signs counts:
// of what may be tried, a verifier comes to ours. And none of the others is lost.
func TestWhatAPushSignsCountsInACrowd(t *testing.T) {
	t.Parallel()
	stranger := lying.P256()
	// around the part that a place surely has, around all that is tried, and far beyond
	part := verifier.MaxSignatures / len(verifier.Sources())
	for _, junk := range []int{0, part - 1, part, part + 1, verifier.MaxSignatures - 1, verifier.MaxSignatures, verifier.MaxSignatures + 1, 300} {
		for _, test := range []struct {
			repository string
			noAPI      bool
		}{{"tags/web", false}, {"tags/web", true}, {"bundles/web", true}, {"acme/web", true}} {
			t.Run(fmt.Sprintf("%d in %s, lists %v", junk, test.repository, !test.noAPI), func(t *testing.T) {
				t.Parallel()
				up := lying.Start(t)
				if test.noAPI {
					up.WithoutReferrers()
				}
				p := newPushing(t, up)
				repository := test.repository
				image := lying.Image("in a crowd")
				digest := image.Digest()
				up.Push(repository, image)
				var listed []v1.Descriptor
				if junk > 0 { // in every place there is
					for _, tag := range []string{lying.SignatureTag(digest), lying.LegacyTag(digest)} {
						up.Push(repository, lying.Signatures(junkSignatures(stranger, digest, junk)...), tag)
					}
					up.Push(repository, lying.Signatures(junkAttestations(stranger, digest, junk)...), lying.FallbackTag(digest)+".att")
					for i := range junk {
						statement := lying.Statement(digest, lying.PredicateSign, map[string]any{"n": fmt.Sprint(i)})
						content := lying.BundleArtifact(image.Descriptor(), lying.Bundle03, lying.Encode(lying.BundleFields(lying.Bundle03, stranger, statement)), lying.PredicateSign)
						up.Push(repository, content)
						desc := content.Descriptor()
						desc.ArtifactType = string(lying.Bundle03)
						desc.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": lying.PredicateSign}
						listed = append(listed, desc)
					}
					if test.noAPI {
						up.Push(repository, lying.IndexOf(listed...), lying.FallbackTag(digest))
					}
				}
				for _, tag := range []string{"v1", "v2"} {
					p.created(p.image("local/"+repository, image, tag))
					for _, reference := range []string{tag, digest.String()} {
						if response, text := p.do("GET", "/v2/local/"+repository+"/manifests/"+reference, nil, nil); response.StatusCode != http.StatusOK {
							t.Errorf("%s is pulled with %d %s", reference, response.StatusCode, text)
						}
					}
					p.start() // another process has decided nothing
				}
				p.keptJunk(repository, digest, junk, test.noAPI)
			})
		}
	}
}

// keptJunk fails the test when something of a crowd is not there any more.
func (p *pushing) keptJunk(repository string, digest v1.Hash, junk int, onList bool) {
	p.Helper()
	body, _, ok := p.up.Manifest(repository, lying.SignatureTag(digest))
	var m v1.Manifest
	if ok && json.Unmarshal(body, &m) != nil {
		p.Fatalf("the signatures are %s", body)
	}
	seen := make(map[v1.Hash]bool)
	for _, layer := range m.Layers {
		seen[layer.Digest] = true
	}
	if len(seen) < junk {
		p.Errorf("%d signatures are left of %d", len(seen), junk)
	}
	if n := len(p.listed(repository, digest)); onList && n < junk {
		p.Errorf("%d referrers are left of %d", n, junk)
	}
}

// Who may add signatures through the proxy does not push ours out of a verifier's reach.
func TestNobodyPushesASignatureOutOfReach(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("crowded out")
	p.created(p.image("local/tags/web", image, "v1"))
	tag := lying.SignatureTag(image.Digest())
	body, _, _ := p.up.Manifest("tags/web", tag)
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	ours := lying.Layer{MediaType: m.Layers[0].MediaType, Annotations: m.Layers[0].Annotations}
	ours.Data, _ = p.up.Blob("tags/web", m.Layers[0].Digest)
	stranger := lying.P256()
	// What is tried in the one place is missing in the other.
	p.created(p.image("local/tags/web", lying.Signatures(junkSignatures(stranger, image.Digest(), verifier.MaxSignatures)...), lying.LegacyTag(image.Digest())))
	for i := range 3 { // ours is in it, and the last one
		junk := junkSignatures(stranger, image.Digest(), (i+1)*verifier.MaxSignatures-1)[i*verifier.MaxSignatures:]
		p.created(p.image("local/tags/web", lying.Signatures(append(junk, ours)...), tag))
	}
	p.start()
	if status := p.pulls("local/tags/web", "v1"); status != http.StatusOK {
		t.Errorf("it is pulled with %d", status)
	}
	if n := p.layersOf("tags/web", tag); n != 1+3*(verifier.MaxSignatures-1) {
		t.Errorf("%d signatures", n)
	}
}

// What many have signed over one payload is read once, however many they are.
func TestManySignaturesOverOnePayloadAreEvidence(t *testing.T) {
	t.Parallel()
	const signers = 2 * verifier.MaxSignatures
	p := newPushing(t, lying.Start(t))
	image := lying.Image("signed by many")
	digest := p.up.Push("open/web", image, "v1")
	payload := lying.Payload("local/open/web", digest, nil)
	var layers []lying.Layer
	for range signers {
		layers = append(layers, lying.Signature(lying.P256(), payload))
		if len(layers) == signers/2 {
			p.created(p.image("local/open/web", lying.Signatures(layers...), lying.SignatureTag(digest)))
		}
	}
	p.created(p.image("local/open/web", lying.Signatures(layers...), lying.SignatureTag(digest)))
	if status := p.pulls("local/open/web", lying.SignatureTag(digest)); status != http.StatusOK {
		t.Errorf("they are read with %d", status)
	}
	if n := p.layersOf("open/web", lying.SignatureTag(digest)); n != signers {
		t.Errorf("%d signatures, want %d", n, signers)
	}
	// Of different ones no more are read than are tried, and who pushes is told.
	response, text := p.image("local/open/web", lying.Signatures(junkSignatures(lying.P256(), digest, verifier.MaxSignatures+1)...), lying.SignatureTag(digest))
	if response.StatusCode != http.StatusBadRequest || !strings.Contains(text, fmt.Sprintf("at most %d different ones", verifier.MaxSignatures)) {
		t.Errorf("%d %s", response.StatusCode, text)
	}
}
