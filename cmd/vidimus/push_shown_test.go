package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/proxy"
)

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
