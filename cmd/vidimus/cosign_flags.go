package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// cosignFlag is a flag of cosign's that nothing here reads. It is known, so that
// a script gets a sentence instead of a syntax error, and passes where it asks
// for no more than is done anyway.
type cosignFlag struct {
	name  string
	short string
	kind  flagKind
	// harmless is the value at which it asks for nothing.
	harmless string
	// why another value is refused, and what to do instead. Empty, every value passes:
	// it is about something in cosign that there is none of here, or that is done anyway.
	why string
}

type flagKind int

const (
	textFlag flagKind = iota
	boolFlag
	numberFlag
)

// off is a flag that is refused when it is set.
func off(name, why string) cosignFlag {
	return cosignFlag{name: name, kind: boolFlag, harmless: "false", why: why}
}

// no is a flag with a value that is refused when it has one.
func no(name, why string) cosignFlag { return cosignFlag{name: name, why: why} }

// passes are flags that are taken, whatever they say.
func passes(kind flagKind, harmless string, names ...string) []cosignFlag {
	var all []cosignFlag
	for _, name := range names {
		all = append(all, cosignFlag{name: name, kind: kind, harmless: harmless})
	}
	return all
}

// cosignFlags are those of a command of cosign's, versions 2 and 3, that its namesake
// here does not read.
func cosignFlags(command string) []cosignFlag {
	all := []cosignFlag{{name: "verbose", short: "d", kind: boolFlag, harmless: "false"}}
	add := func(more ...cosignFlag) { all = append(all, more...) }
	switch command {
	case "sign", "attest", "sign-blob":
		add(signingFlags(command)...)
	case "verify", "verify-attestation", "verify-blob":
		add(verifyingFlags(command)...)
	case "tree":
		// Every referrer is shown, in whatever mode.
		add(passes(textFlag, "", "registry-referrers-mode")...)
		add(passes(boolFlag, "true", "experimental-oci11")...)
	case "attach sbom":
		add(referrersMode("an SBOM is attached under its tag; attest makes a referrer of one"))
	case "public-key":
		add(securityKey()...)
	}
	switch command {
	case "sign-blob", "verify-blob", "generate-key-pair", "import-key-pair", "public-key", "version":
	default:
		add(off("k8s-keychain", "credentials come from docker's store, for which every cloud has a credential helper, or from --registry-username"))
	}
	return all
}

func referrersMode(why string) cosignFlag {
	return cosignFlag{name: "registry-referrers-mode", harmless: "legacy", why: why}
}

func securityKey() []cosignFlag {
	const why = "no hardware token is read: name a key in a file or a KMS with --key"
	return []cosignFlag{off("sk", why), no("slot", why)}
}

// signingFlags are those of the commands that sign.
func signingFlags(command string) []cosignFlag {
	all := append(securityKey(),
		off("use-signing-config", "no configuration of services is fetched: name one with --signing-config"),
		off("issue-certificate", "a certificate is issued for a key that is made for it: leave out --key"),
		no("certificate", "a certificate of one's own is attached by attach signature --certificate"),
		no("certificate-chain", "certificates of one's own are attached by attach signature --certificate-chain"),
	)
	// What it would leave out, nobody checks when signing: whoever verifies does.
	all = append(all, passes(boolFlag, "false", "insecure-skip-verify")...)
	switch command {
	case "sign":
		all = append(all, cosignFlag{name: "force", short: "f", kind: boolFlag, harmless: "false"}) // nothing is asked
		all = append(all, referrersMode("--format bundle makes a signature that refers to its image"),
			no("attachment", "an attachment is signed by its own name, which triangulate --type sbom prints"))
	case "attest":
		all = append(all,
			cosignFlag{name: "rekor-entry-type", harmless: "dsse", why: "an entry holds the digest of a statement (dsse), and not all of it"},
			no("statement", "give --predicate and --type: what the statement is about is the image's digest"))
	case "sign-blob":
		all = append(all, cosignFlag{name: "signing-algorithm", harmless: "ecdsa-sha2-256-nistp256",
			why: "the key of --key decides, and without one it is ECDSA on P-256"})
	}
	return all
}

// verifyingFlags are those of the commands that verify.
func verifyingFlags(command string) []cosignFlag {
	all := append(securityKey(),
		cosignFlag{name: "signature-digest-algorithm", harmless: "sha256", why: "the hash is that of the key: SHA-256, and for ECDSA the one of its curve"},
		no("sct", "a certificate's own SCT is looked at where the trust root knows a log of certificates"),
		no("timestamp-certificate-chain", "a timestamp authority is trusted by --trusted-root (cosign trusted-root create makes one)"),
	)
	all = append(all, passes(numberFlag, "10", "max-workers")...)
	// No log is asked over the network, and every form and proof is looked at.
	all = append(all, passes(textFlag, "", "rekor-url")...)
	all = append(all, passes(boolFlag, "false", "new-bundle-format", "experimental-oci11", "offline",
		"insecure-ignore-sct", "use-signed-timestamps", "allow-certificate-chain")...)
	for _, claim := range []string{"name", "ref", "repository", "sha", "trigger"} {
		all = append(all, no("certificate-github-workflow-"+claim,
			"--certificate-identity has the workflow's path and ref; a policy's github authority has its repository"))
	}
	switch command {
	case "verify", "verify-attestation":
		all = append(all,
			off("local-image", "vidimus load --dir brings the image and its evidence into a registry"),
			no("certificate", "the certificate is the signature's own: --certificate-identity says whose it must be"))
		if command == "verify-attestation" {
			all = append(all, cosignFlag{name: "check-claims", kind: boolFlag, harmless: "true",
				why: "what is attested must be about the image: verify-blob-attestation of cosign checks a statement alone"})
		}
	case "verify-blob":
		all = append(all, no("rfc3161-timestamp", "a timestamp comes in a sigstore bundle"))
	}
	if command == "verify" {
		all = append(all, no("attachment", "an attachment is verified by its own name, which triangulate --type sbom prints"),
			no("signature", "verify-blob --signature checks a signature in a file"),
			no("payload", "verify-blob --signature checks one over a payload in a file"))
	}
	return all
}

// registerCosignFlags makes cmd know the flags of a command of cosign's, refuse what
// they ask for and is not done here, and do what all of cosign's commands have flags
// for: --output-file, --timeout, and that a flag may stand in the environment.
func registerCosignFlags(cmd *cobra.Command, command string) {
	flags := cmd.Flags()
	flags.SetNormalizeFunc(formerNames(flags.Lookup("kms") != nil))
	unread := cosignFlags(command)
	for _, f := range unread {
		f.register(flags)
	}
	output := flags.String("output-file", "", "write to `FILE` what would go to standard output")
	flags.Lookup("output-file").Hidden = true
	var timeout time.Duration
	if flags.Lookup("timeout") == nil {
		flags.DurationVarP(&timeout, "timeout", "t", 3*time.Minute, "give up after this time")
		flags.Lookup("timeout").Hidden = true
	}
	work := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := fromEnvironment(flags); err != nil {
			return misuse(err)
		}
		if err := refuseUnread(flags, unread); err != nil {
			return misuse(err)
		}
		if err := refuseWritingOver(flags, args); err != nil {
			return misuse(err)
		}
		if timeout > 0 {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			cmd.SetContext(ctx)
		}
		if *output == "" {
			return work(cmd, args)
		}
		file, err := os.Create(*output)
		if err != nil {
			return misuse(fmt.Errorf("--output-file: %w", err))
		}
		cmd.SetOut(file)
		err = work(cmd, args)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		return err
	}
}

// fromEnvironment takes flags that are not given from the environment, as cosign does:
// COSIGN_REGISTRY_PASSWORD is --registry-password. Only names of several words are looked
// for, and COSIGN_PASSWORD and COSIGN_REPOSITORY are no flags'. What makes a verification
// prove less is refused: it is said on the command line, where it is seen.
func fromEnvironment(flags *pflag.FlagSet) error {
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		variable := "COSIGN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(variable)
		if f.Changed || value == "" || !strings.Contains(f.Name, "-") {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			faults = append(faults, fmt.Errorf("%s: not a value of --%s", variable, f.Name))
		} else if loosens(flags, f) {
			faults = append(faults, fmt.Errorf("%s would have less proven: give --%s=%s on the command line if that is meant", variable, f.Name, f.Value))
		}
	})
	return errors.Join(faults...)
}

// loosens reports whether a flag makes a verification prove less than without it.
func loosens(flags *pflag.FlagSet, f *pflag.Flag) bool {
	switch f.Name {
	case "check-claims":
		return f.Value.String() == "false"
	case "insecure-ignore-tlog", "private-infrastructure": // no log is asked for with a key
		return f.Value.String() == "true" && !flags.Changed("key")
	}
	return false
}

// formerNames returns what cosign called its flags once, and still takes. In its first
// version a key in a KMS had a flag of its own, which makesKeys leaves to the command
// that makes one.
func formerNames(makesKeys bool) func(*pflag.FlagSet, string) pflag.NormalizedName {
	former := map[string]string{
		"cert": "certificate", "cert-chain": "certificate-chain", "cert-identity": "certificate-identity",
		"cert-oidc-issuer": "certificate-oidc-issuer", "output-cert": "output-certificate",
	}
	if !makesKeys {
		former["kms"] = "key"
	}
	return func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if today, ok := former[name]; ok {
			name = today
		}
		return pflag.NormalizedName(name)
	}
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

// refuseUnread returns an error for what cosign would do and is not done here.
func refuseUnread(flags *pflag.FlagSet, unread []cosignFlag) error {
	for _, f := range unread {
		if f.why != "" && flags.Lookup(f.name).Value.String() != f.harmless {
			return f.refusal()
		}
	}
	return nil
}

func (f cosignFlag) refusal() error {
	return errors.New(f.asked() + " is not supported: " + f.why)
}

// asked is the flag as it asks for something.
func (f cosignFlag) asked() string {
	if f.kind == boolFlag && f.harmless == "true" {
		return "--" + f.name + "=false"
	}
	return "--" + f.name
}
