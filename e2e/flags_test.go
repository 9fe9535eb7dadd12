package e2e_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vidimus/e2e/real"
)

var flagInHelp = regexp.MustCompile(`(?m)^ +(?:-[a-zA-Z], )?--([a-zA-Z0-9-]+)`)

// No flag that cosign shows in its help, version 2 or 3, is unknown to the command of
// the same name.
func TestNoFlagOfCosignsIsUnknown(t *testing.T) {
	for _, major := range []int{2, 3} {
		cosign := real.NewCosign(t, major)
		for _, command := range []string{
			"sign", "attest", "sign-blob", "verify", "verify-attestation", "verify-blob", "generate", "generate-key-pair",
			"import-key-pair", "public-key", "triangulate", "tree", "copy", "clean", "save", "load", "version",
			"attach signature", "attach attestation", "attach sbom",
			"download signature", "download attestation", "download sbom",
		} {
			words := strings.Fields(command)
			shown := flagInHelp.FindAllStringSubmatch(cosign.Run(t, "", append(words, "--help")...).Output(), -1)
			if len(shown) < 4 {
				t.Fatalf("cosign %d %s --help shows %v", major, command, shown)
			}
			args := slices.Clone(words)
			for _, flag := range shown {
				if name := flag[1]; name != "help" {
					args = append(args, fmt.Sprintf("--%s=%s", name, valueOf(name)))
				}
			}
			if r := vidimus(t, "", nil, append(args, "--help")...); r.Code != 0 {
				t.Errorf("vidimus %s does not know all flags of cosign %d: exit code %d\n%s", command, major, r.Code, r.Output())
			}
		}
	}
}

// valueOf is a value that a flag of cosign's may have.
func valueOf(name string) string {
	switch name {
	case "timeout":
		return "1m"
	case "max-workers":
		return "2"
	}
	// Those that are true or false take 1, and so does every text.
	return "1"
}
