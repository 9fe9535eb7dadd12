package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/verifier"
)

// within fails the test when a request is not answered within a time that no honest
// one needs.
func (p *pushing) within(method, path, mediaType string, body []byte) int {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.Fatalf("%s %s: %v", method, path, err)
	}
	response.Body.Close()
	return response.StatusCode
}

// A list of referrers that refers to a subject itself would have to be listed under
// the tag that it is being put under, for which it would wait for itself.
func TestAListOfReferrersThatRefersToSomethingIsAnImage(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("subject")
	p.created(p.image("local/acme/web", image, "v1"))
	for _, subject := range []lying.Content{image, lying.Image("another subject")} {
		var fields map[string]any
		if err := json.Unmarshal(lying.IndexOf().Body, &fields); err != nil {
			t.Fatal(err)
		}
		fields["subject"] = subject.Descriptor()
		list := lying.RawManifest(lying.IndexOf().MediaType, lying.Encode(fields))
		unlisted := lying.Image("unlisted " + subject.Digest().Hex)
		p.within("PUT", "/v2/local/acme/web/manifests/"+lying.FallbackTag(subject.Digest()), list.MediaType, list.Body)
		if status := p.within("PUT", "/v2/local/acme/web/manifests/"+lying.FallbackTag(unlisted.Digest()), list.MediaType, list.Body); status != http.StatusCreated {
			t.Errorf("where no list is, it is put with %d", status)
		}
		if n := len(p.signatures("acme/web", list.Digest())); n != 1 {
			t.Errorf("it is put with %d signatures", n)
		}
	}
	if status := p.within("PUT", "/v2/local/acme/web/manifests/v2", image.MediaType, image.Body); status != http.StatusCreated {
		t.Errorf("the subject is put with %d afterwards", status)
	}
}

// What is deleted while a push signs takes no signature from under the tag that the
// push then puts.
func TestNothingIsDeletedBetweenASignatureAndItsTag(t *testing.T) {
	t.Parallel()
	image := lying.Image("deleted meanwhile")
	signatureTag := lying.SignatureTag(image.Digest())
	honest := newPushing(t, lying.Start(t))
	honest.created(honest.image("local/acme/web", image, "v1"))
	reads := lying.Manifest("acme/web", signatureTag).GET()
	last := len(honest.up.Requests(reads))
	for name, deleted := range map[string]string{"the image": image.Digest().String(), "the tag of its signatures": signatureTag} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPushing(t, lying.Start(t))
			signed, goOn := make(chan struct{}), make(chan struct{})
			p.up.Lie(reads.Nth(last), lying.Before(func(ctx context.Context) {
				close(signed) // and seen to have stayed
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			}))
			var group sync.WaitGroup
			group.Go(func() { p.image("local/acme/web", image, "v1") })
			<-signed
			done := make(chan struct{})
			group.Go(func() {
				p.do("DELETE", "/v2/local/acme/web/manifests/"+deleted, nil, nil)
				close(done)
			})
			select {
			case <-done:
			case <-time.After(300 * time.Millisecond): // it waits for the push
			}
			sawTag := false
			p.up.Lie(lying.Any().Method("DELETE"), lying.Before(func(context.Context) { sawTag = slices.Contains(p.up.Tags("acme/web"), "v1") }))
			close(goOn)
			group.Wait()
			select {
			case <-done:
			default:
				t.Fatal("it is not deleted")
			}
			if !sawTag {
				p.neverUnsigned("acme/web", image)
			}
		})
	}
}

// What is revoked is not signed, as part of an index neither.
func TestNothingRevokedIsSignedAsAChild(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	revoked := lying.Image("revoked")
	l := *p.loaded
	l.Policy.Revoked = []v1.Hash{revoked.Digest()}
	p.loaded = &l
	p.start()
	p.up.Push("acme/web", revoked)
	index := lying.Index(lying.Image("fine"), lying.Index(revoked))
	for _, child := range index.Children {
		p.up.Push("acme/web", child)
	}
	response, text := p.manifest("local/acme/web", "v1", index)
	if response.StatusCode != http.StatusForbidden || !strings.Contains(text, "revoked") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	for _, content := range []lying.Content{index, revoked} {
		if n := len(p.signatures("acme/web", content.Digest())); n != 0 {
			t.Errorf("%s has %d signatures", content.Digest(), n)
		}
	}
	if tags := p.up.Tags("acme/web"); len(tags) != 0 {
		t.Errorf("the tags are %q", tags)
	}
}

// What a list of referrers says beside what it lists stays when something is added.
func TestAListOfReferrersKeepsWhatItSays(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("subject")
	p.created(p.image("local/open/web", image, "v1"))
	sbom := func(text string) lying.Content {
		return lying.Artifact("application/spdx+json", image.Descriptor(), lying.Layer{MediaType: "application/spdx+json", Data: []byte(text)})
	}
	first := sbom(`{"n":1}`)
	up.Push("open/web", first)
	var fields map[string]any
	if err := json.Unmarshal(lying.IndexOf(first.Descriptor()).Body, &fields); err != nil {
		t.Fatal(err)
	}
	fields["annotations"] = map[string]string{"kept": "yes"}
	fields["manifests"].([]any)[0].(map[string]any)["unknown"] = "kept too"
	held := lying.RawManifest(lying.IndexOf().MediaType, lying.Encode(fields))
	up.Push("open/web", held, lying.FallbackTag(image.Digest()))
	p.created(p.image("local/open/web", sbom(`{"n":2}`), sbom(`{"n":2}`).Digest().String()))
	body, _, _ := up.Manifest("open/web", lying.FallbackTag(image.Digest()))
	var list struct {
		Manifests   []map[string]any
		Annotations map[string]string
	}
	if err := json.Unmarshal(body, &list); err != nil || len(list.Manifests) != 2 {
		t.Fatalf("%v: %s", err, body)
	}
	if list.Annotations["kept"] != "yes" || list.Manifests[0]["unknown"] != "kept too" {
		t.Errorf("something is lost: %s", body)
	}
}

// fullList is a list of as many referrers as one may have.
func fullList() lying.Content {
	var all []v1.Descriptor
	for i := range verifier.MaxChildren {
		all = append(all, textAbout(lying.Image("subject"), fmt.Sprint(i)).Descriptor())
	}
	return lying.IndexOf(all...)
}

// What stands where evidence belongs and is none is in the way of what a client pushes,
// too. Who pushes is told what it is and what to do; only what could not be read is worth
// another try.
func TestWhatIsInTheWayOfEvidenceIsNamed(t *testing.T) {
	t.Parallel()
	image := lying.Image("web")
	notJSON := lying.RawManifest(lying.Image("").MediaType, []byte("in the way"))
	schema1 := lying.RawManifest("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`))
	signature, referrer := signatureBy(lying.P256(), "local/open/web", image.Digest()), textAbout(image, "about it")
	attestation := lying.Signatures(lying.Layer{
		MediaType: "application/vnd.dsse.envelope.v1+json",
		Data:      lying.Encode(lying.SignStatement(lying.P256(), lying.Statement(image.Digest(), lying.PredicateSLSA, nil))),
	})
	for name, test := range map[string]struct {
		suffix       string
		held, pushed lying.Content
		says         string
	}{
		"no JSON for a list":                  {"", notJSON, referrer, "not one plain JSON document"},
		"schema 1 for a list":                 {"", schema1, referrer, "schema 1"},
		"an image for a list":                 {"", lying.Image("copied by digest"), referrer, "something else than the list"},
		"a list that is full":                 {"", fullList(), referrer, "more than 1000"},
		"no JSON for signatures":              {".sig", notJSON, signature, "not one plain JSON document"},
		"an index for signatures":             {".sig", lying.Index(image), signature, "not an image manifest"},
		"an image to run for signatures":      {".sig", lying.Image("in the way"), signature, "image to run"},
		"an image to run for old signatures":  {".cosign", lying.Image("in the way"), signature, "image to run"},
		"schema 1 for attestations":           {".att", schema1, attestation, "schema 1"},
		"an image to run for attestations":    {".att", lying.Image("in the way"), attestation, "image to run"},
		"a tag that cannot be read, for both": {".sig", lying.Content{}, signature, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			up.WithoutReferrers()
			p := newPushing(t, up)
			up.Push("open/web", image, "v1")
			tag := lying.FallbackTag(image.Digest()) + test.suffix
			reference := tag
			if test.suffix == "" {
				reference = test.pushed.Digest().String()
			}
			if test.held.Body == nil {
				up.Prevent(lying.Manifest("open/web", tag).GET(), lying.Status(http.StatusBadGateway))
				response, text := p.image("local/open/web", test.pushed, reference)
				if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
					t.Errorf("%d %s", response.StatusCode, text)
				}
				return
			}
			up.Push("open/web", test.held, tag)
			response, text := p.image("local/open/web", test.pushed, reference)
			if response.StatusCode != http.StatusConflict || response.Header.Get("Retry-After") != "" || !strings.Contains(text, tag) ||
				!strings.Contains(text, test.says) || !strings.Contains(text, ", then push again") {
				t.Errorf("%d %s", response.StatusCode, text)
			}
			if body, _, _ := up.Manifest("open/web", tag); !bytes.Equal(body, test.held.Body) {
				t.Error("it is replaced")
			}
			up.DeleteTag("open/web", tag)
			p.created(p.image("local/open/web", test.pushed, reference))
		})
	}
}

// What stands there and is nothing at all goes with the image that its tag names.
func TestWhatIsInTheWayIsNotInTheWayOfADeletion(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("web")
	referrer := textAbout(image, "about it")
	up.Push("open/web", image, "v1")
	up.Push("open/web", referrer)
	var tags []string
	for _, suffix := range []string{"", ".sig", ".att"} {
		tags = append(tags, lying.FallbackTag(image.Digest())+suffix)
		up.Push("open/web", lying.RawManifest(lying.Image("").MediaType, []byte("in the way"+suffix)), lying.FallbackTag(image.Digest())+suffix)
	}
	for _, content := range []lying.Content{referrer, image} {
		if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+content.Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
			t.Fatalf("%d %s", response.StatusCode, text)
		}
	}
	for _, tag := range tags {
		if slices.Contains(up.Tags("open/web"), tag) {
			t.Errorf("the tag %s is still there", tag)
		}
	}
}

// A referrer that is not what it is said to be is none of ours, and keeps no image from
// being signed: whoever may push could otherwise put one at every image.
func TestABrokenReferrerKeepsNothingFromBeingSigned(t *testing.T) {
	t.Parallel()
	image := lying.Image("web")
	large := lying.BundleArtifact(image.Descriptor(), lying.Bundle03, bytes.Repeat([]byte("x"), 2*verifier.MaxPayloadSize), lying.PredicateSign)
	size, small := fmt.Sprintf(`"size":%d`, 2*verifier.MaxPayloadSize), `"size":100`
	if bytes.Count(large.Body, []byte(size)) != 1 {
		t.Fatalf("its size is not in %s", large.Body)
	}
	bundle := lying.BundleArtifact(image.Descriptor(), lying.Bundle03, []byte("{}"), lying.PredicateSign)
	listed := bundle.Descriptor()
	listed.ArtifactType = string(lying.Bundle03)
	for name, put := range map[string]func(up *lying.Registry){
		"listed, and not there": func(up *lying.Registry) {
			up.WithoutReferrers()
			up.Push("acme/web", lying.IndexOf(listed), lying.FallbackTag(image.Digest()))
		},
		"without its bundle": func(up *lying.Registry) { up.Push("acme/web", lying.RawManifest(bundle.MediaType, bundle.Body)) },
		"with a larger bundle than it says": func(up *lying.Registry) {
			up.Push("acme/web", lying.RawManifest(large.MediaType, bytes.Replace(large.Body, []byte(size), []byte(small), 1), large.Blobs...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			put(up)
			p := newPushing(t, up)
			p.created(p.image("local/acme/web", image, "v1"))
			p.neverUnsigned("acme/web", image)
			if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
				t.Errorf("it is pulled with %d", status)
			}
		})
	}
}

// What stands where the signatures belong and is none is not replaced; who pushes is
// told of it, and not to try again.
func TestWhatIsInTheWayOfASignatureIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		suffix string
		held   lying.Content
	}{
		"an index for signatures":     {".sig", lying.Index(lying.Image("in the way"))},
		"an image for signatures":     {".sig", lying.Image("in the way")},
		"no JSON for signatures":      {".sig", lying.RawManifest(lying.Image("").MediaType, []byte("in the way"))},
		"an image for a list of them": {"", lying.Image("in the way")},
		"no JSON for a list of them":  {"", lying.RawManifest(lying.IndexOf().MediaType, []byte("in the way"))},
		"a list that is full":         {"", fullList()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			up.WithoutReferrers()
			p := newPushing(t, up)
			image := lying.Image("pushed")
			tag := lying.FallbackTag(image.Digest()) + test.suffix
			up.Push("acme/web", test.held, tag)
			response, text := p.image("local/acme/web", image, "v1")
			if response.StatusCode != http.StatusConflict || !strings.Contains(text, "the tag "+tag+" holds") || response.Header.Get("Retry-After") != "" {
				t.Errorf("%d %s", response.StatusCode, text)
			}
			if body, _, _ := up.Manifest("acme/web", tag); !bytes.Equal(body, test.held.Body) {
				t.Error("it is replaced")
			}
			if slices.Contains(up.Tags("acme/web"), "v1") {
				t.Error("the tag is there")
			}
			up.DeleteTag("acme/web", tag)
			p.created(p.image("local/acme/web", image, "v1"))
			p.neverUnsigned("acme/web", image)
		})
	}
}

// What the proxy has seen under the tags of signatures is not shown any more once it has
// signed, though it would not ask the upstream again yet.
func TestASignatureIsShownAsSoonAsItIsMade(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("signed twice")
	p.created(p.image("local/acme/web", image, "v1"))
	shown := func() (layers, bundles int) {
		t.Helper()
		_, text := p.do("GET", "/v2/local/acme/web/manifests/"+lying.SignatureTag(image.Digest()), nil, nil)
		var artifact struct{ Layers []json.RawMessage }
		_, list := p.do("GET", "/v2/local/acme/web/referrers/"+image.Digest().String(), nil, nil)
		if err := json.Unmarshal([]byte(text), &artifact); err != nil {
			t.Fatal(err, text)
		}
		return len(artifact.Layers), strings.Count(list, `"dev.sigstore.bundle.content"`)
	}
	if layers, bundles := shown(); layers != 1 || bundles != 1 {
		t.Fatalf("%d layers, %d bundles", layers, bundles)
	}
	// Another claims something else, and signs the same.
	p.use(func(r *proxy.Revision) { r.Access = who{} })
	response, text := p.do("PUT", "/v2/local/acme/web/manifests/v1", http.Header{"Content-Type": {image.MediaType}, "From": {"alice"}}, image.Body)
	p.created(response, text)
	p.use(func(r *proxy.Revision) { r.Access = nil })
	if layers, bundles := shown(); layers != 2 || bundles != 2 {
		t.Errorf("after another signature %d layers and %d bundles are shown", layers, bundles)
	}
}
