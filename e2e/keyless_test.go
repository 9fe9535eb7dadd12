package e2e_test

import (
	"path/filepath"
	"strings"
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

// We sign as cosign does, and the command that we print verifies it.
func TestVidimusSignsKeyless(t *testing.T) {
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	sigstore := real.StartSigstore(t)
	registry := real.StartDistribution(t)
	const who = "dev@acme.example"
	token := real.TokenFile(t, sigstore.Issuer.Token(t, who))
	keyless := []string{"--identity-token", token, "--signing-config", sigstore.SigningConfig, "--trusted-root", sigstore.TrustedRoot}

	t.Run("into a bundle and a tag", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/both")
		r := must(t, vidimus(t, "", nil, append(append([]string{"sign", "-a", "env=prod"}, keyless...), image)...))
		must(t, sigstore.VerifyKeyless(t, three, sigstore.Issuer.Email(), who, image, "-a", "env=prod"))
		must(t, printed(t, three, r.Stdout))
		for _, wrong := range [][2]string{{sigstore.Issuer.Email(), "other@acme.example"}, {sigstore.Issuer.GitHub(), who}} {
			if r := sigstore.VerifyKeyless(t, three, wrong[0], wrong[1], image); r.Code == 0 {
				t.Errorf("cosign takes it for %s's of %s:\n%s", wrong[1], wrong[0], r.Output())
			}
		}
		// The tag holds a certificate and a timestamp, but this log makes no promises.
		must(t, three.Run(t, "", "verify", "--new-bundle-format=false", "--trusted-root", sigstore.TrustedRoot, "--insecure-ignore-sct",
			"--insecure-ignore-tlog", "--use-signed-timestamps", "--certificate-identity", who,
			"--certificate-oidc-issuer", sigstore.Issuer.Email(), image))
	})
	t.Run("as a workflow, into a bundle", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/bundle")
		token, identity := sigstore.Issuer.Workflow(t, "acme/web", "release.yml", "refs/tags/v1")
		must(t, vidimus(t, "", []string{"SIGSTORE_ID_TOKEN=" + token}, append(append([]string{"sign", "--format", "bundle"}, keyless[2:]...), image)...))
		must(t, sigstore.VerifyKeyless(t, three, sigstore.Issuer.GitHub(), identity, image))
		must(t, sigstore.VerifyKeyless(t, two, sigstore.Issuer.GitHub(), identity, image))
	})
	t.Run("with a key, an entry and a timestamp", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/key")
		key := newKeyPair(t)
		r := must(t, vidimus(t, "", password, append(append([]string{"sign", "--key", key.private}, keyless[2:]...), image)...))
		must(t, printed(t, three, r.Stdout))
		again := must(t, vidimus(t, "", password, append(append([]string{"sign", "--key", key.private}, keyless[2:]...), image)...))
		if strings.Count(again.Stderr, "by this key already") != 2 {
			t.Errorf("signed again:\n%s", again.Stderr)
		}
	})
	t.Run("attests, and signs a file", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/attested")
		dir := t.TempDir()
		predicate := real.Write(t, dir, "vex.json", `{"@context":"https://openvex.dev/ns","statements":[]}`)
		r := must(t, vidimus(t, "", nil, append(append([]string{"attest", "--type", "openvex", "--predicate", predicate}, keyless...), image)...))
		must(t, printed(t, three, r.Stdout))
		bundle := filepath.Join(dir, "bundle")
		r = must(t, vidimus(t, "", nil, append(append([]string{"sign-blob", "--bundle", bundle}, keyless...), predicate)...))
		must(t, printed(t, three, r.Stderr))
	})
	t.Run("attests under a tag, stamped as cosign stamps", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/stamped")
		key := newKeyPair(t)
		predicate := real.Write(t, t.TempDir(), "vex.json", `{"@context":"https://openvex.dev/ns","statements":[]}`)
		must(t, vidimus(t, "", password, "attest", "--key", key.private, "--format", "tag", "--type", "openvex", "--predicate", predicate,
			"--timestamp-server-url", sigstore.Timestamps, "--trusted-root", sigstore.TrustedRoot, image))
		for _, cosign := range []*real.Cosign{two, three} {
			must(t, cosign.Run(t, "", "verify-attestation", "--new-bundle-format=false", "--key", key.public, "--type", "openvex",
				"--insecure-ignore-tlog=true", "--use-signed-timestamps", "--trusted-root", sigstore.TrustedRoot, image))
		}
		must(t, vidimus(t, "", nil, "verify-attestation", "--key", key.public, "--type", "openvex", "--use-signed-timestamps", "--trusted-root", sigstore.TrustedRoot, image))
	})
	t.Run("signs a file, with the timestamp in a file of its own", func(t *testing.T) {
		dir := t.TempDir()
		key := newKeyPair(t)
		file := real.Write(t, dir, "release.tar", "released\n")
		signature, stamp := filepath.Join(dir, "sig"), filepath.Join(dir, "stamp.json")
		must(t, vidimus(t, "", password, "sign-blob", "--key", key.private, "--timestamp-server-url", sigstore.Timestamps,
			"--rfc3161-timestamp", stamp, "--output-signature", signature, file))
		must(t, three.Run(t, "", "verify-blob", "--new-bundle-format=false", "--key", key.public, "--signature", signature,
			"--rfc3161-timestamp", stamp, "--use-signed-timestamps", "--insecure-ignore-tlog",
			"--timestamp-certificate-chain", real.Write(t, dir, "chain.pem", sigstore.Stampers(t)), file))
		if r := vidimus(t, "", password, "sign-blob", "--key", key.private, "--rfc3161-timestamp", stamp, file); r.Code != 2 {
			t.Errorf("a timestamp of nobody's: exit code %d\n%s", r.Code, r.Output())
		}
	})
	t.Run("a token that is worth nothing is refused, and not shown", func(t *testing.T) {
		t.Parallel()
		_, image := pushed(t, registry, "acme/none")
		forged := real.StartIssuer(t).Token(t, who)
		r := vidimus(t, "", []string{"SIGSTORE_ID_TOKEN=" + forged}, append(append([]string{"sign"}, keyless[2:]...), image)...)
		if r.Code != 3 || !strings.Contains(r.Stderr, "certificate authority "+sigstore.Fulcio) || strings.Contains(r.Output(), forged) {
			t.Errorf("exit code %d\n%s", r.Code, r.Output())
		}
	})
}

// printed runs the command that vidimus printed last.
func printed(t *testing.T, cosign *real.Cosign, stdout string) real.Result {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	words := strings.Fields(strings.ReplaceAll(lines[len(lines)-1], "'", ""))
	if len(words) == 0 || words[0] != "cosign" {
		t.Fatalf("no command of cosign's in %q", stdout)
	}
	return cosign.Run(t, "", words[1:]...)
}
