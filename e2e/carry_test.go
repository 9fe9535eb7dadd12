package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// carriers are what copies go from and to: with a referrers API, and without.
var carriers = []struct {
	name  string
	start func(testing.TB) string
}{
	{"distribution", real.StartDistributionThatKeeps},
	{"go-containerregistry", real.StartGGCR},
}

// carriage is an index of two images at a registry, signed in every form that cosign
// has, and attested.
type carriage struct {
	cosign2, cosign3 *real.Cosign
	keyPair
	addr, repository string
	index            lying.Content
	bundled          bool // with what cosign 2 asks the public instance of Sigstore about
}

func newCarriage(t *testing.T, addr string) carriage {
	t.Helper()
	c := carriage{
		cosign2: real.NewCosign(t, 2), cosign3: real.NewCosign(t, 3), keyPair: newKeyPair(t), addr: addr, repository: "acme/carried",
		index: lying.Index(lying.ImageFor(t.Name(), "amd64"), lying.ImageFor(t.Name(), "arm64")),
	}
	real.Push(t, addr, c.repository, c.index, "v1")
	must(t, c.cosign2.Sign(t, c.private, c.at(addr, c.repository, c.index), "--recursive"))
	predicate := real.Write(t, t.TempDir(), "predicate.json", `{"buildDefinition": {}}`)
	must(t, c.cosign2.Attest(t, c.private, c.at(addr, c.repository, c.index), "custom", predicate))
	return c
}

func (c carriage) at(addr, repository string, content lying.Content) string {
	return addr + "/" + repository + "@" + content.Digest().String()
}

// bundles adds what cosign 3 makes. Where there is one, it looks no further.
func (c *carriage) bundles(t *testing.T) {
	t.Helper()
	c.bundled = true
	for _, content := range append(c.index.Children, c.index) {
		must(t, c.cosign3.SignBundle(t, c.private, c.at(c.addr, c.repository, content)))
	}
}

// verifies wants cosign to verify the index and what it lists at a target.
func (c carriage) verifies(t *testing.T, addr, repository string, contents ...lying.Content) {
	t.Helper()
	for _, content := range contents {
		if !c.bundled {
			must(t, c.cosign2.Verify(t, c.public, c.at(addr, repository, content)))
		}
		must(t, c.cosign3.Verify(t, c.public, c.at(addr, repository, content)))
		must(t, vidimus(t, "", nil, "verify", "--key", c.public, c.at(addr, repository, content)))
	}
}

func TestACopyVerifiesWithCosignWhereItWent(t *testing.T) {
	t.Parallel()
	for _, from := range carriers {
		for _, to := range carriers {
			t.Run("from "+from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				c := newCarriage(t, from.start(t))
				c.bundles(t)
				target := to.start(t)
				must(t, vidimus(t, "", nil, "copy", c.addr+"/"+c.repository+":v1", target+"/mirror/web:v2"))
				c.verifies(t, target, "mirror/web", append(c.index.Children, c.index)...)
				must(t, c.cosign3.Verify(t, c.public, target+"/mirror/web:v2"))
				want := must(t, vidimus(t, "", nil, "download", "attestation", c.addr+"/"+c.repository+":v1")).Stdout
				got := must(t, vidimus(t, "", nil, "download", "attestation", target+"/mirror/web:v2")).Stdout
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				// within a registry blobs are mounted
				r := must(t, vidimus(t, "", nil, "copy", "--output", "json", target+"/mirror/web:v2", target+"/mirror/again:v2"))
				if to.name == "distribution" && !strings.Contains(r.Stdout, `"blobs":0,`) {
					t.Errorf("blobs were sent within one registry: %s", r.Stdout)
				}
				c.verifies(t, target, "mirror/again", c.index)
				// the signatures under tags came along, and cosign 3 takes them when told to
				must(t, c.cosign3.Verify(t, c.public, target+"/mirror/again:v2", "--new-bundle-format=false"))
			})
		}
	}
}

func TestWhatOneSavesTheOtherLoads(t *testing.T) {
	t.Parallel()
	c := newCarriage(t, real.StartDistribution(t))
	target := real.StartDistribution(t)
	source := c.addr + "/" + c.repository + ":v1"
	child := c.at(c.addr, c.repository, c.index.Children[0])
	ours, theirs, image := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "image")

	must(t, vidimus(t, "", nil, "save", "--dir", ours, source))
	must(t, c.cosign2.Run(t, "", "load", "--dir", ours, "--allow-http-registry", target+"/cosign/ours:v1"))
	c.verifies(t, target, "cosign/ours", c.index)
	must(t, vidimus(t, "", nil, "download", "attestation", target+"/cosign/ours:v1"))
	must(t, vidimus(t, "", nil, "load", "--dir", ours, target+"/vidimus/ours:v1"))
	c.verifies(t, target, "vidimus/ours", append(c.index.Children, c.index)...)

	must(t, c.cosign2.Run(t, "", "save", "--dir", theirs, "--allow-http-registry", source))
	must(t, vidimus(t, "", nil, "load", "--dir", theirs, target+"/vidimus/theirs:v1"))
	c.verifies(t, target, "vidimus/theirs", c.index)
	must(t, vidimus(t, "", nil, "download", "attestation", target+"/vidimus/theirs:v1"))

	must(t, vidimus(t, "", nil, "save", "--dir", image, child))
	must(t, c.cosign2.Run(t, "", "load", "--dir", image, "--allow-http-registry", target+"/cosign/image:v1"))
	c.verifies(t, target, "cosign/image", c.index.Children[0])

	c.bundles(t)
	withBundles, theirBundles := filepath.Join(t.TempDir(), "bundles"), filepath.Join(t.TempDir(), "theirs")
	must(t, vidimus(t, "", nil, "save", "--dir", withBundles, source))
	must(t, vidimus(t, "", nil, "load", "--dir", withBundles, target+"/vidimus/bundles:v1"))
	c.verifies(t, target, "vidimus/bundles", append(c.index.Children, c.index)...)
	must(t, c.cosign3.Run(t, "", "save", "--dir", theirBundles, "--allow-http-registry", child))
	must(t, vidimus(t, "", nil, "load", "--dir", theirBundles, target+"/vidimus/theirbundles:v1"))
	c.verifies(t, target, "vidimus/theirbundles", c.index.Children[0])
}

func TestPayloadsAndDownloadsAreCosigns(t *testing.T) {
	t.Parallel()
	c := newCarriage(t, real.StartDistribution(t))
	image := c.at(c.addr, c.repository, c.index)
	for _, args := range [][]string{
		{"generate", image}, {"generate", "-a", "env=prod", "-a", "a=<b>", image},
		{"download", "signature", image}, {"download", "attestation", image},
		{"download", "attestation", "--predicate-type", "custom", image},
	} {
		theirs := must(t, c.cosign2.Run(t, "", append(args, "--allow-http-registry")...)).Stdout
		ours := must(t, vidimus(t, "", nil, args...)).Stdout
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("%v prints something else than cosign:\n%s", args[:2], diff)
		}
	}
	// a signature over a payload of cosign's, attached by cosign and by us
	dir := t.TempDir()
	child := c.at(c.addr, c.repository, c.index.Children[1])
	payload := real.Write(t, dir, "payload.json", must(t, c.cosign2.Run(t, "", "generate", "-a", "by=hand", child)).Stdout)
	signature := must(t, vidimus(t, "", password, "sign", "--key", c.private, "--payload", payload, "--upload=false", child)).Stdout
	file := real.Write(t, dir, "payload.sig", strings.TrimSpace(signature))
	must(t, vidimus(t, "", nil, "attach", "signature", "--payload", payload, "--signature", file, child))
	must(t, c.cosign2.Verify(t, c.public, child, "-a", "by=hand"))

	other := lying.Image("attached by cosign")
	real.Push(t, c.addr, c.repository, other)
	image = c.at(c.addr, c.repository, other)
	must(t, vidimus(t, dir, password, "sign", "--key", c.private, "--upload=false", "--output-signature", "s", "--output-payload", "p", image))
	must(t, c.cosign2.Run(t, dir, "attach", "signature", "--payload", "p", "--signature", "s", "--allow-http-registry", image))
	must(t, vidimus(t, "", nil, "verify", "--key", c.public, image))
	sbom := real.Write(t, dir, "web.spdx", "SPDXVersion: SPDX-2.3\n")
	must(t, vidimus(t, "", nil, "attach", "sbom", "--sbom", sbom, image))
	if got := must(t, c.cosign2.Run(t, "", "download", "sbom", "--allow-http-registry", image)).Stdout; !strings.HasPrefix(got, "SPDXVersion") {
		t.Errorf("cosign downloads %q", got)
	}
}

// Everything that an old key signed, as tags and as bundles, both cosigns verify with
// the new one; and then a registry that deletes nothing says so.
func TestResignedImagesVerifyWithCosign(t *testing.T) {
	t.Parallel()
	for _, registry := range carriers {
		t.Run(registry.name, func(t *testing.T) {
			t.Parallel()
			c := newCarriage(t, registry.start(t))
			c.bundles(t)
			next := newKeyPair(t)
			args := []string{"resign", "--from", c.public, "--key", next.private, c.addr + "/" + c.repository}
			if r := must(t, vidimus(t, "", password, args...)); !strings.Contains(r.Stdout, "3 images looked at, 6 signatures signed, 0 there already") {
				t.Errorf("%s", r.Output())
			}
			c.public = next.public
			c.verifies(t, c.addr, c.repository, append(c.index.Children, c.index)...)
			if r := must(t, vidimus(t, "", password, args...)); !strings.Contains(r.Stdout, " 0 signatures signed, 6 there already") {
				t.Errorf("again: %s", r.Output())
			}

			image := c.at(c.addr, c.repository, c.index)
			r := vidimus(t, "", nil, "clean", "-f", image)
			if registry.name == "distribution" {
				if r.Code != 3 || !strings.Contains(r.Stderr, "the registry refuses to delete") || !strings.Contains(r.Stderr, "storage.delete.enabled") {
					t.Errorf("exit code %d\n%s", r.Code, r.Output())
				}
				return
			}
			must(t, r)
			if r := c.cosign3.Verify(t, c.public, image); r.Code == 0 {
				t.Errorf("it verifies still:\n%s", r.Output())
			}
			must(t, vidimus(t, "", nil, "verify", "--key", c.public, c.at(c.addr, c.repository, c.index.Children[0])))
		})
	}
}
