package main

import (
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// cosignCommands are those that are cosign's.
func cosignCommands() []string {
	return []string{
		"sign", "verify", "verify-attestation", "attest", "sign-blob", "verify-blob", "generate", "triangulate",
		"attach", "upload", "download", "copy", "save", "load", "tree", "clean",
		"generate-key-pair", "import-key-pair", "public-key",
	}
}

// knowGlobals makes the commands that are cosign's know the flags that all of cosign's
// have.
func knowGlobals(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if slices.Contains(cosignCommands(), cmd.Name()) {
			registerGlobals(cmd)
			for _, below := range cmd.Commands() {
				registerGlobals(below)
			}
		}
	}
}

func registerGlobals(cmd *cobra.Command) {
	flags := cmd.Flags()
	// There is no log to make longer, and what waits for nobody needs no bound.
	if flags.Lookup("verbose") == nil {
		flags.BoolP("verbose", "d", false, "")
		flags.Lookup("verbose").Hidden = true
	}
	if flags.Lookup("timeout") == nil {
		flags.DurationP("timeout", "t", 3*time.Minute, "")
		flags.Lookup("timeout").Hidden = true
	}
	var file string
	flags.StringVar(&file, "output-file", "", "")
	flags.Lookup("output-file").Hidden = true
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if file != "" {
			return misuse(errors.New("--output-file is not supported yet: what is said goes to standard error"))
		}
		return nil
	}
}
