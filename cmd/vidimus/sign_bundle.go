package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

// bundleFlag says where the sigstore bundle of a signature or an attestation is written
// besides.
type bundleFlag struct{ bundle string }

func (f *bundleFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.bundle, "bundle", "", "write the sigstore bundle, which is all that verifies it, to `FILE`")
}

// refuse returns an error where no bundle is made, or more than one.
func (f *bundleFlag) refuse(formats []signer.Format, requests int) error {
	switch {
	case f.bundle == "":
		return nil
	case requests > 1:
		return fmt.Errorf("%d signatures would be made, and --bundle is about one", requests)
	case !slices.Contains(formats, signer.FormatBundle):
		return errors.New("--bundle: a signature that is stored under a tag alone has no bundle: use --format bundle or both")
	}
	return nil
}

// write writes a bundle to the file that was asked for, if one was.
func (f *bundleFlag) write(cmd *cobra.Command, bundle []byte) error {
	if f.bundle == "" {
		return nil
	}
	if err := signer.WriteFiles(true, signer.OutputFile{Path: f.bundle, Data: bundle, Mode: 0o644}); err != nil {
		return misuse(fmt.Errorf("--bundle: %w", err))
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "Wrote bundle to file", f.bundle)
	return nil
}

// writeResult writes the bundle that is among results.
func (f *bundleFlag) writeResult(cmd *cobra.Command, results []signer.Result) error {
	for _, r := range results {
		if r.Bundle != nil {
			return f.write(cmd, r.Bundle)
		}
	}
	return nil
}

// sealStatement signs the statement of a request and attaches nothing.
func sealStatement(ctx context.Context, by signedBy, request signer.Request) (statement []byte, sealed signer.Sealed, err error) {
	if statement, err = signer.Statement(request); err != nil {
		return nil, signer.Sealed{}, err
	}
	sealed, err = signer.Seal(ctx, by.config(), signer.Content{Statement: statement})
	return statement, sealed, err
}

// sealOnly signs the statement of a request and attaches nothing: the bundle goes to
// --bundle, or else to standard output.
func (f *bundleFlag) sealOnly(ctx context.Context, cmd *cobra.Command, by signedBy, request signer.Request) error {
	_, sealed, err := sealStatement(ctx, by, request)
	if err != nil {
		return err
	}
	if f.bundle != "" {
		return f.write(cmd, sealed.Bundle)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", sealed.Bundle)
	return err
}

// writeCertificate writes who signed to --output-certificate: the certificate, or where
// there is none the public key, as cosign does.
func (f *signFlags) writeCertificate(cmd *cobra.Command, by signedBy) error {
	if f.outputCertificate == "" {
		return nil
	}
	var text []byte
	var err error
	if by.chain != nil {
		text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.chain[0]})
	} else if text, err = signer.EncodePublicKey(by.key.Public()); err != nil {
		return err
	}
	if err := signer.WriteFiles(true, signer.OutputFile{Path: f.outputCertificate, Data: text, Mode: 0o644}); err != nil {
		return misuse(fmt.Errorf("--output-certificate: %w", err))
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "Wrote certificate to file", f.outputCertificate)
	return nil
}
