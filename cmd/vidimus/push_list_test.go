package main

import (
	"net/http"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// What stands under a fallback tag is added to when it is a list of referrers, as other
// clients write them too, and is left alone when it is an image that is named so.
func TestOnlyAListOfReferrersIsAddedTo(t *testing.T) {
	t.Parallel()
	child := lying.Image("child")
	plain := child.Descriptor()
	forLinux := child.Descriptor()
	forLinux.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	for name, test := range map[string]struct {
		held func(subject lying.Content) lying.Content // under the subject's fallback tag
		// subject is an index; nil: an image
		subject *lying.Content
		status  int
	}{
		"an index by its own digest":    {func(subject lying.Content) lying.Content { return subject }, new(lying.IndexOf(plain)), http.StatusConflict},
		"one for several platforms":     {func(subject lying.Content) lying.Content { return subject }, new(lying.IndexOf(forLinux)), http.StatusConflict},
		"another for several platforms": {func(lying.Content) lying.Content { return lying.IndexOf(forLinux) }, nil, http.StatusConflict},
		"a list": {func(subject lying.Content) lying.Content {
			return lying.IndexOf(textAbout(subject, "one").Descriptor())
		}, nil, http.StatusCreated},
		"a list that tells a referrer's platform": {withPlatform, nil, http.StatusCreated},
	} {
		up := lying.Start(t)
		up.WithoutReferrers()
		p := newPushing(t, up)
		subject := lying.Image("web")
		if test.subject != nil {
			subject = *test.subject
		}
		up.Push("open/web", child)
		up.Push("open/web", subject, "v1")
		up.Push("open/web", textAbout(subject, "one"))
		held, tag := test.held(subject), lying.FallbackTag(subject.Digest())
		up.Push("open/web", held, tag)
		two := textAbout(subject, "two")
		response, text := p.image("local/open/web", two, two.Digest().String())
		if response.StatusCode != test.status {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
		if test.status == http.StatusConflict {
			if body, _, _ := up.Manifest("open/web", tag); lying.Digest(body) != held.Digest() {
				t.Errorf("%s: the tag holds %s", name, body)
			}
			continue
		}
		if got, want := p.listed("open/web", subject.Digest()), sortedDigests(textAbout(subject, "one"), two); !slices.Equal(got, want) {
			t.Errorf("%s: listed %q, want %q", name, got, want)
		}
		if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+two.Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
		if got, want := p.listed("open/web", subject.Digest()), sortedDigests(textAbout(subject, "one")); !slices.Equal(got, want) {
			t.Errorf("%s: after the deletion listed %q, want %q", name, got, want)
		}
	}
}

// withPlatform is a list as oras writes it when it copies an attestation of BuildKit's.
func withPlatform(subject lying.Content) lying.Content {
	desc := textAbout(subject, "one").Descriptor()
	desc.ArtifactType, desc.Platform = "text/plain", &v1.Platform{OS: "unknown", Architecture: "unknown"}
	return lying.IndexOf(desc)
}

// Such a list goes with what it is about, also where the upstream deletes no tags.
func TestAListThatTellsAPlatformIsDeletedWithItsSubject(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	up.Prevent(lying.ByTag("open/web").Method("DELETE"), lying.Status(http.StatusMethodNotAllowed))
	p := newPushing(t, up)
	image := lying.Image("web")
	up.Push("open/web", image, "v1")
	up.Push("open/web", textAbout(image, "one"))
	up.Push("open/web", withPlatform(image), lying.FallbackTag(image.Digest()))
	if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+image.Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	if tags := up.Tags("open/web"); len(tags) > 0 {
		t.Errorf("the tags %q are left over", tags)
	}
}
