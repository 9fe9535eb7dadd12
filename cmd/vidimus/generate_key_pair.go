package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/signer/kms"
)

func newGenerateKeyPairCommand() *cobra.Command {
	var prefix, service string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "generate-key-pair",
		Short: "Make a key pair to sign with: cosign.key, cosign.pub, or a key in a KMS",
		Long: `Make a key pair (ECDSA, P-256) as cosign does, for cosign to read as well.

The private key is encrypted with a password: COSIGN_PASSWORD, or one that is
asked for on the terminal, or else all of standard input, line breaks included.
Files that exist are overwritten only when a person says so on a terminal.

With --kms the key is made in a key management service, which keeps the private half,
and only the public one is written. A key that is there already is kept, and its public
half written. AWS wants an alias (awskms:///alias/NAME).`,
		Example: `  vidimus generate-key-pair
  COSIGN_PASSWORD=... vidimus generate-key-pair --output-key-prefix release
  vidimus generate-key-pair --kms awskms:///alias/release --output-key-prefix release`,
		Args: noKeyStore,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if service != "" {
				return generateInKMS(ctx, newPrompter(cmd), service, prefix+".pub")
			}
			return generateKeyPair(ctx, newPrompter(cmd), prefix+".key", prefix+".pub")
		},
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "write PREFIX.key and PREFIX.pub")
	cmd.Flags().StringVar(&service, "kms", "", "make the key in a KMS, under this `URI`")
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	registerCosignFlags(cmd, "generate-key-pair")
	return cmd
}

// noKeyStore refuses the places where cosign puts keys besides files.
func noKeyStore(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	scheme, _, ok := strings.Cut(args[0], "://")
	switch {
	case !ok:
		return fmt.Errorf("generate-key-pair takes no arguments, and %q is one", args[0])
	case scheme == "k8s":
		return errors.New("keys are not stored in Kubernetes from here: write files, and make a secret of them with kubectl create secret generic")
	case scheme == "github", scheme == "gitlab":
		return fmt.Errorf("keys are not stored at %s from here: write files, and make a CI variable of them with its own tool", scheme)
	}
	return fmt.Errorf("%s: a key is made in files, or with --kms in a KMS", args[0])
}

// generateInKMS makes a key in a KMS. Whether its public half may be written is asked
// before.
func generateInKMS(ctx context.Context, p prompter, service, path string) error {
	if err := kms.Check(service); err != nil {
		return misuse(fmt.Errorf("--kms: %w", err))
	}
	overwrite, err := mayOverwrite(ctx, p, path)
	if err != nil {
		return err
	}
	created, err := kms.Create(ctx, service)
	if err != nil {
		return fmt.Errorf("--kms: %w", err)
	}
	public, err := signer.EncodePublicKey(created)
	if err != nil {
		return err
	}
	if err := signer.WriteFiles(overwrite, signer.OutputFile{Path: path, Data: public, Mode: 0o644}); err != nil {
		return misuse(fmt.Errorf("the key is made, and its public half is not written (vidimus public-key --key %s prints it): %w", service, err))
	}
	fmt.Fprintln(p.out, "Public key written to", path)
	return nil
}

func generateKeyPair(ctx context.Context, p prompter, keyPath, pubPath string) error {
	overwrite, err := mayOverwrite(ctx, p, keyPath, pubPath)
	if err != nil {
		return err
	}
	key, err := signer.GenerateKey()
	if err != nil {
		return err
	}
	return writeKeyPair(ctx, p, key, overwrite, keyPath, pubPath)
}

// writeKeyPair writes a key pair under a password that is asked for.
func writeKeyPair(ctx context.Context, p prompter, key crypto.Signer, overwrite bool, keyPath, pubPath string) error {
	password, err := p.password(ctx, true)
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
