package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/signer/kms"
)

func newPublicKeyCommand() *cobra.Command {
	var key, outfile string
	cmd := &cobra.Command{
		Use:   "public-key --key KEY",
		Short: "Print the public key of a private key",
		Example: `  vidimus public-key --key cosign.key > cosign.pub
  vidimus public-key --key hashivault://release > release.pub
  vidimus public-key --key env://COSIGN_PRIVATE_KEY --outfile cosign.pub`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			half, err := publicHalf(cmd, key)
			if err != nil {
				return err
			}
			public, err := signer.EncodePublicKey(half)
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
	cmd.Flags().StringVar(&key, "key", "", "private key: file, KMS URI, or env://NAME")
	cmd.Flags().StringVar(&outfile, "outfile", "", "write the public key to this file instead of standard output")
	registerCosignFlags(cmd, "public-key")
	return cmd
}

// publicHalf is that of a private key, for which a KMS is not asked to sign.
func publicHalf(cmd *cobra.Command, key string) (crypto.PublicKey, error) {
	if kms.IsReference(key) {
		if err := kms.Check(key); err != nil {
			return nil, misuse(fmt.Errorf("--key: %w", err))
		}
		return kms.Public(cmd.Context(), key)
	}
	private, err := loadPrivateKey(cmd.Context(), newPrompter(cmd), key)
	if err != nil {
		return nil, err
	}
	return private.Public(), nil
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
