package e2e_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// Registries that list referrers themselves, and one that leaves it to its clients.
var registries = []struct {
	name  string
	start func(testing.TB) string
}{
	{"distribution", real.StartDistribution},
	{"go-containerregistry", real.StartGGCR},
}

func pushed(t *testing.T, registry, repository string) (content lying.Content, image string) {
	t.Helper()
	content = lying.Image(t.Name())
	return content, registry + "/" + repository + "@" + real.Push(t, registry, repository, content, "v1")
}

// Every form that we write is read by both versions of cosign, which look for a bundle
// first. That the tag is good beside a bundle is seen where cosign is told to look there
// alone, as podman and older versions do.
func TestCosignVerifiesEveryFormatThatWeSign(t *testing.T) {
	t.Parallel()
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	key := newKeyPair(t)
	for _, r := range registries {
		registry := r.start(t)
		for _, format := range []string{"tag", "bundle", "both"} {
			t.Run(r.name+" "+format, func(t *testing.T) {
				t.Parallel()
				repository := "acme/" + format
				_, image := pushed(t, registry, repository)
				proxy := proxyFor(t, registry, key.public)
				sign := func() real.Result {
					t.Helper()
					return must(t, vidimus(t, "", password, "sign", "--key", key.private, "--format", format, "-a", "env=prod", image))
				}
				out := sign()
				must(t, two.Verify(t, key.public, image, "-a", "env=prod"))
				must(t, three.Verify(t, key.public, image, "-a", "env=prod"))
				old := three.Verify(t, key.public, image, "--new-bundle-format=false")
				if (old.Code == 0) != (format != "bundle") {
					t.Errorf("cosign 3 by tag alone: exit code %d\n%s", old.Code, old.Output())
				}
				if r := three.Verify(t, key.public, image, "-a", "env=test"); r.Code == 0 {
					t.Errorf("cosign 3 takes an annotation that is not there:\n%s", r.Output())
				}
				must(t, vidimus(t, "", nil, "verify", "--key", key.public, "-a", "env=prod", image))
				if code, body := status(t, proxy, repository, "v1"); code != http.StatusOK {
					t.Errorf("the proxy answers %d %s", code, body)
				}
				if !strings.Contains(out.Stdout, "cosign verify --key "+key.public) {
					t.Errorf("no command that verifies it: %s", out.Stdout)
				}
				if again := sign(); strings.Count(again.Stderr, "was signed by this key already") != strings.Count(out.Stderr, " signed: ") {
					t.Errorf("signed again:\n%s\nafter\n%s", again.Stderr, out.Stderr)
				}
			})
		}
	}
}

// A name that a bundle claims is the repository's, as a tag's is.
func TestABundleClaimsItsRepository(t *testing.T) {
	t.Parallel()
	registry := real.StartDistribution(t)
	key := newKeyPair(t)
	content, image := pushed(t, registry, "acme/here")
	must(t, vidimus(t, "", password, "sign", "--key", key.private, "--format", "bundle", image))
	r := must(t, vidimus(t, "", nil, "verify", "--key", key.public, image))
	if want := fmt.Sprintf(`"docker-reference":"%s/acme/here"`, registry); !strings.Contains(r.Stdout, want) {
		t.Errorf("%s is not in %s", want, r.Stdout)
	}
	// The same bundle elsewhere claims another repository.
	real.Push(t, registry, "acme/there", content, "v1")
	proxy := proxyFor(t, registry, key.public)
	if code, _ := status(t, proxy, "acme/there", "v1"); code != http.StatusForbidden {
		t.Errorf("the proxy answers %d for what nobody signed", code)
	}
}

// What we attest both versions of cosign verify, in each format, and by its type only.
func TestCosignVerifiesWhatWeAttest(t *testing.T) {
	t.Parallel()
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	key := newKeyPair(t)
	registry := real.StartDistribution(t)
	predicates := t.TempDir()
	provenance := real.Write(t, predicates, "provenance.json", `{"buildDefinition":{"buildType":"https://example.com/b","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.com/x"}}}`)
	text := real.Write(t, predicates, "note.txt", "looked at by a person\n")
	for _, tt := range []struct{ predicateType, file, format string }{
		{"slsaprovenance1", provenance, "both"},
		{"slsaprovenance1", provenance, "tag"},
		{"custom", text, "bundle"},
		{"custom", text, "tag"},
		{"https://example.com/predicate", provenance, "bundle"},
	} {
		t.Run(tt.format+" "+tt.predicateType, func(t *testing.T) {
			t.Parallel()
			_, image := pushed(t, registry, "acme/attested-"+tt.format)
			r := must(t, vidimus(t, "", password, "attest", "--key", key.private, "--format", tt.format, "--type", tt.predicateType, "--predicate", tt.file, image))
			must(t, printed(t, three, r.Stdout))
			must(t, two.VerifyAttestation(t, key.public, image, tt.predicateType))
			old := three.VerifyAttestation(t, key.public, image, tt.predicateType, "--new-bundle-format=false")
			if (old.Code == 0) != (tt.format != "bundle") {
				t.Errorf("by tag alone: exit code %d\n%s", old.Code, old.Output())
			}
			if r := three.VerifyAttestation(t, key.public, image, "openvex"); r.Code == 0 {
				t.Errorf("it is taken for another type:\n%s", r.Output())
			}
			if r := vidimus(t, "", nil, "verify", "--key", key.public, image); r.Code != 1 {
				t.Errorf("we take it for a signature: exit code %d\n%s", r.Code, r.Output())
			}
		})
	}
}

// What we print, and either program attaches, cosign verifies.
func TestCosignVerifiesAttestationsThatWerePrinted(t *testing.T) {
	t.Parallel()
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	key := newKeyPair(t)
	registry := real.StartDistribution(t)
	text := real.Write(t, t.TempDir(), "note.txt", "looked at by a person\n")
	for _, format := range []string{"tag", "bundle"} {
		_, image := pushed(t, registry, "acme/printed-"+format)
		r := must(t, vidimus(t, "", password, "attest", "--no-upload", "--key", key.private, "--format", format, "--predicate", text, image))
		file := real.Write(t, t.TempDir(), "attestation.json", r.Stdout)
		if r := three.VerifyAttestation(t, key.public, image, "custom"); r.Code == 0 {
			t.Errorf("%s: it is attached already:\n%s", format, r.Output())
		}
		if format == "tag" {
			must(t, two.Run(t, "", "attach", "attestation", "--attestation", file, "--allow-http-registry", image))
		} else {
			must(t, vidimus(t, "", nil, "attach", "attestation", "--attestation", file, image))
		}
		must(t, two.VerifyAttestation(t, key.public, image, "custom"))
		must(t, three.VerifyAttestation(t, key.public, image, "custom"))
	}
}

// Files go both ways, in every shape.
func TestCosignAndVidimusUnderstandEachOthersBlobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := real.Write(t, dir, "release.tar", "released\n")
	other := real.Write(t, dir, "other.tar", "something else\n")
	key := newKeyPair(t)
	for _, major := range []int{2, 3} {
		cosign := real.NewCosign(t, major)
		for name, tt := range map[string]struct {
			sign, theirs, verify, theirVerify []string
		}{
			"signature":  {[]string{"--output-signature", "S"}, []string{"--new-bundle-format=false", "--output-signature", "S"}, []string{"--signature", "S"}, []string{"--new-bundle-format=false"}},
			"old bundle": {[]string{"--new-bundle-format=false", "--bundle", "S"}, []string{"--new-bundle-format=false", "--bundle", "S"}, []string{"--bundle", "S"}, []string{"--new-bundle-format=false"}},
			"new bundle": {[]string{"--bundle", "S"}, []string{"--new-bundle-format=true", "--bundle", "S"}, []string{"--bundle", "S"}, []string{"--new-bundle-format=true", "--trusted-root", cosign.TrustsNobody()}},
		} {
			t.Run(fmt.Sprintf("cosign %d, %s", major, name), func(t *testing.T) {
				t.Parallel()
				at := filepath.Join(t.TempDir(), "s")
				here := func(command string, args ...[]string) []string {
					all := []string{command}
					for _, arg := range slices.Concat(args...) {
						if arg == "S" {
							arg = at
						}
						all = append(all, arg)
					}
					return all
				}
				ours := []string{"--key", key.public}
				theirs := append([]string{"--insecure-ignore-tlog"}, ours...)
				check := func(who string) {
					t.Helper()
					must(t, cosign.Run(t, "", here("verify-blob", tt.verify, theirs, tt.theirVerify, []string{file})...))
					must(t, vidimus(t, "", nil, here("verify-blob", tt.verify, ours, []string{file})...))
					if r := vidimus(t, "", nil, here("verify-blob", tt.verify, ours, []string{other})...); r.Code != 1 {
						t.Errorf("%s: another file: exit code %d\n%s", who, r.Code, r.Output())
					}
					stranger := newKeyPair(t)
					if r := vidimus(t, "", nil, here("verify-blob", tt.verify, []string{"--key", stranger.public, file})...); r.Code != 1 {
						t.Errorf("%s: another key: exit code %d\n%s", who, r.Code, r.Output())
					}
				}
				must(t, vidimus(t, "", password, here("sign-blob", []string{"--key", key.private}, tt.sign, []string{file})...))
				check("ours")
				offline := []string{"--key", key.private, "--yes", "--tlog-upload=false"}
				if major > 2 {
					offline = append(offline, "--use-signing-config=false")
				}
				must(t, cosign.Run(t, "", here("sign-blob", offline, tt.theirs, []string{file})...))
				check("theirs")
			})
		}
	}
}

// Keys of every kind, and a key that was imported.
func TestCosignVerifiesBundlesOfEveryKindOfKey(t *testing.T) {
	t.Parallel()
	cosign := real.NewCosign(t, 3)
	registry := real.StartDistribution(t)
	for _, kind := range []string{"P-256", "P-384", "P-521", "RSA", "Ed25519"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			plain := real.Write(t, dir, "plain.pem", plainKey(t, kind))
			must(t, vidimus(t, dir, password, "import-key-pair", "--key", plain, "--output-key-prefix", "cosign"))
			key := keysIn(dir)
			_, image := pushed(t, registry, "acme/kinds")
			must(t, vidimus(t, "", password, "sign", "--key", key.private, image))
			must(t, cosign.Verify(t, key.public, image))
			must(t, cosign.Verify(t, key.public, image, "--new-bundle-format=false"))
			must(t, cosign.Run(t, "", "public-key", "--key", key.private))
			bundle := filepath.Join(dir, "b")
			must(t, vidimus(t, "", password, "sign-blob", "--key", key.private, "--bundle", bundle, plain))
			must(t, vidimus(t, "", nil, "verify-blob", "--key", key.public, "--bundle", bundle, plain))
			must(t, cosign.Run(t, "", "verify-blob", "--insecure-ignore-tlog", "--key", key.public, "--bundle", bundle, plain))
		})
	}
}

func plainKey(t *testing.T, kind string) string {
	t.Helper()
	var key any
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
