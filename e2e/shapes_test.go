package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/real"
)

// What a script would parse is printed as cosign prints it, to the byte; the parts of a
// tree come in another order, as they do from cosign itself.
func TestStandardOutputIsCosigns(t *testing.T) {
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	key := newKeyPair(t)
	registry := real.StartDistribution(t)
	predicate := real.Write(t, t.TempDir(), "sbom.json", `{"spdxVersion":"SPDX-2.3"}`)
	prepared := func(repository, format string) string {
		_, image := pushed(t, registry, repository)
		must(t, vidimus(t, "", password, "sign", "--format", format, "-a", "env=prod", "--key", key.private, image))
		must(t, vidimus(t, "", password, "attest", "--format", format, "--type", "spdxjson", "--predicate", predicate, "--key", key.private, image))
		return image
	}
	// cosign wants to be told that there is no log, and version 2 a root.
	verifies := []string{"--key", key.public, "--insecure-ignore-tlog"}
	tagged, bundled := prepared("acme/tagged", "tag"), prepared("acme/bundled", "bundle")
	for _, tt := range []struct {
		args    []string
		image   string
		cosigns []*real.Cosign
	}{
		{append([]string{"verify"}, verifies...), tagged, []*real.Cosign{two, three}},
		{append([]string{"verify", "--output", "text"}, verifies...), tagged, []*real.Cosign{two, three}},
		{append([]string{"verify-attestation", "--type", "spdxjson"}, verifies...), tagged, []*real.Cosign{two, three}},
		{[]string{"download", "signature"}, tagged, []*real.Cosign{two, three}},
		{[]string{"download", "attestation"}, tagged, []*real.Cosign{two, three}},
		{[]string{"triangulate"}, tagged, []*real.Cosign{two, three}},
		{[]string{"triangulate", "--type", "attestation"}, tagged, []*real.Cosign{two, three}},
		{[]string{"generate", "-a", "env=prod"}, tagged, []*real.Cosign{two, three}},
		{[]string{"tree"}, tagged, []*real.Cosign{two, three}},
		{[]string{"tree"}, bundled, []*real.Cosign{three}},
		{[]string{"download", "attestation", "--predicate-type", "https://spdx.dev/Document"}, bundled, []*real.Cosign{three}},
	} {
		ours := must(t, vidimus(t, "", nil, append(slices.Clone(tt.args), tt.image)...)).Stdout
		for _, cosign := range tt.cosigns {
			theirs := must(t, cosign.Run(t, "", append(slices.Clone(tt.args), tt.image)...)).Stdout
			if tt.args[0] == "tree" {
				ours, theirs = inOrder(ours), inOrder(theirs)
			}
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("%v (-cosign +vidimus)\n%s", tt.args, diff)
			}
		}
	}
}

// inOrder sorts lines.
func inOrder(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
