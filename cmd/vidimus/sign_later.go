package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// laterFlag is a flag of cosign's sign command that is not supported yet. It
// is known, so that a script gets a sentence instead of a syntax error, and
// harmless is the value at which it asks for nothing, with which it passes.
type laterFlag struct {
	name     string
	harmless string
	boolean  bool
}

func laterSignFlags() []laterFlag {
	flags := []laterFlag{
		{name: "format", harmless: "tag"},
		{name: "registry-referrers-mode", harmless: "legacy"},
		{name: "upload", harmless: "true", boolean: true},
	}
	for _, name := range []string{
		"tlog-upload", "new-bundle-format", "use-signing-config", "sk", "issue-certificate",
		"record-creation-timestamp", "k8s-keychain", "insecure-skip-verify", "oidc-disable-ambient-providers",
	} {
		flags = append(flags, laterFlag{name: name, harmless: "false", boolean: true})
	}
	for _, name := range []string{
		"attachment", "attachment-tag-prefix", "bundle", "certificate", "certificate-chain",
		"fulcio-auth-flow", "fulcio-url", "identity-token", "oidc-client-id", "oidc-client-secret-file",
		"oidc-issuer", "oidc-provider", "oidc-redirect-url", "output-certificate", "output-payload",
		"output-signature", "payload", "registry-cacert", "registry-client-cert", "registry-client-key",
		"registry-password", "registry-server-name", "registry-token", "registry-username", "rekor-url",
		"signing-config", "slot", "timestamp-client-cacert", "timestamp-client-cert", "timestamp-client-key",
		"timestamp-server-name", "timestamp-server-url", "trusted-root",
	} {
		flags = append(flags, laterFlag{name: name})
	}
	return flags
}

func registerLaterSignFlags(cmd *cobra.Command) {
	for _, f := range laterSignFlags() {
		if f.boolean {
			cmd.Flags().Bool(f.name, f.harmless == "true", "")
		} else {
			cmd.Flags().String(f.name, f.harmless, "")
		}
		cmd.Flag(f.name).Hidden = true
	}
}

// refuseLater returns an error for what cosign would do and is not done here.
func refuseLater(cmd *cobra.Command) error {
	for _, f := range laterSignFlags() {
		if got := cmd.Flag(f.name).Value.String(); got != f.harmless {
			return fmt.Errorf("--%s is not supported yet", f.name)
		}
	}
	switch os.Getenv("TLOG") {
	case "", "0", "false":
		return nil
	}
	return errors.New("TLOG: the transparency log is not supported yet")
}
