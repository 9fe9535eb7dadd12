package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

// formatFlag says in which forms a signature is stored.
type formatFlag struct{ format string }

func (f *formatFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", "both", "how to store it: tag, bundle, or both")
	cmd.Flags().Bool("new-bundle-format", true, "")
	cmd.Flags().Lookup("new-bundle-format").Hidden = true
}

// formats are those that are asked for: by cosign's flag, too, which knows the two as
// new and old.
func (f *formatFlag) formats(cmd *cobra.Command, by signedBy) ([]signer.Format, error) {
	format, asked := f.format, cmd.Flags().Changed("format")
	if given := cmd.Flags().Lookup("new-bundle-format"); given.Changed && !asked {
		format, asked = "bundle", true
		if given.Value.String() == "false" {
			format = "tag"
		}
	}
	var formats []signer.Format
	switch format {
	case "tag":
		formats = []signer.Format{signer.FormatTag}
	case "bundle":
		return []signer.Format{signer.FormatBundle}, nil
	case "both":
		formats = []signer.Format{signer.FormatTag, signer.FormatBundle}
	default:
		return nil, fmt.Errorf("--format %q: want tag, bundle or both", f.format)
	}
	if !by.keyless() || by.services.Promises() || len(by.services.Stampers) > 0 {
		return formats, nil
	}
	if asked {
		return nil, errors.New("a keyless signature under a tag needs a timestamp or a log of version 1, and neither is given: use --format bundle")
	}
	noteNoTag(cmd.ErrOrStderr())
	return []signer.Format{signer.FormatBundle}, nil
}

func noteNoTag(w io.Writer) {
	fmt.Fprintln(w, "note: stored as a bundle alone, for a signature under a tag has no room for the proof of this log")
}
