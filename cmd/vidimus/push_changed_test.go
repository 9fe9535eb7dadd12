package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vidimus/e2e/lying"
)

// Whenever another writes the tag of the signatures while a push signs, both signatures
// are there at the end. An upstream that compares refuses the write that would have
// undone the other's, and never sees one that does not say what it replaces.
func TestAnUpstreamThatComparesLosesNoSignature(t *testing.T) {
	t.Parallel()
	image := lying.Image("signed by two")
	tag := lying.SignatureTag(image.Digest())
	reads, writes := lying.Manifest("acme/web", tag).GET(), lying.Manifest("acme/web", tag).Method("PUT")
	honest := newPushing(t, lying.Start(t))
	honest.created(honest.image("local/acme/web", image, "v1"))
	steps := len(honest.up.Requests(reads))
	theirs := signatureBy(lying.P256(), "local/acme/web", image.Digest())
	refused := make(map[bool]bool)
	for _, held := range []bool{false, true} {
		for step := 1; step < steps; step++ { // at the last of them ours was seen to have stayed
			t.Run(fmt.Sprintf("at read %d of a tag that is there: %v", step, held), func(t *testing.T) {
				up := lying.Start(t)
				up.Compares()
				p := newPushing(t, up)
				if held {
					up.Push("acme/web", signatureBy(lying.P256(), "local/acme/web", image.Digest()), tag)
				}
				up.Lie(reads.Nth(step), lying.Before(func(context.Context) { up.Push("acme/web", theirs, tag) }))
				p.created(p.image("local/acme/web", image, "v1"))
				if n := p.layersOf("acme/web", tag); n != 2 {
					t.Errorf("%d signatures, want the other's and ours", n)
				}
				for _, q := range up.Requests(writes) {
					if q.Header.Get("If-Match")+q.Header.Get("If-None-Match") == "" {
						t.Errorf("a write asks for nothing: %v", q.Header)
					}
					refused[held] = refused[held] || q.Status == http.StatusPreconditionFailed
				}
			})
		}
	}
	if !refused[false] || !refused[true] {
		t.Errorf("no write was refused: %v", refused)
	}
}

// An upstream that refuses for ever what is asked of writes is not asked again.
func TestAnUpstreamThatAlwaysRefusesIsAskedOnce(t *testing.T) {
	t.Parallel()
	image := lying.Image("refused")
	tag := lying.SignatureTag(image.Digest())
	up := lying.Start(t)
	up.Prevent(lying.Manifest("acme/web", tag).Method("PUT").Where(func(q lying.Request) bool {
		return q.Header.Get("If-Match")+q.Header.Get("If-None-Match") != ""
	}), lying.Status(http.StatusPreconditionFailed))
	p := newPushing(t, up)
	p.created(p.image("local/acme/web", image, "v1"))
	if n := len(up.Requests(lying.Manifest("acme/web", tag).Method("PUT"))); n != 2 {
		t.Errorf("%d writes", n)
	}
	p.neverUnsigned("acme/web", image)
}

// What clients push is joined with what is there in the same way.
func TestEvidenceIsJoinedWithWhatAnotherWroteMeanwhile(t *testing.T) {
	t.Parallel()
	image := lying.Image("joined")
	tag := lying.SignatureTag(image.Digest())
	ours, theirs := signatureBy(lying.P256(), "local/open/web", image.Digest()), signatureBy(lying.P256(), "local/open/web", image.Digest())
	reads, writes := lying.Manifest("open/web", tag).GET(), lying.Manifest("open/web", tag).Method("PUT")
	steps, refused := 1, 0
	for step := 0; step < steps; step++ {
		up := lying.Start(t)
		up.Compares()
		p := newPushing(t, up)
		up.Push("open/web", image, "v1")
		if step > 0 {
			up.Lie(reads.Nth(step), lying.Before(func(context.Context) { up.Push("open/web", theirs, tag) }))
		}
		p.created(p.image("local/open/web", ours, tag))
		if step == 0 {
			steps = len(up.Requests(reads))
		} else if n := p.layersOf("open/web", tag); n != 2 {
			t.Errorf("at read %d: %d signatures, want the other's and ours", step, n)
		}
		for _, q := range up.Requests(writes) {
			if q.Header.Get("If-Match")+q.Header.Get("If-None-Match") == "" {
				t.Errorf("at read %d a write asks for nothing: %v", step, q.Header)
			}
			if q.Status == http.StatusPreconditionFailed {
				refused++
			}
		}
	}
	if steps < 3 || refused == 0 {
		t.Errorf("%d reads, %d writes were refused", steps, refused)
	}
}

// A copy by digest that is tagged so does not take the place of a list of referrers either
// that another begins meanwhile.
func TestAnImageTakesNoListsPlaceMeanwhile(t *testing.T) {
	t.Parallel()
	image := lying.Image("copied by digest")
	tag := lying.FallbackTag(image.Digest())
	list := lying.IndexOf(textAbout(image, "about it").Descriptor())
	up := lying.Start(t)
	up.WithoutReferrers()
	up.Compares()
	p := newPushing(t, up)
	up.Lie(lying.Manifest("open/web", tag).GET().First(1), lying.Before(func(context.Context) { up.Push("open/web", list, tag) }))
	response, text := p.image("local/open/web", image, tag)
	if response.StatusCode != http.StatusConflict || !strings.Contains(text, "holds the list") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	if body, _, _ := up.Manifest("open/web", tag); !bytes.Equal(body, list.Body) {
		t.Errorf("the tag holds %s", body)
	}
	// What always refuses is asked once more without a condition.
	other := lying.Image("another")
	up.Prevent(lying.Manifest("open/web", lying.FallbackTag(other.Digest())).Method("PUT").Where(func(q lying.Request) bool {
		return q.Header.Get("If-Match")+q.Header.Get("If-None-Match") != ""
	}), lying.Status(http.StatusPreconditionFailed))
	p.created(p.image("local/open/web", other, lying.FallbackTag(other.Digest())))
}
