package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// Flags that several of cosign's commands have.
const (
	everyCommand   = "output-file timeout"
	ofRegistries   = "allow-http-registry allow-insecure-registry attachment-tag-prefix registry-cacert registry-client-cert registry-client-key registry-password registry-server-name registry-token registry-username"
	ofIdentities   = "identity-token fulcio-auth-flow oidc-issuer oidc-client-id oidc-client-secret-file oidc-redirect-url oidc-provider oidc-disable-ambient-providers"
	ofServices     = "key fulcio-url rekor-url tlog-upload signing-config trusted-root timestamp-server-url timestamp-client-cacert timestamp-client-cert timestamp-client-key timestamp-server-name yes"
	ofSigners      = "key certificate-identity certificate-identity-regexp certificate-oidc-issuer certificate-oidc-issuer-regexp trusted-root ca-roots ca-intermediates certificate-chain insecure-ignore-tlog private-infrastructure"
	tokens         = "sk slot"
	workflowClaims = "certificate-github-workflow-name certificate-github-workflow-ref certificate-github-workflow-repository certificate-github-workflow-sha certificate-github-workflow-trigger"
)

// cosignsFlags are all the flags of cosign 2.6.5 and 3.1.3, those that version 3 hides
// included, of the commands that are here, too: those that do here what they do there,
// those that pass since what they ask for is done anyway, and those that are refused by
// name with what to do instead.
var cosignsFlags = []struct {
	command               string
	does, passes, refuses []string
}{
	{
		command: "sign",
		does:    flags(everyCommand, ofRegistries, ofIdentities, ofServices, "annotations bundle new-bundle-format output-certificate output-payload output-signature payload record-creation-timestamp recursive sign-container-identity upload"),
		passes:  flags("force insecure-skip-verify verbose"), // force is of the first cosign
		refuses: flags(tokens, "attachment certificate certificate-chain issue-certificate k8s-keychain registry-referrers-mode use-signing-config"),
	},
	{
		command: "attest",
		does:    flags(everyCommand, ofRegistries, ofIdentities, ofServices, "bundle new-bundle-format no-upload predicate record-creation-timestamp replace type"),
		passes:  flags("insecure-skip-verify verbose"),
		refuses: flags(tokens, "certificate certificate-chain issue-certificate k8s-keychain rekor-entry-type statement use-signing-config"),
	},
	{
		command: "sign-blob",
		does:    flags(everyCommand, ofIdentities, ofServices, "b64 bundle new-bundle-format output output-certificate output-signature rfc3161-timestamp"),
		passes:  flags("insecure-skip-verify verbose"),
		refuses: flags(tokens, "certificate certificate-chain issue-certificate signing-algorithm use-signing-config"),
	},
	{
		command: "verify",
		does:    flags(everyCommand, ofSigners, "allow-http-registry allow-insecure-registry annotations attachment-tag-prefix check-claims output registry-cacert registry-client-cert registry-client-key registry-password registry-server-name registry-token registry-username"),
		passes:  flags("allow-certificate-chain experimental-oci11 insecure-ignore-sct max-workers new-bundle-format offline rekor-url use-signed-timestamps verbose"),
		refuses: flags(tokens, workflowClaims, "attachment certificate k8s-keychain local-image payload sct signature signature-digest-algorithm timestamp-certificate-chain"),
	},
	{
		command: "verify-attestation",
		does:    flags(everyCommand, ofSigners, "allow-http-registry allow-insecure-registry attachment-tag-prefix output policy registry-cacert registry-client-cert registry-client-key registry-password registry-server-name registry-token registry-username type"),
		passes:  flags("allow-certificate-chain experimental-oci11 insecure-ignore-sct max-workers new-bundle-format offline rekor-url use-signed-timestamps verbose"),
		refuses: flags(tokens, workflowClaims, "certificate check-claims k8s-keychain local-image sct signature-digest-algorithm timestamp-certificate-chain"),
	},
	{
		command: "verify-blob",
		does:    flags(everyCommand, ofSigners, "bundle certificate signature"),
		passes:  flags("allow-certificate-chain experimental-oci11 insecure-ignore-sct max-workers new-bundle-format offline rekor-url use-signed-timestamps verbose"),
		refuses: flags(tokens, workflowClaims, "rfc3161-timestamp sct signature-digest-algorithm timestamp-certificate-chain"),
	},
	{
		command: "generate",
		does:    flags(everyCommand, ofRegistries, "annotations"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "generate-key-pair",
		does:    flags(everyCommand, "kms output-key-prefix"),
		passes:  flags("verbose"),
	},
	{
		command: "import-key-pair",
		does:    flags(everyCommand, "key output-key-prefix yes"),
		passes:  flags("verbose"),
	},
	{
		command: "public-key",
		does:    flags(everyCommand, "key outfile"),
		passes:  flags("verbose"),
		refuses: flags(tokens),
	},
	{
		command: "triangulate",
		does:    flags(everyCommand, ofRegistries, "type"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "tree",
		does:    flags(everyCommand, ofRegistries),
		passes:  flags("experimental-oci11 registry-referrers-mode verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "copy",
		does:    flags(everyCommand, ofRegistries, "force only platform sig-only"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "clean",
		does:    flags(everyCommand, ofRegistries, "force type"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "save",
		does:    flags(everyCommand, ofRegistries, "dir"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "load",
		does:    flags(everyCommand, ofRegistries, "dir"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "attach signature",
		does:    flags(everyCommand, ofRegistries, "bundle certificate certificate-chain payload rekor-response signature tsr"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "attach attestation",
		does:    flags(everyCommand, ofRegistries, "attestation"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "attach sbom",
		does:    flags(everyCommand, ofRegistries, "input-format sbom type"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain registry-referrers-mode"),
	},
	{
		command: "download signature",
		does:    flags(everyCommand, ofRegistries),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "download attestation",
		does:    flags(everyCommand, ofRegistries, "platform predicate-type"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "download sbom",
		does:    flags(everyCommand, ofRegistries, "platform"),
		passes:  flags("verbose"),
		refuses: flags("k8s-keychain"),
	},
	{
		command: "version",
		does:    flags(everyCommand, "json"),
		passes:  flags("verbose"),
	},
}

// flags are the names in some lists.
func flags(lists ...string) []string {
	all := strings.Fields(strings.Join(lists, " "))
	slices.Sort(all)
	return all
}

// cosignCommand is the command of ours that is called as one of cosign's.
func cosignCommand(t *testing.T, called string) *cobra.Command {
	t.Helper()
	cmd, rest, err := newRootCommand().Find(strings.Fields(called))
	if err != nil || len(rest) > 0 {
		t.Fatalf("%s: %v, %v", called, rest, err)
	}
	return cmd
}

// TestEachOfCosignsFlagsIsReadOrPassesOrIsRefused holds the table against what each
// command has.
func TestEachOfCosignsFlagsIsReadOrPassesOrIsRefused(t *testing.T) {
	for _, row := range cosignsFlags {
		cmd := cosignCommand(t, row.command)
		var passing, refused []string
		for _, f := range cosignFlags(row.command) {
			switch {
			case !slices.Contains(slices.Concat(row.does, row.passes, row.refuses), f.name):
				t.Errorf("%s: --%s is none of cosign's, or not in the table", row.command, f.name)
			case f.why == "":
				passing = append(passing, f.name)
			default:
				refused = append(refused, f.name)
			}
		}
		slices.Sort(passing)
		slices.Sort(refused)
		if diff := cmp.Diff(row.passes, passing); diff != "" {
			t.Errorf("%s: what passes (-table +command)\n%s", row.command, diff)
		}
		if diff := cmp.Diff(row.refuses, refused); diff != "" {
			t.Errorf("%s: what is refused (-table +command)\n%s", row.command, diff)
		}
		for _, name := range row.does {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s does not know --%s", row.command, name)
			}
		}
	}
}

// other is a value of a flag at which it asks for something.
func (f cosignFlag) other() string {
	if f.harmless == "true" {
		return "false"
	}
	return map[flagKind]string{textFlag: "x", boolFlag: "true", numberFlag: "1"}[f.kind]
}

// TestCosignsFlagsPassOrAreRefusedByName gives the commands what nothing reads.
func TestCosignsFlagsPassOrAreRefusedByName(t *testing.T) {
	isolate(t)
	for _, row := range cosignsFlags {
		for _, f := range cosignFlags(row.command) {
			for _, value := range []string{f.harmless, f.other()} {
				arg := "--" + f.name + "=" + value
				args := append(strings.Fields(row.command), arg, "--output-file", "missing/directory")
				var out output
				code, err := out.execute(t.Context(), newRootCommand(), nil, append(args, arguments(row.command)...)...)
				want := "missing/directory" // where what passed ends
				if value != f.harmless && f.why != "" {
					want = f.asked() + " is not supported: " + f.why
				}
				if code != exitMisuse || !strings.Contains(err.Error(), want) {
					t.Errorf("%s %s: exit %d, %v; want %q", row.command, arg, code, err, want)
				}
			}
		}
		var out output
		if code, err := out.execute(t.Context(), newRootCommand(), nil, append(strings.Fields(row.command), "--no-such-flag")...); code != exitMisuse || !strings.Contains(err.Error(), "unknown flag") {
			t.Errorf("%s: exit %d, %v", row.command, code, err)
		}
	}
}

// arguments are as many as a command takes.
func arguments(command string) []string {
	switch command {
	case "generate-key-pair", "import-key-pair", "public-key", "version":
		return nil
	case "copy":
		return []string{"reg.test/a:b", "reg.test/c:d"}
	}
	return []string{"reg.test/a:b"}
}
