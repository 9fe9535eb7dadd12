package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// deleted fails the test unless a deletion is accepted.
func (p *pushing) deleted(repository, reference string) {
	p.Helper()
	if response, text := p.do("DELETE", "/v2/"+repository+"/manifests/"+reference, nil, nil); response.StatusCode != http.StatusAccepted {
		p.Fatalf("delete %s: %d %s", reference, response.StatusCode, text)
	}
}

// bundleOf returns the digest of the bundle that refers to subject.
func (p *pushing) bundleOf(repository string, subject v1.Hash) string {
	p.Helper()
	listed, err := p.revision.Clients["local"].Referrers(p.Context(), repository, subject, "")
	if err != nil {
		for _, digest := range p.listed(repository, subject) {
			return digest
		}
	}
	if len(listed) != 1 {
		p.Fatalf("%d referrers: %v", len(listed), err)
	}
	return listed[0].Digest.String()
}

// A signature that is deleted through the proxy vouches no longer: the decision that rests
// on it, which would be kept for a day, is made anew.
func TestADeletedSignatureVouchesNoLonger(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		repository string
		noAPI      bool
		remove     func(p *pushing, subject v1.Hash) (reference string)
		want       int
	}{
		"the tag of signatures": {"tags/web", false, func(_ *pushing, subject v1.Hash) string { return lying.SignatureTag(subject) }, http.StatusForbidden},
		"what that tag names": {"tags/web", false, func(p *pushing, subject v1.Hash) string {
			body, _, _ := p.up.Manifest("tags/web", lying.SignatureTag(subject))
			return lying.Digest(body).String()
		}, http.StatusForbidden},
		"a bundle":            {"bundles/web", false, func(p *pushing, subject v1.Hash) string { return p.bundleOf("bundles/web", subject) }, http.StatusForbidden},
		"a bundle on a list":  {"bundles/web", true, func(p *pushing, subject v1.Hash) string { return p.bundleOf("bundles/web", subject) }, http.StatusForbidden},
		"the tag of the list": {"bundles/web", true, func(_ *pushing, subject v1.Hash) string { return lying.FallbackTag(subject) }, http.StatusForbidden},
		"the list": {"bundles/web", true, func(p *pushing, subject v1.Hash) string {
			body, _, _ := p.up.Manifest("bundles/web", lying.FallbackTag(subject))
			return lying.Digest(body).String()
		}, http.StatusForbidden},
		"one of two": {"acme/web", false, func(_ *pushing, subject v1.Hash) string { return lying.SignatureTag(subject) }, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			if test.noAPI {
				up.WithoutReferrers()
			}
			p := newPushing(t, up)
			repository := "local/" + test.repository
			child, other := lying.Image("child"), lying.Image("other")
			index := lying.Index(child)
			p.created(p.image(repository, index, "v1"))
			p.created(p.image(repository, other, "v2"))
			references := []string{"v1", index.Digest().String(), child.Digest().String(), "v2"}
			for range 2 { // decided, and kept
				for _, reference := range references {
					if status := p.pulls(repository, reference); status != http.StatusOK {
						t.Fatalf("%s is pulled with %d", reference, status)
					}
				}
			}
			// the child is signed itself, as part of the index
			p.deleted(repository, test.remove(p, child.Digest()))
			p.deleted(repository, test.remove(p, index.Digest()))
			for _, reference := range references[:3] {
				if status := p.pulls(repository, reference); status != test.want {
					t.Errorf("%s is pulled with %d, want %d", reference, status, test.want)
				}
			}
			if status := p.pulls(repository, "v2"); status != http.StatusOK {
				t.Errorf("another image is pulled with %d", status)
			}
			// Signed again it is allowed again, at once.
			p.created(p.image(repository, index, "v1"))
			for _, reference := range references {
				if status := p.pulls(repository, reference); status != http.StatusOK {
					t.Errorf("signed again, %s is pulled with %d", reference, status)
				}
			}
		})
	}
}

// A deletion that the upstream refuses takes nothing that vouches, and no decision.
func TestADeletionThatIsRefusedTakesNothing(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("web")
	p.created(p.image("local/acme/web", image, "v1"))
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Fatalf("it is pulled with %d", status)
	}
	p.up.Prevent(lying.Manifest("acme/web", image.Digest().String()).Method("DELETE"), lying.Status(http.StatusInternalServerError))
	if response, text := p.do("DELETE", "/v2/local/acme/web/manifests/"+image.Digest().String(), nil, nil); response.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", response.StatusCode, text)
	}
	if !slices.ContainsFunc(p.up.Tags("acme/web"), func(tag string) bool { return strings.HasSuffix(tag, ".sig") }) {
		t.Fatal("its signatures are gone")
	}
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("it is pulled with %d", status)
	}
}

// What is put where a list of referrers was read takes what it listed away.
func TestWhatTakesThePlaceOfEvidenceVouchesForNothing(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("web")
	p.created(p.image("local/bundles/web", image, "v1"))
	body, _, _ := up.Manifest("bundles/web", p.bundleOf("bundles/web", image.Digest()))
	// An index that a client wrote, which says for what its parts are, as of an image.
	desc := v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: lying.Digest(body), Size: int64(len(body)), Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}
	up.Push("bundles/web", lying.IndexOf(desc), lying.FallbackTag(image.Digest()))
	p.start()
	if status := p.pulls("local/bundles/web", "v1"); status != http.StatusOK {
		t.Fatalf("it is pulled with %d", status)
	}
	// as cosign copy tags it
	p.created(p.image("local/bundles/web", image, lying.FallbackTag(image.Digest())))
	if status := p.pulls("local/bundles/web", "v1"); status != http.StatusForbidden {
		t.Errorf("without its list it is pulled with %d", status)
	}
}
