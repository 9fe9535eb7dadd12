package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// Everything by digest, every signature and bundle of everything that is signed, and
// only then the tag: in every format, to every depth, with a referrers API and without.
func TestTheOrderOfWhatAPushPuts(t *testing.T) {
	t.Parallel()
	inner := lying.Index(lying.Image("one"), lying.Image("two"))
	outer := lying.Index(inner, lying.Image("three"))
	all := []v1.Hash{outer.Digest(), inner.Digest(), inner.Children[0].Digest(), inner.Children[1].Digest(), outer.Children[1].Digest()}
	for _, test := range []struct {
		repository  string
		tag, bundle bool
		signed      []v1.Hash
	}{
		{"acme/web", true, true, all},
		{"tags/web", true, false, all},
		{"bundles/web", false, true, all},
		{"root/web", true, true, all[:1]},
	} {
		for _, api := range []bool{true, false} {
			name := test.repository + " without the API"
			if api {
				name = test.repository + " with the API"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				up := lying.Start(t)
				if !api {
					up.WithoutReferrers()
				}
				p := newPushing(t, up)
				p.created(p.image("local/"+test.repository, outer, "v1"))
				if status := p.pulls("local/"+test.repository, "v1"); status != http.StatusOK {
					t.Errorf("it is pulled with %d", status)
				}
				p.isOrdered(test.repository, test.tag, test.bundle, api, all, test.signed)
			})
		}
	}
}

// isOrdered looks at what the upstream was asked to store, in its order.
func (p *pushing) isOrdered(repository string, tag, bundle, api bool, all, signed []v1.Hash) {
	p.Helper()
	var puts []string
	for _, q := range p.up.Requests(lying.Manifest(repository, "").Method("PUT")) {
		puts = append(puts, q.Reference)
	}
	if len(puts) == 0 || puts[len(puts)-1] != "v1" || slices.Index(puts, "v1") != len(puts)-1 {
		p.Fatalf("the tag is not put last and once: %q", puts)
	}
	firstEvidence := len(puts)
	wanted := map[string]bool{}
	for _, digest := range signed {
		wanted[lying.SignatureTag(digest)] = tag
		wanted[lying.FallbackTag(digest)] = bundle && !api
	}
	bundles := 0
	for i, reference := range puts[:len(puts)-1] {
		isImage := slices.ContainsFunc(all, func(digest v1.Hash) bool { return digest.String() == reference })
		switch {
		case isImage && i > firstEvidence:
			p.Errorf("%s is put after the first evidence: %q", reference, puts)
		case isImage:
		case strings.HasPrefix(reference, "sha256:"):
			bundles++
			firstEvidence = min(firstEvidence, i)
		case !wanted[reference]:
			p.Errorf("%s is put: %q", reference, puts)
		default:
			firstEvidence = min(firstEvidence, i)
		}
	}
	for _, digest := range all {
		if !slices.Contains(puts, digest.String()) {
			p.Errorf("%s is not put by its digest: %q", digest, puts)
		}
	}
	for reference, want := range wanted {
		if slices.Contains(puts, reference) != want {
			p.Errorf("%s is put: %t, want %t: %q", reference, !want, want, puts)
		}
	}
	if want := map[bool]int{true: len(signed)}[bundle]; bundles != want {
		p.Errorf("%d bundles are put, want %d: %q", bundles, want, puts)
	}
}
