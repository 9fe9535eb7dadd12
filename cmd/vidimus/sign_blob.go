package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// maxBlob bounds the files that are signed and verified, which are held in memory.
const maxBlob = 1 << 30

type signBlobFlags struct {
	signedByFlags
	signature   string
	output      string
	certificate string
	bundle      string
	timestamp   string
	newBundle   bool
	b64         bool
}

func newSignBlobCommand() *cobra.Command { return new(signBlobFlags).command() }

func (f *signBlobFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sign-blob [--key KEY] FILE",
		Short: "Sign a file",
		Long: `Sign a file (- is standard input), as cosign does. Who signs is said as with vidimus
sign.

With --bundle all that verifies it goes into one file: a sigstore bundle, or, with
--new-bundle-format=false, what cosign before v3 writes. Otherwise the signature goes
to standard output, or to --output-signature, in base64 unless --b64=false.`,
		Example: `  vidimus sign-blob --key cosign.key --bundle release.tar.sigstore.json release.tar
  vidimus sign-blob --key cosign.key --output-signature release.tar.sig release.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.signedByFlags.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.signature, "output-signature", "", "write the signature to this `FILE`")
	flags.StringVar(&f.output, "output", "", "the same")
	flags.StringVar(&f.certificate, "output-certificate", "", "write the certificate of a keyless signature to this `FILE`")
	flags.StringVar(&f.bundle, "bundle", "", "write all that verifies it to this `FILE`")
	flags.StringVar(&f.timestamp, "rfc3161-timestamp", "", "write the timestamp of --timestamp-server-url to this `FILE`")
	flags.BoolVar(&f.newBundle, "new-bundle-format", true, "write a sigstore bundle, and not that of cosign before v3")
	flags.BoolVar(&f.b64, "b64", true, "write signature and certificate in base64")
	flags.Lookup("output").Hidden = true
	registerCosignFlags(cmd, "sign-blob")
	return cmd
}

func (f *signBlobFlags) run(cmd *cobra.Command, path string) error {
	if f.signature != "" && f.output != "" {
		return misuse(errors.New("--output and --output-signature are the same"))
	}
	if f.signature == "" {
		f.signature = f.output
	}
	if f.timestamp != "" && f.stamper == "" && f.signingConfig == "" {
		return misuse(errors.New("--rfc3161-timestamp: say whose timestamp with --timestamp-server-url"))
	}
	message, err := readBlob(cmd, path)
	if err != nil {
		return misuse(err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	by, err := f.open(ctx, cmd)
	if err != nil {
		return err
	}
	sealed, err := signer.Seal(ctx, by.config(), signer.Content{Message: message})
	if err != nil {
		return err
	}
	if err := f.write(cmd, by, sealed); err != nil {
		return err
	}
	return f.printVerifyCommand(cmd.ErrOrStderr(), by, path)
}

// readBlob reads a file to sign or verify, - for standard input.
func readBlob(cmd *cobra.Command, path string) ([]byte, error) {
	from := cmd.InOrStdin()
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, maxBlob+1))
	if err == nil && len(data) > maxBlob {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxBlob)
	}
	return data, err
}

// write writes what was asked for.
func (f *signBlobFlags) write(cmd *cobra.Command, by signedBy, sealed signer.Sealed) error {
	var certificate []byte
	if by.keyless() {
		certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.chain[0]})
	}
	var files []signer.OutputFile
	add := func(what, path string, data []byte) {
		files = append(files, signer.OutputFile{Path: path, Data: data, Mode: 0o644})
		fmt.Fprintf(cmd.ErrOrStderr(), "Wrote %s to file %s\n", what, path)
	}
	if f.bundle != "" {
		bundle := sealed.Bundle
		if !f.newBundle {
			var err error
			local := envelope.LocalBundle{Signature: sealed.Signature, Certificate: certificate, Log: sealed.Proof.LogBundle}
			if bundle, err = envelope.EncodeLocalBundle(local); err != nil {
				return err
			}
		}
		add("bundle", f.bundle, bundle)
	}
	if f.timestamp != "" {
		if len(sealed.Proof.Timestamps) == 0 {
			return misuse(errors.New("--rfc3161-timestamp: --signing-config names no timestamp authority"))
		}
		stamped, err := json.Marshal(struct{ SignedRFC3161Timestamp []byte }{sealed.Proof.Timestamps[0]})
		if err != nil {
			return err
		}
		add("timestamp", f.timestamp, stamped)
	}
	if f.certificate != "" && certificate != nil {
		add("certificate", f.certificate, f.encode(certificate))
	}
	if f.signature != "" {
		add("signature", f.signature, f.encode(sealed.Signature))
	}
	if err := signer.WriteFiles(true, files...); err != nil {
		return misuse(err)
	}
	if f.signature != "" || f.bundle != "" && f.newBundle {
		return nil
	}
	out := f.encode(sealed.Signature)
	if f.b64 {
		out = append(out, '\n')
	}
	_, err := cmd.OutOrStdout().Write(out)
	return err
}

func (f *signBlobFlags) encode(data []byte) []byte {
	if !f.b64 {
		return data
	}
	return []byte(base64.StdEncoding.EncodeToString(data))
}

func (f *signBlobFlags) printVerifyCommand(w io.Writer, by signedBy, path string) error {
	command := []string{"cosign", "verify-blob"}
	switch {
	case f.bundle != "":
		command = append(command, "--bundle", shellQuote(f.bundle))
	case f.signature != "":
		command = append(command, "--signature", shellQuote(f.signature))
	default:
		return nil // the signature was printed, and is in no file
	}
	return verifyCommand{command: command, by: by, flags: &f.signedByFlags, what: path}.print(w)
}
