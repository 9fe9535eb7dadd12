package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

func newPublicKeyCommand() *cobra.Command {
	var key, outfile string
	cmd := &cobra.Command{
		Use:   "public-key --key KEY",
		Short: "Print the public key of a private key",
		Example: `  vidimus public-key --key cosign.key > cosign.pub
  vidimus public-key --key env://COSIGN_PRIVATE_KEY --outfile cosign.pub`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			private, err := loadPrivateKey(cmd.Context(), newPrompter(cmd), key)
			if err != nil {
				return err
			}
			public, err := signer.EncodePublicKey(private.Public())
			if err != nil {
				return err
			}
			if outfile == "" {
				_, err := cmd.OutOrStdout().Write(public)
				return err
			}
			if err := writePublicKey(outfile, public); err != nil {
				return misuse(err)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "Public key written to", outfile)
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key: file, or env://NAME")
	cmd.Flags().StringVar(&outfile, "outfile", "", "write the public key to this file instead of standard output")
	return cmd
}

// writePublicKey replaces a public key that is there, which costs nothing, and
// nothing else: --outfile cosign.key would destroy the private key.
func writePublicKey(path string, public []byte) error {
	existing, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	exists := err == nil
	if exists && len(existing) > 0 && !bytes.HasPrefix(existing, []byte("-----BEGIN PUBLIC KEY-----")) {
		return fmt.Errorf("%s exists already and is not a public key", path)
	}
	return signer.WriteFiles(exists, signer.OutputFile{Path: path, Data: public, Mode: 0o644})
}
