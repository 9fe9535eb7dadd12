package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/lying"
)

func TestAPushIsSignedBeforeItsTagIsThere(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	index := lying.Index(lying.Image("one"), lying.Image("two"))
	response := p.created(p.image("local/acme/web", index, "v1"))
	if got := response.Header.Get("Docker-Content-Digest"); got != index.Digest().String() {
		t.Errorf("Docker-Content-Digest is %s", got)
	}

	// The order of the writes: everything by digest, every signature, the tag.
	var puts []string
	for _, q := range p.up.Requests(lying.Manifest("acme/web", "").Method("PUT")) {
		puts = append(puts, q.Reference)
	}
	if len(puts) < 2 || puts[len(puts)-1] != "v1" || slices.Index(puts, index.Digest().String()) > slices.Index(puts, lying.SignatureTag(index.Digest())) {
		t.Errorf("manifests were put in the order %q", puts)
	}
	for _, content := range append(index.Children, index) {
		got := p.signatures("acme/web", content.Digest())
		if len(got) != 1 {
			t.Fatalf("%d signatures of %s", len(got), content.Digest())
		}
		pushed := got[0].annotations["vidimus.dev/pushed"]
		want := signed{"local/acme/web", map[string]string{"env": "test", "vidimus.dev/pushed": pushed}}
		if diff := cmp.Diff(want, got[0], cmp.AllowUnexported(signed{})); diff != "" || pushed == "" {
			t.Errorf("signed (-want +got):\n%s", diff)
		}
		if !slices.Contains(puts, lying.SignatureTag(content.Digest())) {
			t.Errorf("no signature artifact of %s was put", content.Digest())
		}
		if status := p.pulls("local/acme/web", content.Digest().String()); status != http.StatusOK {
			t.Errorf("%s is pulled with %d", content.Digest(), status)
		}
	}
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("the tag is pulled with %d", status)
	}

	// The same again adds nothing, also under another tag.
	p.created(p.manifest("local/acme/web", "v1", index))
	p.created(p.manifest("local/acme/web", "v2", index))
	if n := p.layersOf("acme/web", lying.SignatureTag(index.Digest())); n != 1 {
		t.Errorf("%d signatures after two more pushes of the same", n)
	}
	if _, text := p.do("GET", "/v2/local/acme/web/referrers/"+index.Digest().String(), nil, nil); strings.Count(text, `"dev.sigstore.bundle.content"`) != 1 {
		t.Errorf("the bundles after two more pushes of the same: %s", text)
	}
}

func TestWhatIsPushedByDigestIsNotSigned(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("by digest")
	p.created(p.image("local/acme/web", image, image.Digest().String()))
	if status := p.pulls("local/acme/web", image.Digest().String()); status != http.StatusForbidden {
		t.Errorf("it is pulled with %d", status)
	}
	if got := p.up.Tags("acme/web"); len(got) != 0 {
		t.Errorf("tags %q", got)
	}
	// But who pushes sees that it is there, as docker wants to of a blob: by HEAD alone.
	for _, path := range []string{"manifests/" + image.Digest().String(), "blobs/" + lying.Digest(image.Blobs[1]).String()} {
		for method, want := range map[string]bool{"HEAD": true, "GET": false} {
			if response, text := p.do(method, "/v2/local/acme/web/"+path, nil, nil); (response.StatusCode == http.StatusOK) != want {
				t.Errorf("%s %s: %d %s", method, path, response.StatusCode, text)
			}
		}
	}
	// The denial of a moment ago does not outlast the push that signs.
	p.created(p.manifest("local/acme/web", "v1", image))
	if status := p.pulls("local/acme/web", image.Digest().String()); status != http.StatusOK {
		t.Errorf("once signed, it is pulled with %d", status)
	}
}

func TestWithoutTheKeyNoTagIsPut(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	p.suspend(map[string]string{signerOf("release"): "release.key does not exist"})
	image := lying.Image("keyless")
	response, text := p.image("local/acme/web", image, "v1")
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || !strings.Contains(text, "the key of authority release") {
		t.Errorf("%d, Retry-After %q: %s", response.StatusCode, response.Header.Get("Retry-After"), text)
	}
	if got := p.up.Tags("acme/web"); len(got) != 0 {
		t.Errorf("tags %q", got)
	}
	p.suspend(nil)
	p.created(p.image("local/acme/web", image, "v1"))
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("it is pulled with %d", status)
	}
}

func TestWherePushesAreRefused(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("refused")
	put := func(repository string, header http.Header) (*http.Response, string) {
		header.Set("Content-Type", image.MediaType)
		return p.do("PUT", "/v2/"+repository+"/manifests/v1", header, image.Body)
	}
	for _, test := range []struct {
		name, repository string
		header           http.Header
		status           int
		says             string
	}{
		{"a policy without push", "local/closed/web", http.Header{}, 405, "add to it push: unsigned"},
		{"no policy", "local/none/web", http.Header{}, 405, "add to policies"},
		{"no upstream", "quay.io/acme/web", http.Header{}, 403, "quay.io is not configured"},
		{"from a web page", "local/acme/web", http.Header{"Origin": {"http://127.0.0.1"}}, 403, "Origin"},
		{"from a web page, unsigned", "local/open/web", http.Header{"Origin": {"https://evil.example"}}, 403, "Origin"},
		{"by another host's name", "local/acme/web", http.Header{"Host": {"evil.example"}}, 403, "configure auth"},
		{"by another host's name with a port", "local/acme/web", http.Header{"Host": {"evil.example:5080"}}, 403, "configure auth"},
	} {
		response, text := put(test.repository, test.header)
		if response.StatusCode != test.status || !strings.Contains(text, test.says) {
			t.Errorf("%s: %d %s", test.name, response.StatusCode, text)
		}
	}
	if got := p.up.Log(); len(got) != 0 {
		t.Errorf("the upstream was asked %q", got)
	}
}
