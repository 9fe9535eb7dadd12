package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/signer/sigstore"
)

// The public instances of Sigstore, which are asked only when a flag asks for what
// they do.
const (
	publicFulcio = "https://fulcio.sigstore.dev"
	publicRekor  = "https://rekor.sigstore.dev"
)

// signedByFlags say who signs, and who is to prove it, with the names and meanings that
// they have in cosign.
type signedByFlags struct {
	key string
	identityFlags
	fulcio    string
	logUpload bool
	rekor     string
	stamperFlags
	signingConfig string
	trustedRoot   string
	timeout       time.Duration
}

func (f *signedByFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "private key: file, KMS URI, or env://NAME")
	f.identityFlags.register(cmd)
	flags.StringVar(&f.fulcio, "fulcio-url", publicFulcio, "certificate authority for keyless signatures")
	flags.BoolVar(&f.logUpload, "tlog-upload", false, "enter the signature in a transparency log (TLOG=1)")
	flags.StringVar(&f.rekor, "rekor-url", cmp.Or(os.Getenv("REKOR_SERVER"), publicRekor), "the transparency log (REKOR_SERVER)")
	f.stamperFlags.register(cmd)
	flags.StringVar(&f.signingConfig, "signing-config", "", "take these services from a signing_config.json `FILE`")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "check what they gave against a trusted_root.json `FILE`")
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	flags.BoolP("yes", "y", false, "accepted for cosign's sake; nothing is asked")
}

// signedBy is who signs, and who proves it.
type signedBy struct {
	key      crypto.Signer
	chain    [][]byte // keyless: the certificate first
	services sigstore.Services
}

// open finds out who signs. Without a key it has one certified, which lasts for some
// minutes.
func (f *signedByFlags) open(ctx context.Context, cmd *cobra.Command) (signedBy, error) {
	services, err := f.services(cmd)
	if err != nil {
		return signedBy{}, misuse(err)
	}
	by := signedBy{services: services}
	if err := f.checkIdentity(f.key, cmd.Flags().Changed("identity-token")); err != nil {
		return signedBy{}, misuse(err)
	}
	if f.key != "" {
		by.key, err = loadPrivateKey(ctx, newPrompter(cmd), f.key)
		return by, err
	}
	if len(services.Logs)+len(services.Stampers) == 0 {
		return signedBy{}, misuse(errors.New("say which private key with --key. Without one (keyless) a signature is worth nothing unless it is proven when it was made, " +
			"for its certificate lasts ten minutes: add --tlog-upload, --timestamp-server-url or --signing-config"))
	}
	if services.Authority == "" {
		return signedBy{}, misuse(errors.New("--signing-config names no certificate authority, and a keyless signature needs one"))
	}
	if len(services.Logs) > 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: the identity that signs, and the digest that is signed, will stand in a transparency log for ever")
	}
	token, err := f.token(ctx, cmd, cmp.Or(services.Issuer, f.issuer))
	if err != nil {
		return signedBy{}, err
	}
	if by.key, err = signer.GenerateKey(); err != nil {
		return signedBy{}, err
	}
	by.chain, err = services.Certify(ctx, by.key, token)
	if errors.Is(err, sigstore.ErrToken) {
		err = misuse(err)
	}
	return by, err
}

// services are those that the flags name.
func (f *signedByFlags) services(cmd *cobra.Command) (sigstore.Services, error) {
	services, err := f.namedServices(cmd)
	if err != nil {
		return sigstore.Services{}, err
	}
	if services.Stamping, err = f.transport(); err != nil {
		return sigstore.Services{}, err
	}
	if f.trustedRoot != "" {
		data, err := readBounded(f.trustedRoot)
		if err != nil {
			return sigstore.Services{}, fmt.Errorf("--trusted-root: %w", err)
		}
		if services.Trusted, err = sigstore.ParseTrustedRoot(data); err != nil {
			return sigstore.Services{}, fmt.Errorf("--trusted-root %s: %w", f.trustedRoot, err)
		}
	}
	return services, services.Check()
}

func (f *signedByFlags) namedServices(cmd *cobra.Command) (sigstore.Services, error) {
	flags := cmd.Flags()
	log := f.logUpload
	if !flags.Changed("tlog-upload") {
		log = asksForLog(os.Getenv("TLOG"))
	}
	if f.signingConfig == "" {
		services := sigstore.Services{Authority: f.fulcio}
		if log {
			services.Logs = []sigstore.Log{{URL: f.rekor, Version: 1}}
		}
		if f.stamper != "" {
			services.Stampers = []string{f.stamper}
		}
		return services, nil
	}
	for _, name := range []string{"fulcio-url", "rekor-url", "timestamp-server-url", "oidc-issuer"} {
		if flags.Changed(name) {
			return sigstore.Services{}, fmt.Errorf("--signing-config and --%s: one of them names the services", name)
		}
	}
	data, err := readBounded(f.signingConfig)
	if err != nil {
		return sigstore.Services{}, fmt.Errorf("--signing-config: %w", err)
	}
	services, err := sigstore.ParseSigningConfig(data, time.Now())
	if err != nil {
		return sigstore.Services{}, fmt.Errorf("--signing-config %s: %w", f.signingConfig, err)
	}
	if flags.Changed("tlog-upload") && !log {
		services.Logs = nil
	}
	return services, nil
}

// asksForLog reads TLOG as the first cosign did, in which every value but these asked.
func asksForLog(value string) bool {
	switch value {
	case "", "0", "false":
		return false
	}
	return true
}

// maxFlagFile bounds the files that flags name.
const maxFlagFile = 4 << 20

// readBounded reads a file that a flag names.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFlagFile+1))
	if err == nil && len(data) > maxFlagFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFlagFile)
	}
	return data, err
}

// config is a signer's, with who signs and proves.
func (by signedBy) config() signer.Config {
	config := signer.Config{Key: by.key, Chain: by.chain}
	if by.proven() {
		config.Prover = by.services
	}
	return config
}

func (by signedBy) proven() bool  { return len(by.services.Logs)+len(by.services.Stampers) > 0 }
func (by signedBy) keyless() bool { return by.chain != nil }
