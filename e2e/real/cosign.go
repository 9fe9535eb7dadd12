package real

import (
	"testing"
)

// Cosign is one major version of the cosign command.
type Cosign struct {
	path  string
	major int
	home  string
	root  string // path of a trust root that trusts nobody
}

// Password is that of every key pair in these tests.
const Password = "correct horse battery staple"

// NewCosign returns cosign of major version 2 or 3, with a home of its own and
// no way to the public instances of Sigstore.
func NewCosign(tb testing.TB, major int) *Cosign {
	tb.Helper()
	name := map[int]string{2: "cosign2", 3: "cosign3"}[major]
	c := &Cosign{path: Program(tb, name), major: major, home: Dir(tb)}
	c.root = Write(tb, c.home, "trusts-nobody.json", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	return c
}

// TrustsNobody is the path of a trust root that trusts nobody, for commands that want
// one and would fetch the public one.
func (c *Cosign) TrustsNobody() string { return c.root }

// Run runs cosign in dir.
func (c *Cosign) Run(tb testing.TB, dir string, args ...string) Result {
	tb.Helper()
	return c.runWith(tb, dir, nil, args...)
}

func (c *Cosign) runWith(tb testing.TB, dir string, env []string, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: c.path, Args: args, Dir: dir, Env: append(env,
		"HOME="+c.home, "DOCKER_CONFIG="+c.home, "TUF_ROOT="+c.home,
		"COSIGN_PASSWORD="+Password, "HTTPS_PROXY=http://127.0.0.1:9", // discards
	)})
}

// Sign signs as older versions did by default: a signature tag and no log.
func (c *Cosign) Sign(tb testing.TB, key, image string, args ...string) Result {
	tb.Helper()
	all := []string{"sign", "--key", key, "--tlog-upload=false", "--yes"}
	if c.major > 2 {
		all = append(all, "--new-bundle-format=false", "--use-signing-config=false")
	}
	return c.Run(tb, "", append(append(all, args...), image)...)
}

// SignBundle signs as version 3 does by default, into a bundle, but without a log: the
// public one is not to be reached.
func (c *Cosign) SignBundle(tb testing.TB, key, image string, args ...string) Result {
	tb.Helper()
	all := []string{"sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "--yes"}
	return c.Run(tb, "", append(append(all, args...), image)...)
}

// SignReferrer signs as version 2 does in its experimental oci-1-1 mode: into a signature
// image with a subject.
func (c *Cosign) SignReferrer(tb testing.TB, key, image string) Result {
	tb.Helper()
	return c.runWith(tb, "", []string{"COSIGN_EXPERIMENTAL=1"},
		"sign", "--key", key, "--tlog-upload=false", "--yes", "--registry-referrers-mode", "oci-1-1", image)
}

// Attest makes an attestation of a predicate type as SignBundle signs.
func (c *Cosign) Attest(tb testing.TB, key, image, predicateType, predicate string) Result {
	tb.Helper()
	return c.Run(tb, "", "attest", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "--yes",
		"--type", predicateType, "--predicate", predicate, image)
}

// AttestTag makes an attestation as older versions did by default: at the tag, into an
// envelope of its own.
func (c *Cosign) AttestTag(tb testing.TB, key, image, predicateType, predicate string) Result {
	tb.Helper()
	all := []string{"attest", "--key", key, "--tlog-upload=false", "--yes", "--type", predicateType, "--predicate", predicate}
	if c.major > 2 {
		all = append(all, "--new-bundle-format=false", "--use-signing-config=false")
	}
	return c.Run(tb, "", append(all, image)...)
}

// Verify verifies with a public key and without a log. Version 2 wants a trust root as
// soon as there is a bundle, and would fetch the public one.
func (c *Cosign) Verify(tb testing.TB, key, image string, args ...string) Result {
	tb.Helper()
	return c.verify(tb, "verify", key, image, args...)
}

// VerifyAttestation verifies an attestation as Verify does a signature.
func (c *Cosign) VerifyAttestation(tb testing.TB, key, image, predicateType string, args ...string) Result {
	tb.Helper()
	return c.verify(tb, "verify-attestation", key, image, append(args, "--type", predicateType)...)
}

func (c *Cosign) verify(tb testing.TB, command, key, image string, args ...string) Result {
	tb.Helper()
	all := []string{command, "--key", key, "--insecure-ignore-tlog"}
	if c.major == 2 {
		all = append(all, "--trusted-root", c.root)
	}
	return c.Run(tb, "", append(append(all, args...), image)...)
}
