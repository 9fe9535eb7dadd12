package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

func newImportKeyPairCommand() *cobra.Command {
	var key, prefix string
	var yes bool
	cmd := &cobra.Command{
		Use:   "import-key-pair --key FILE",
		Short: "Encrypt a private key of openssl's for cosign: import-cosign.key, import-cosign.pub",
		Long: `Read a private key in PEM (RSA, EC or PKCS#8, not encrypted) and write it as cosign
does: encrypted with a password, which is asked for as generate-key-pair does, and
its public key beside it.`,
		Example: `  vidimus import-key-pair --key release.pem --output-key-prefix release`,
		Args:    takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" {
				return misuse(errors.New("say which private key with --key"))
			}
			file, err := signer.ReadKeyFile(key)
			if err != nil {
				return misuse(fmt.Errorf("--key: %w", err))
			}
			imported, err := signer.ImportPrivateKey(file.Data)
			clear(file.Data)
			if err != nil {
				return misuse(fmt.Errorf("%s: %w", key, err))
			}
			p := newPrompter(cmd)
			overwrite := yes
			if !yes {
				if overwrite, err = mayOverwrite(cmd.Context(), p, prefix+".key", prefix+".pub"); err != nil {
					return err
				}
			}
			return writeKeyPair(cmd.Context(), p, imported, overwrite, prefix+".key", prefix+".pub")
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&key, "key", "k", "", "private key `FILE` to import")
	flags.StringVarP(&prefix, "output-key-prefix", "o", "import-cosign", "write PREFIX.key and PREFIX.pub")
	flags.BoolVarP(&yes, "yes", "y", false, "overwrite files that exist")
	registerCosignFlags(cmd, "import-key-pair")
	return cmd
}
