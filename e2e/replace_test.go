package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/real"
)

// An attestation takes the place of those of its type, in every form in which both
// versions of cosign and we have made them, and cosign verifies what is left.
func TestAnAttestationIsReplaced(t *testing.T) {
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	key, stranger := newKeyPair(t), newKeyPair(t)
	dir := t.TempDir()
	predicate := func(builder string) string {
		return real.Write(t, dir, builder+".json", `{"buildDefinition":{"buildType":"https://example.com/b","externalParameters":{}},"runDetails":{"builder":{"id":"https://`+builder+`.example"}}}`)
	}
	before, after := predicate("before"), predicate("after")
	other := real.Write(t, dir, "sbom.json", `{"spdxVersion":"SPDX-2.3"}`)
	for _, r := range registries {
		t.Run(r.name, func(t *testing.T) {
			registry := r.start(t)
			_, image := pushed(t, registry, "acme/replaced")
			must(t, vidimus(t, "", password, "sign", "--key", key.private, image))
			for _, by := range []keyPair{key, stranger} {
				must(t, two.AttestTag(t, by.private, image, "slsaprovenance1", before))
				must(t, three.Attest(t, by.private, image, "slsaprovenance1", before))
			}
			must(t, two.AttestTag(t, key.private, image, "spdxjson", other))
			must(t, three.Attest(t, key.private, image, "spdxjson", other))

			bundle := filepath.Join(dir, r.name+".sigstore.json")
			replaced := must(t, vidimus(t, "", password, "attest", "--replace", "--bundle", bundle, "--key", key.private,
				"--type", "slsaprovenance1", "--predicate", after, image))
			if !strings.Contains(replaced.Stderr, "replaced: 4 earlier attestations of https://slsa.dev/provenance/v1") {
				t.Errorf("it says\n%s", replaced.Stderr)
			}
			for _, form := range [][]string{nil, {"--new-bundle-format=false"}} {
				for _, cosign := range []*real.Cosign{two, three} {
					found := must(t, cosign.VerifyAttestation(t, key.public, image, "slsaprovenance1", form...))
					if n := len(envelopes(t, found.Stdout)); n != 1 {
						t.Errorf("%v: cosign finds %d attestations\n%s", form, n, found.Stdout)
					}
					must(t, cosign.VerifyAttestation(t, key.public, image, "spdxjson", form...))
					if r := cosign.VerifyAttestation(t, stranger.public, image, "slsaprovenance1", form...); r.Code == 0 {
						t.Errorf("%v: cosign finds what was replaced\n%s", form, r.Output())
					}
				}
			}
			must(t, two.Verify(t, key.public, image))
			downloaded := must(t, vidimus(t, "", nil, "download", "attestation", "--predicate-type", "slsaprovenance1", image))
			lines := strings.Split(strings.TrimSpace(downloaded.Stdout), "\n")
			written, err := os.ReadFile(bundle)
			if err != nil || len(lines) != 2 || strings.Contains(downloaded.Stdout, "before") {
				t.Fatalf("%v\n%s", err, downloaded.Stdout)
			}
			if diff := cmp.Diff(lines[1], strings.TrimSpace(string(written))); diff != "" {
				t.Errorf("what --bundle wrote is not what is attached\n%s", diff)
			}
			// cosign's own --replace replaces ours under the tag, alone.
			must(t, two.Run(t, "", "attest", "--replace", "--key", key.private, "--tlog-upload=false", "--yes", "--type", "slsaprovenance1", "--predicate", before, image))
			theirs := must(t, two.VerifyAttestation(t, key.public, image, "slsaprovenance1", "--new-bundle-format=false"))
			if n := len(envelopes(t, theirs.Stdout)); n != 1 {
				t.Errorf("cosign replaced ours with %d\n%s", n, theirs.Stdout)
			}
		})
	}
	t.Run("where nothing is deleted", func(t *testing.T) {
		registry := real.StartDistributionThatKeeps(t)
		_, image := pushed(t, registry, "acme/kept")
		for _, file := range []string{before, after} {
			must(t, vidimus(t, "", password, "attest", "--replace", "--key", key.private, "--type", "slsaprovenance1", "--predicate", file, image))
		}
		found := must(t, three.VerifyAttestation(t, key.public, image, "slsaprovenance1"))
		if n := len(envelopes(t, found.Stdout)); n != 1 {
			t.Errorf("cosign finds %d attestations\n%s", n, found.Stdout)
		}
	})
}

// A bundle in a file is what is attached, or all there is, and cosign attaches it.
func TestABundleInAFile(t *testing.T) {
	three := real.NewCosign(t, 3)
	key := newKeyPair(t)
	registry := real.StartDistribution(t)
	_, image := pushed(t, registry, "acme/bundled")
	bundle := filepath.Join(t.TempDir(), "b.json")
	must(t, vidimus(t, "", password, "sign", "--upload=false", "--bundle", bundle, "--key", key.private, image))
	if r := three.Verify(t, key.public, image); r.Code == 0 {
		t.Fatalf("it is attached\n%s", r.Output())
	}
	must(t, three.Run(t, "", "attach", "signature", "--bundle", bundle, "--allow-http-registry", image))
	must(t, three.Verify(t, key.public, image))
	must(t, vidimus(t, "", nil, "verify", "--key", key.public, image))

	certificate := filepath.Join(t.TempDir(), "who.pem")
	must(t, vidimus(t, "", password, "sign", "--bundle", bundle, "--output-certificate", certificate, "--key", key.private, image))
	downloaded := must(t, vidimus(t, "", nil, "download", "signature", image))
	written, err := os.ReadFile(bundle)
	if err != nil || !strings.Contains(downloaded.Stdout, strings.TrimSpace(string(written))) {
		t.Errorf("%v: %s is not in\n%s", err, written, downloaded.Stdout)
	}
	who, err := os.ReadFile(certificate)
	public, otherErr := os.ReadFile(key.public)
	if err != nil || otherErr != nil || string(who) != string(public) {
		t.Errorf("%v, %v: %s", err, otherErr, who)
	}
	for want, args := range map[string][]string{
		"has no bundle":            {"--format", "tag"},
		"give one of them":         {"--payload", key.public},
		"would be written over":    {"--payload", bundle},
		"--bundle is about one":    {image},
		"signatures would be made": {"--sign-container-identity", "a.example/x,b.example/x"},
	} {
		r := vidimus(t, "", password, append([]string{"sign", "--bundle", bundle, "--key", key.private, image}, args...)...)
		if r.Code != 2 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%v: exit code %d, want %q\n%s", args, r.Code, want, r.Output())
		}
	}
}
