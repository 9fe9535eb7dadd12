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
