package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// cosignFlag is a flag of cosign's that nothing here reads. It is known, so that
// a script gets a sentence instead of a syntax error, and passes where it asks
// for no more than is done anyway.
type cosignFlag struct {
	name  string
	short string
	on    []string // commands
	kind  flagKind
	// harmless is the value at which it asks for nothing; with another it is
	// not supported yet.
	harmless string
	// accepted flags pass with every value: they are about something in cosign
	// that there is none of here.
	accepted bool
}

type flagKind int

const (
	textFlag flagKind = iota
	boolFlag
	numberFlag
)

func cosignFlags() []cosignFlag {
	sign, verify := []string{"sign"}, []string{"verify", "verify-attestation"}
	both := append(sign[:1:1], verify...)
	flags := []cosignFlag{
		{name: "registry-referrers-mode", on: sign, harmless: "legacy"},
		{name: "check-claims", on: verify[1:], kind: boolFlag, harmless: "true"},
		{name: "signature-digest-algorithm", on: verify, harmless: "sha256"},
		{name: "max-workers", on: verify, kind: numberFlag, harmless: "10", accepted: true},
		{name: "verbose", short: "d", on: both, kind: boolFlag, harmless: "false", accepted: true},
		{name: "force", short: "f", on: sign, kind: boolFlag, harmless: "false", accepted: true}, // of cosign's past: ask nothing
	}
	add := func(on []string, f cosignFlag, names ...string) {
		for _, name := range names {
			f.name, f.on = name, on
			flags = append(flags, f)
		}
	}
	off := cosignFlag{kind: boolFlag, harmless: "false"}
	add(both, off, "k8s-keychain", "sk")
	add(sign, off, "use-signing-config", "issue-certificate", "record-creation-timestamp",
		"insecure-skip-verify", "oidc-disable-ambient-providers")
	add(verify, off, "local-image")
	add(verify, cosignFlag{kind: boolFlag, harmless: "false", accepted: true},
		"new-bundle-format", "experimental-oci11", "offline", "private-infrastructure", "insecure-ignore-sct",
		"use-signed-timestamps", "allow-certificate-chain")
	add(both, cosignFlag{}, "attachment", "attachment-tag-prefix", "certificate",
		"registry-client-cert", "registry-client-key", "registry-password", "registry-server-name",
		"registry-token", "registry-username", "slot")
	add(sign, cosignFlag{}, "certificate-chain", "bundle", "fulcio-auth-flow", "oidc-client-id",
		"oidc-client-secret-file", "oidc-issuer", "oidc-provider", "oidc-redirect-url", "output-certificate",
		"timestamp-client-cacert", "timestamp-client-cert",
		"timestamp-client-key", "timestamp-server-name")
	add(verify, cosignFlag{}, "payload", "rekor-url", "certificate-github-workflow-name",
		"certificate-github-workflow-ref", "certificate-github-workflow-repository", "certificate-github-workflow-sha",
		"certificate-github-workflow-trigger", "sct", "signature", "timestamp-certificate-chain")
	return append(flags, cosignBlobFlags()...)
}

// cosignBlobFlags are those of the commands that sign and verify other things than
// images.
func cosignBlobFlags() []cosignFlag {
	attest, verifyBlob := []string{"attest"}, []string{"verify-blob"}
	signs := []string{"attest", "sign-blob"}
	all := []string{"attest", "sign-blob", "verify-blob"}
	flags := []cosignFlag{
		{name: "verbose", short: "d", on: all, kind: boolFlag, harmless: "false", accepted: true},
		{name: "rekor-entry-type", on: attest, harmless: "dsse"},
		{name: "registry-referrers-mode", on: attest, harmless: "legacy"},
		{name: "max-workers", on: verifyBlob, kind: numberFlag, harmless: "10", accepted: true},
		{name: "signature-digest-algorithm", on: verifyBlob, harmless: "sha256"},
		{name: "signing-algorithm", on: []string{"sign-blob"}, harmless: "ecdsa-sha2-256-nistp256"},
	}
	add := func(on []string, f cosignFlag, names ...string) {
		for _, name := range names {
			f.name, f.on = name, on
			flags = append(flags, f)
		}
	}
	off := cosignFlag{kind: boolFlag, harmless: "false"}
	add(append([]string{"public-key"}, all...), off, "sk")
	add([]string{"public-key"}, cosignFlag{}, "slot")
	add(signs, off, "use-signing-config", "issue-certificate", "insecure-skip-verify", "oidc-disable-ambient-providers")
	add(attest, off, "k8s-keychain", "replace", "record-creation-timestamp")
	add(verifyBlob, cosignFlag{kind: boolFlag, harmless: "false", accepted: true},
		"new-bundle-format", "experimental-oci11", "offline", "private-infrastructure", "insecure-ignore-sct", "use-signed-timestamps",
		"allow-certificate-chain")
	add(all, cosignFlag{}, "slot", "rfc3161-timestamp")
	add(signs, cosignFlag{}, "certificate", "certificate-chain", "fulcio-auth-flow", "oidc-client-id", "oidc-client-secret-file",
		"oidc-issuer", "oidc-provider", "oidc-redirect-url", "timestamp-client-cacert", "timestamp-client-cert", "timestamp-client-key", "timestamp-server-name")
	add(attest, cosignFlag{}, "bundle", "statement", "attachment-tag-prefix", "registry-client-cert", "registry-client-key",
		"registry-password", "registry-server-name", "registry-token", "registry-username")
	add(verifyBlob, cosignFlag{}, "rekor-url", "certificate-github-workflow-name", "certificate-github-workflow-ref",
		"certificate-github-workflow-repository", "certificate-github-workflow-sha", "certificate-github-workflow-trigger",
		"sct", "timestamp-certificate-chain")
	return flags
}

// registerCosignFlags makes cmd know the flags of the command of cosign that has
// its name, and what some were called by the first cosign.
func registerCosignFlags(cmd *cobra.Command) {
	cmd.Flags().SetNormalizeFunc(presentName)
	for _, f := range cosignFlags() {
		if slices.Contains(f.on, cmd.Name()) {
			f.register(cmd.Flags())
		}
	}
}

// presentName is what the flag is called now that the first cosign called name: there
// a key in a KMS had a flag of its own.
func presentName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "kms":
		name = "key"
	case "cert":
		name = "certificate"
	}
	return pflag.NormalizedName(name)
}

func (f cosignFlag) register(flags *pflag.FlagSet) {
	switch f.kind {
	case boolFlag:
		flags.BoolP(f.name, f.short, f.harmless == "true", "")
	case numberFlag:
		number, _ := strconv.Atoi(f.harmless) // of the table above
		flags.IntP(f.name, f.short, number, "")
	default:
		flags.StringP(f.name, f.short, f.harmless, "")
	}
	flags.Lookup(f.name).Hidden = true
}

// refuseLater returns an error for what cosign would do and is not done here.
func refuseLater(cmd *cobra.Command) error {
	for _, f := range cosignFlags() {
		if f.accepted || !slices.Contains(f.on, cmd.Name()) {
			continue
		}
		if cmd.Flag(f.name).Value.String() != f.harmless {
			return fmt.Errorf("%s is not supported yet", f.asked())
		}
	}
	return nil
}

// asked is the flag as it asks for something.
func (f cosignFlag) asked() string {
	if f.kind == boolFlag && f.harmless == "true" {
		return "--" + f.name + "=false"
	}
	return "--" + f.name
}
