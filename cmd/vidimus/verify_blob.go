package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

type verifyBlobFlags struct {
	signerFlags
	signature   string
	certificate string
	bundle      string
	timeout     time.Duration
}

func newVerifyBlobCommand() *cobra.Command { return new(verifyBlobFlags).command() }

func (f *verifyBlobFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify-blob (--key KEY | --certificate-identity WHO --certificate-oidc-issuer URL) (--bundle FILE | --signature FILE) FILE",
		Short: "Verify the signature of a file",
		Long: `Verify the signature of a file (- is standard input) by a key, or by whom a
certificate names, as cosign does. The signature is in a file or given as base64, or in
a bundle, new or old.

No key and no certificate in a bundle is ever trusted: the key is the one that is named,
and a certificate is proven as verify proves it, by --trusted-root, a log entry and a
timestamp. What a bundle says of a log is held against the file, the signature and the
signer, and against the log's key where a trusted root is given; no log is asked.

Exit code 0: it holds; 1: it does not; 2: misuse; 3: nobody can tell.`,
		Example: `  vidimus verify-blob --key cosign.pub --bundle release.tar.sigstore.json release.tar
  vidimus verify-blob --certificate-identity dev@acme.example --certificate-oidc-issuer https://accounts.example \
    --bundle release.tar.sigstore.json release.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	f.signerFlags.register(flags)
	flags.StringVar(&f.signature, "signature", "", "the signature: `FILE`, or itself in base64")
	flags.StringVar(&f.certificate, "certificate", "", "`FILE` with the signer's certificate, where no bundle has it")
	flags.StringVar(&f.bundle, "bundle", "", "`FILE` with the signature and what proves it")
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	registerCosignFlags(cmd, "verify-blob")
	return cmd
}

func (f *verifyBlobFlags) run(cmd *cobra.Command, path string) error {
	if f.bundle == "" && f.signature == "" {
		return misuse(errors.New("say which signature with --bundle or --signature"))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	by, err := f.wanted(ctx)
	if err != nil {
		return flagFault(err)
	}
	switch certified := len(by.Keys) == 0; {
	case !certified && f.certificate != "":
		return misuse(errors.New("--certificate is of somebody whom --certificate-identity names, and --key is not"))
	case certified && f.bundle == "" && f.certificate == "":
		return misuse(errors.New("say which certificate with --certificate, or name a bundle that has one"))
	}
	message, err := readBlob(cmd, path)
	if err != nil {
		return misuse(err)
	}
	if err := f.verify(by, message); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "Verified OK")
	return err
}

// verify returns nil when all that was given holds for message.
func (f *verifyBlobFlags) verify(by wantedSigner, message []byte) error {
	var certificate []byte
	if f.certificate != "" {
		data, err := readBounded(f.certificate)
		if err != nil {
			return misuse(fmt.Errorf("--certificate: %w", err))
		}
		certificate = certificateText(data)
	}
	blob := verifier.Blob{Certificate: certificate}
	if f.bundle != "" {
		data, err := readBounded(f.bundle)
		if err != nil {
			return misuse(fmt.Errorf("--bundle: %w", err))
		}
		if blob, err = bundledSignature(by, certificate, message, data); err != nil {
			return doesNotHold(fmt.Errorf("%s: %w", f.bundle, err))
		}
	}
	if f.signature != "" {
		signature, err := readSignature(f.signature)
		if err != nil {
			return misuse(err)
		}
		if f.bundle != "" && !bytes.Equal(signature, blob.Signature) {
			return doesNotHold(fmt.Errorf("the signature in %s is not the one that --signature gives", f.bundle))
		}
		blob.Signature = signature
	}
	e := verifier.VerifyBlob(message, blob, []verifier.Authority{by.Authority}, time.Now())
	if !e.Verified() {
		return doesNotHold(fmt.Errorf("no signature by %s holds: %s", by.called, displayed(e.Detail())))
	}
	if _, timed := e.SignedAt(); blob.Entry != nil && by.Root != nil && !timed {
		return doesNotHold(fmt.Errorf("%s: its log entry does not hold: %s", f.bundle, displayed(e.Untimed())))
	}
	return nil
}

// certificateText is a certificate in PEM, which cosign writes in base64 once more.
func certificateText(data []byte) []byte {
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil {
		return data
	}
	return decoded
}

// readSignature takes a signature from a file, as bytes or in base64, or the base64
// itself, as cosign does.
func readSignature(given string) ([]byte, error) {
	data, err := readBounded(given)
	if errors.Is(err, os.ErrNotExist) {
		data = []byte(given)
	} else if err != nil {
		return nil, fmt.Errorf("--signature: %w", err)
	}
	decoded, decodeErr := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	switch {
	case decodeErr == nil && len(decoded) > 0:
		return decoded, nil
	case err != nil:
		return nil, fmt.Errorf("--signature is neither a file nor base64: %w", err)
	}
	return data, nil
}

// bundledSignature returns what is in a bundle in a file, new or old, whose every other
// part is about this message, this signature and this signer. certificate is the one that
// was given beside it, if any.
func bundledSignature(by wantedSigner, certificate, message, data []byte) (verifier.Blob, error) {
	sum := sha256.Sum256(message)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if mediaType := envelope.BundleMediaType(data); mediaType != "" {
		b, err := envelope.ParseBundle(mediaType, data)
		switch {
		case err != nil:
			return verifier.Blob{}, err
		case b.Statement != nil:
			return verifier.Blob{}, errors.New("it holds a statement, which is no signature of a file")
		case b.Digest != digest:
			return verifier.Blob{}, fmt.Errorf("it is about %s, and the file is %s", b.Digest, digest)
		case certificate != nil:
			return verifier.Blob{}, errors.New("it says itself who has signed: leave out --certificate")
		}
		return verifier.Blob{Bundle: data, MediaType: mediaType, Signature: b.Signature}, nil
	}
	b, err := envelope.ParseLocalBundle(data)
	if err != nil {
		return verifier.Blob{}, err
	}
	blob := verifier.Blob{Signature: b.Signature, Entry: b.Log}
	if certified := len(by.Keys) == 0; certified {
		// a key's bundle has the key there, which is nobody's to believe
		blob.Certificate = certificateText(b.Certificate)
		switch {
		case len(b.Certificate) == 0 && certificate == nil:
			return verifier.Blob{}, errors.New("it has no certificate: name it with --certificate")
		case len(b.Certificate) == 0:
			blob.Certificate = certificate
		case certificate != nil && !sameBlock(certificate, blob.Certificate):
			return verifier.Blob{}, errors.New("its certificate is not the one that --certificate gives")
		}
	}
	if b.Log == nil {
		return blob, nil
	}
	entry, err := envelope.ParseLogBundle(b.Log)
	if err != nil {
		return verifier.Blob{}, err
	}
	switch {
	case entry.Digest != digest:
		return verifier.Blob{}, fmt.Errorf("its log entry is about %s, and the file is %s", entry.Digest, digest)
	case !bytes.Equal(entry.Signature, b.Signature):
		return verifier.Blob{}, errors.New("its log entry is about another signature")
	case len(by.Keys) == 0 && !sameBlock(entry.Signer, blob.Certificate):
		return verifier.Blob{}, errors.New("its log entry is by another certificate")
	}
	if len(by.Keys) == 0 {
		return blob, nil
	}
	if signedBy, err := verifier.ParseKey(entry.Signer); err != nil || signedBy.ID() != by.Keys[0].ID() {
		return verifier.Blob{}, errors.New("its log entry is by another key")
	}
	return blob, nil
}

// sameBlock reports whether two PEM texts are one block each, and the same.
func sameBlock(one, other []byte) bool {
	a, restA := pem.Decode(one)
	b, restB := pem.Decode(other)
	return a != nil && b != nil && a.Type == b.Type && bytes.Equal(a.Bytes, b.Bytes) && len(bytes.TrimSpace(restA))+len(bytes.TrimSpace(restB)) == 0
}
