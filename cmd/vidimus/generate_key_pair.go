package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

func newGenerateKeyPairCommand() *cobra.Command {
	var prefix, kms string
	cmd := &cobra.Command{
		Use:   "generate-key-pair",
		Short: "Make a key pair to sign with: cosign.key, cosign.pub",
		Long: `Make a key pair (ECDSA, P-256) as cosign does, for cosign to read as well.

The private key is encrypted with a password: COSIGN_PASSWORD, or one that is
asked for on the terminal, or else all of standard input, line breaks included.
Files that exist are overwritten only when a person says so on a terminal.`,
		Example: `  vidimus generate-key-pair
  COSIGN_PASSWORD=... vidimus generate-key-pair --output-key-prefix release`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("storing keys elsewhere than in files (%s) is not supported yet", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kms != "" {
				return misuse(errors.New("--kms is not supported yet"))
			}
			return generateKeyPair(cmd, newPrompter(cmd), prefix+".key", prefix+".pub")
		},
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "write PREFIX.key and PREFIX.pub")
	cmd.Flags().StringVar(&kms, "kms", "", "")
	cmd.Flag("kms").Hidden = true
	return cmd
}

func generateKeyPair(cmd *cobra.Command, p prompter, keyPath, pubPath string) error {
	overwrite, err := mayOverwrite(cmd.Context(), p, keyPath, pubPath)
	if err != nil {
		return err
	}
	key, err := signer.GenerateKey()
	if err != nil {
		return err
	}
	return writeKeyPair(cmd, p, key, overwrite, keyPath, pubPath)
}

// writeKeyPair writes a key pair under a password that is asked for.
func writeKeyPair(cmd *cobra.Command, p prompter, key crypto.Signer, overwrite bool, keyPath, pubPath string) error {
	password, err := p.password(cmd.Context(), true)
	if err != nil {
		return err
	}
	if len(password.text) == 0 {
		fmt.Fprintln(p.out, "warning: the password is empty and does not protect the private key")
	}
	private, err := signer.EncodePrivateKey(key, password.text)
	if err != nil {
		return err
	}
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		return err
	}
	// The private key first: should the second step never happen, public-key
	// makes the public key again.
	err = signer.WriteFiles(overwrite,
		signer.OutputFile{Path: keyPath, Data: private, Mode: 0o600},
		signer.OutputFile{Path: pubPath, Data: public, Mode: 0o644})
	if err != nil {
		return misuse(err)
	}
	fmt.Fprintln(p.out, "Private key written to", keyPath)
	fmt.Fprintln(p.out, "Public key written to", pubPath)
	return nil
}

// mayOverwrite reports whether the files may be replaced, false when there is
// none to replace, and an error when there is and nobody said yes.
func mayOverwrite(ctx context.Context, p prompter, paths ...string) (bool, error) {
	overwrite := false
	for _, path := range paths {
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, misuse(err)
		}
		yes, err := p.confirm(ctx, fmt.Sprintf("File %s exists already. Overwrite it?", path))
		if err != nil {
			return false, err
		}
		if !yes {
			return false, misuse(fmt.Errorf("%s exists already and was left as it is", path))
		}
		overwrite = true
	}
	return overwrite, nil
}
