package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vidimus/e2e/lying"
)

// Each request of a push that signs fails once, in turn: as if it had not happened,
// and as if only its answer had been lost. No tag stands without the signature,
// neither then nor when the process dies there, and the same push again mends it.
func TestWhateverFailsNoTagStandsUnsigned(t *testing.T) {
	t.Parallel()
	index := lying.Index(lying.Image("one"), lying.Image("two"))
	steps := 0
	{
		p := newPushing(t, lying.Start(t))
		p.created(p.image("local/acme/web", index, "v1"))
		steps = len(p.up.Requests())
	}
	if steps < 20 {
		t.Fatalf("a push is %d requests", steps)
	}
	for step := 1; step <= steps; step++ {
		for _, fault := range []struct {
			name string
			lie  func(up *lying.Registry, m lying.Match)
		}{
			{"failed", func(up *lying.Registry, m lying.Match) { up.Prevent(m, lying.Status(http.StatusInternalServerError)) }},
			{"happened", func(up *lying.Registry, m lying.Match) { up.Lie(m, lying.Reset()) }},
		} {
			t.Run(fmt.Sprintf("%d %s", step, fault.name), func(t *testing.T) {
				t.Parallel()
				up := lying.Start(t)
				p := newPushing(t, up)
				fault.lie(up, lying.Any().Nth(step))
				response, text := p.image("local/acme/web", index, "v1")
				up.BeHonest() // a push makes more requests or fewer: what looks is not to be lied to
				p.neverUnsigned("acme/web", index)
				if response.StatusCode != http.StatusCreated && !strings.Contains(text, `"errors"`) {
					t.Errorf("%d %s", response.StatusCode, text)
				}

				// A process that died there leaves what it left: another one goes on.
				p.start()
				p.created(p.image("local/acme/web", index, "v1"))
				p.neverUnsigned("acme/web", index)
				if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
					t.Errorf("healed, it is pulled with %d", status)
				}
				if n := p.layersOf("acme/web", lying.SignatureTag(index.Digest())); n < 1 || n > 2 {
					t.Errorf("%d signatures", n)
				}
			})
		}
	}
}

// neverUnsigned fails the test when the upstream shows a tag of an image without its
// signature, or without that of anything that it lists.
func (p *pushing) neverUnsigned(repository string, index lying.Content) {
	p.Helper()
	for _, tag := range p.up.Tags(repository) {
		if strings.HasPrefix(tag, "sha256-") {
			continue
		}
		for _, content := range append(index.Children, index) {
			if len(p.signatures(repository, content.Digest())) == 0 {
				p.Errorf("tag %s is there, and no signature of %s", tag, content.Digest())
			}
		}
	}
}
