package verifier

import (
	"os"
	"testing"
	"time"

	"vidimus/verifier/envelope"
)

// testdata/public-bundle.json is the provenance of npm package sigstore 2.0.0. What the public instance of Sigstore has proven is proven here, with the promise of a
// certificate log, which sigstore-go's instance for tests cannot make.
func TestABundleOfThePublicInstanceIsProven(t *testing.T) {
	trust, err := ParseRoot(PublicRoot())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/public-bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	const mediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	b, err := envelope.ParseBundle(mediaType, raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parseProven(mediaType, raw, b, b.Signed)
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseIdentity("https://token.actions.githubusercontent.com",
		"https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/*", "https://github.com/sigstore/sigstore-js")
	if err != nil {
		t.Fatal(err)
	}
	trusts := func(a Authority) *verification {
		return &verification{identities: trustedIdentities([]Authority{a}), now: time.Now()}
	}
	ci := Authority{Name: "ci", Root: trust, Identities: []Identity{id}}
	e, by, ok := trusts(ci).checkCertificate(Evidence{}, p)
	if at, _ := e.SignedAt(); !ok || len(by.authorities) != 1 || at.UTC().Format(time.DateOnly) != "2023-08-18" {
		t.Errorf("%v by %v, at %v: %s", ok, by.authorities, at, e.Detail())
	}
	if id, err = ParseIdentity("https://token.actions.githubusercontent.com", "https://github.com/sigstore/sigstore-js/**", "https://github.com/acme/web"); err != nil {
		t.Fatal(err)
	}
	ci.Identities = []Identity{id}
	if e, _, ok := trusts(ci).checkCertificate(Evidence{}, p); ok {
		t.Errorf("for another repository: %v", e)
	}
}
