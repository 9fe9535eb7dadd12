package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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
	key       string
	signature string
	bundle    string
	timeout   time.Duration
}

func newVerifyBlobCommand() *cobra.Command { return new(verifyBlobFlags).command() }

func (f *verifyBlobFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify-blob --key KEY (--bundle FILE | --signature FILE) FILE",
		Short: "Verify the signature of a file",
		Long: `Verify the signature of a file (- is standard input) by a key, as cosign does. The
signature is in a file or given as base64, or in a bundle, new or old.

No key and no certificate in a bundle is ever trusted: the key is the one that is
named. What a bundle says of a log is held against the file and the signature, but
the log itself is not asked.

Exit code 0: it holds; 1: it does not; 2: misuse; 3: nobody can tell.`,
		Example: `  vidimus verify-blob --key cosign.pub --bundle release.tar.sigstore.json release.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "public key: file, KMS URI, env://NAME, or the key itself in base64")
	flags.StringVar(&f.signature, "signature", "", "the signature: `FILE`, or itself in base64")
	flags.StringVar(&f.bundle, "bundle", "", "`FILE` with the signature and what proves it")
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	registerCosignFlags(cmd)
	return cmd
}

func (f *verifyBlobFlags) run(cmd *cobra.Command, path string) error {
	if err := refuseLater(cmd); err != nil {
		return misuse(err)
	}
	if f.bundle == "" && f.signature == "" {
		return misuse(errors.New("say which signature with --bundle or --signature"))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	key, err := loadPublicKey(ctx, "--key", f.key)
	if err != nil {
		return err
	}
	message, err := readBlob(cmd, path)
	if err != nil {
		return misuse(err)
	}
	if err := f.verify(key, message); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "Verified OK")
	return err
}

// verify returns nil when all that was given holds for message.
func (f *verifyBlobFlags) verify(key verifier.Key, message []byte) error {
	var signatures [][]byte
	if f.signature != "" {
		signature, err := readSignature(f.signature)
		if err != nil {
			return misuse(err)
		}
		signatures = append(signatures, signature)
	}
	if f.bundle != "" {
		data, err := readBounded(f.bundle)
		if err != nil {
			return misuse(fmt.Errorf("--bundle: %w", err))
		}
		signature, err := bundledSignature(key, message, data)
		if err != nil {
			return doesNotHold(fmt.Errorf("%s: %w", f.bundle, err))
		}
		signatures = append(signatures, signature)
	}
	for _, signature := range signatures {
		if !bytes.Equal(signature, signatures[0]) {
			return doesNotHold(fmt.Errorf("the signature in %s is not the one that --signature gives", f.bundle))
		}
		if !key.Verifies(message, signature) {
			return doesNotHold(fmt.Errorf("no signature by %s (key %s)", keyName(f.key), shortID(key.ID())))
		}
	}
	return nil
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

// bundledSignature returns the signature in a bundle in a file, new or old, whose every
// other part is about this message and this signature.
func bundledSignature(key verifier.Key, message, data []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if mediaType := envelope.BundleMediaType(data); mediaType != "" {
		b, err := envelope.ParseBundle(mediaType, data)
		switch {
		case err != nil:
			return nil, err
		case b.Statement != nil:
			return nil, errors.New("it holds a statement, which is no signature of a file")
		case b.Digest != digest:
			return nil, fmt.Errorf("it is about %s, and the file is %s", b.Digest, digest)
		}
		return b.Signature, nil
	}
	b, err := envelope.ParseLocalBundle(data)
	if err != nil {
		return nil, err
	}
	if b.Log == nil {
		return b.Signature, nil
	}
	entry, err := envelope.ParseLogBundle(b.Log)
	if err != nil {
		return nil, err
	}
	signedBy, err := verifier.ParseKey(entry.Signer)
	switch {
	case entry.Digest != digest:
		return nil, fmt.Errorf("its log entry is about %s, and the file is %s", entry.Digest, digest)
	case !bytes.Equal(entry.Signature, b.Signature):
		return nil, errors.New("its log entry is about another signature")
	case err != nil || signedBy.ID() != key.ID():
		return nil, errors.New("its log entry is by another key")
	}
	return b.Signature, nil
}
