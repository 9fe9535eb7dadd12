package main

import (
	"net/http"
	"slices"
	"testing"

	"vidimus/e2e/lying"
)

// A manifest that the upstream does not let go, or not at once, keeps its signature: its
// tags stand. What broke off is ended by the same again.
func TestNoTagStandsUnsignedForADeletionThatBrokeOff(t *testing.T) {
	t.Parallel()
	image := lying.Image("kept")
	deletes := lying.Any().Method("DELETE")
	count := 0
	{
		p := newPushing(t, lying.Start(t))
		p.created(p.image("local/acme/web", image, "v1"))
		p.do("DELETE", "/v2/local/acme/web/manifests/"+image.Digest().String(), nil, nil)
		count = len(p.up.Requests(deletes))
	}
	if count < 3 { // the image, the tag of its signatures, the bundle
		t.Fatalf("a deletion is %d requests", count)
	}
	for name, lie := range map[string]func(up *lying.Registry, m lying.Match){
		"refused":  func(up *lying.Registry, m lying.Match) { up.Prevent(m, lying.Status(http.StatusMethodNotAllowed)) },
		"failed":   func(up *lying.Registry, m lying.Match) { up.Prevent(m, lying.Status(http.StatusInternalServerError)) },
		"happened": func(up *lying.Registry, m lying.Match) { up.Lie(m, lying.Reset()) },
	} {
		for step := 1; step <= count; step++ {
			up := lying.Start(t)
			p := newPushing(t, up)
			p.created(p.image("local/acme/web", image, "v1"))
			lie(up, deletes.Nth(step))
			response, text := p.do("DELETE", "/v2/local/acme/web/manifests/"+image.Digest().String(), nil, nil)
			up.BeHonest()
			if response.StatusCode == http.StatusAccepted {
				t.Errorf("%s, step %d: it is deleted", name, step)
			}
			p.neverUnsigned("acme/web", image)
			if there := slices.Contains(up.Tags("acme/web"), "v1"); there && p.pulls("local/acme/web", "v1") != http.StatusOK {
				t.Errorf("%s, step %d: the tag is there, and not pulled", name, step)
			}
			for range 2 {
				response, text = p.do("DELETE", "/v2/local/acme/web/manifests/"+image.Digest().String(), nil, nil)
			}
			if response.StatusCode != http.StatusNotFound {
				t.Errorf("%s, step %d: deleted again: %d %s", name, step, response.StatusCode, text)
			}
			if tags := up.Tags("acme/web"); len(tags) != 0 {
				t.Errorf("%s, step %d: the tags %q are left over", name, step, tags)
			}
			if listed, _ := p.do("GET", "/v2/local/acme/web/referrers/"+image.Digest().String(), nil, nil); listed.StatusCode != http.StatusOK {
				t.Errorf("%s, step %d: %d", name, step, listed.StatusCode)
			}
		}
	}
}

// A signature that the upstream does not let go stays on the list of what refers to its
// image, which needs it; one that went is taken off by the same again.
func TestASignatureThatIsNotDeletedStaysListed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lie   func(up *lying.Registry, m lying.Match)
		stays bool
	}{
		"refused":  {func(up *lying.Registry, m lying.Match) { up.Prevent(m, lying.Status(http.StatusMethodNotAllowed)) }, true},
		"failed":   {func(up *lying.Registry, m lying.Match) { up.Prevent(m, lying.Status(http.StatusInternalServerError)) }, true},
		"happened": {func(up *lying.Registry, m lying.Match) { up.Lie(m, lying.Reset()) }, false},
	} {
		up := lying.Start(t)
		up.WithoutReferrers()
		p := newPushing(t, up)
		image := lying.Image("web")
		p.created(p.image("local/bundles/web", image, "v1"))
		bundle := p.bundleOf("bundles/web", image.Digest())
		test.lie(up, lying.Manifest("bundles/web", bundle).Method("DELETE"))
		if response, _ := p.do("DELETE", "/v2/local/bundles/web/manifests/"+bundle, nil, nil); response.StatusCode == http.StatusAccepted {
			t.Errorf("%s: it is deleted", name)
		}
		up.BeHonest()
		if test.stays {
			if listed := p.listed("bundles/web", image.Digest()); !slices.Equal(listed, []string{bundle}) {
				t.Errorf("%s: listed are %q", name, listed)
			}
			if status := p.pulls("local/bundles/web", "v1"); status != http.StatusOK {
				t.Errorf("%s: the image is pulled with %d", name, status)
			}
		}
		p.do("DELETE", "/v2/local/bundles/web/manifests/"+bundle, nil, nil)
		if listed := p.listed("bundles/web", image.Digest()); len(listed) > 0 {
			t.Errorf("%s: listed are %q, and it is deleted", name, listed)
		}
		if status := p.pulls("local/bundles/web", "v1"); status != http.StatusForbidden {
			t.Errorf("%s: without its signature the image is pulled with %d", name, status)
		}
	}
}
