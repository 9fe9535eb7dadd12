package e2e_test

import (
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// What the other tests with an instance of Sigstore rest on.
func TestCosignSignsKeylessAgainstOurInstanceOfSigstore(t *testing.T) {
	cosign := real.NewCosign(t, 3)
	sigstore := real.StartSigstore(t)
	registry := real.StartDistribution(t)
	content := lying.Image("keyless")
	image := registry + "/acme/keyless@" + real.Push(t, registry, "acme/keyless", content)

	if r := sigstore.VerifyKeyless(t, cosign, sigstore.Issuer.Email(), "dev@acme.example", image); r.Code == 0 {
		t.Fatalf("cosign verifies what nobody signed:\n%s", r.Output())
	}
	must(t, sigstore.Keyless(t, cosign, sigstore.Issuer.Token(t, "dev@acme.example"), image))
	must(t, sigstore.VerifyKeyless(t, cosign, sigstore.Issuer.Email(), "dev@acme.example", image))
	if r := sigstore.VerifyKeyless(t, cosign, sigstore.Issuer.Email(), "other@acme.example", image); r.Code == 0 {
		t.Errorf("cosign takes it for somebody else's:\n%s", r.Output())
	}
	token, identity := sigstore.Issuer.Workflow(t, "acme/web", "release.yml", "refs/tags/v1")
	must(t, sigstore.Keyless(t, cosign, token, image))
	must(t, sigstore.VerifyKeyless(t, cosign, sigstore.Issuer.GitHub(), identity, image))
}
