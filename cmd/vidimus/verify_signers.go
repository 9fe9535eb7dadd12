package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/spf13/pflag"

	"vidimus/verifier"
)

// signerFlags say whose signature is wanted: a key's, or that of somebody with a
// certificate, in the words of cosign verify.
type signerFlags struct {
	key                           string
	identity, identityExpression  string
	issuer, issuerExpression      string
	root, roots, others, caChains string
	ignoreLog, private            bool
	flags                         *pflag.FlagSet
}

func (f *signerFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVar(&f.key, "key", "", "public key: file, env://NAME, or base64 body")
	flags.StringVar(&f.identity, "certificate-identity", "", "subject of the signer's certificate, exactly")
	flags.StringVar(&f.identityExpression, "certificate-identity-regexp", "", "the same as a regular expression over the whole of it")
	flags.StringVar(&f.issuer, "certificate-oidc-issuer", "", "who vouched for the subject, exactly")
	flags.StringVar(&f.issuerExpression, "certificate-oidc-issuer-regexp", "", "the same as a regular expression over the whole of it")
	flags.StringVar(&f.root, "trusted-root", "", "trusted_root.json that proves certificates (default that of Sigstore's public instance)")
	flags.StringVar(&f.roots, "ca-roots", "", "PEM certificates of a private PKI's authorities, in place of a trusted root")
	flags.StringVar(&f.others, "ca-intermediates", "", "PEM certificates between those and the signer's")
	flags.StringVar(&f.caChains, "certificate-chain", "", "PEM certificates of both, in one file")
	flags.BoolVar(&f.private, "private-infrastructure", false, "the same as --insecure-ignore-tlog")
	flags.Lookup("private-infrastructure").Hidden = true
	flags.BoolVar(&f.ignoreLog, "insecure-ignore-tlog", true, "no log entry is needed: with a key as ever, with a certificate (a timestamp suffices) only when this is given")
}

// wantedSigner is whose signature is wanted, and what that is called.
type wantedSigner struct {
	verifier.Authority
	called string // for people: the file of a key, or an identity
}

// wanted reads the flags.
func (f *signerFlags) wanted(ctx context.Context) (wantedSigner, error) {
	certified := f.identity != "" || f.identityExpression != "" || f.issuer != "" || f.issuerExpression != ""
	switch {
	case f.key != "" && certified:
		return wantedSigner{}, errors.New("--key and the flags about certificates are about two signers: name one")
	case certified:
		return f.wantedIdentity()
	case f.key == "":
		return wantedSigner{}, errors.New("say which key with --key, or who with --certificate-identity and --certificate-oidc-issuer")
	case f.roots+f.others+f.caChains != "":
		return wantedSigner{}, errors.New("--ca-roots, --ca-intermediates and --certificate-chain are about certificates: name whose with --certificate-identity")
	case !f.ignoreLog:
		return wantedSigner{}, errors.New("--insecure-ignore-tlog=false is not supported with --key: a key's signature is asked for no log entry (a certificate's is)")
	}
	key, err := loadPublicKey(ctx, "--key", f.key)
	if err != nil {
		return wantedSigner{}, err
	}
	w := wantedSigner{verifier.Authority{Name: keyName(f.key), Keys: []verifier.Key{key}}, fmt.Sprintf("%s (key %s)", keyName(f.key), shortID(key.ID()))}
	if f.root != "" {
		w.Root, err = readTrustedRoot(f.root)
	}
	return w, err
}

// wantedIdentity reads the flags about certificates.
func (f *signerFlags) wantedIdentity() (wantedSigner, error) {
	private := f.roots != "" || f.caChains != ""
	subject, err := either("certificate-identity", f.identity, f.identityExpression)
	if err != nil {
		return wantedSigner{}, err
	}
	issuer := ""
	if f.issuer+f.issuerExpression != "" || !private {
		if issuer, err = either("certificate-oidc-issuer", f.issuer, f.issuerExpression); err != nil {
			return wantedSigner{}, err
		}
	}
	id, err := verifier.ParseIdentityRegexp(issuer, subject)
	if err != nil {
		return wantedSigner{}, err
	}
	a := verifier.Authority{Name: "--certificate-identity", Identities: []verifier.Identity{id}, PrivatePKI: private}
	a.Unlogged = f.flags.Changed("insecure-ignore-tlog") && f.ignoreLog || f.private
	if a.Root, err = f.proof(private); err != nil {
		return wantedSigner{}, err
	}
	called := f.identity + f.identityExpression
	if by := f.issuer + f.issuerExpression; by != "" {
		called += " by " + by
	}
	return wantedSigner{a, called}, nil
}

// either returns the regular expression of a flag that has two forms.
func either(name, exact, expression string) (string, error) {
	switch {
	case exact != "" && expression != "":
		return "", fmt.Errorf("--%[1]s and --%[1]s-regexp say the same: give one", name)
	case exact != "":
		return regexp.QuoteMeta(exact), nil
	case expression != "":
		return expression, nil
	}
	return "", fmt.Errorf("a certificate needs --%[1]s or --%[1]s-regexp, too", name)
}

// proof is the trust root that the flags name.
func (f *signerFlags) proof(private bool) (*verifier.Root, error) {
	switch {
	case !private && f.others != "":
		return nil, errors.New("--ca-intermediates lead to --ca-roots: name these, too")
	case !private && f.root == "":
		if variable := otherRoot(); variable != "" {
			return nil, fmt.Errorf("%s names what to trust for cosign, and is not read: make one file of it with cosign trusted-root create, and name that with --trusted-root", variable)
		}
		return verifier.ParseRoot(verifier.PublicRoot())
	case !private:
		return readTrustedRoot(f.root)
	case f.root != "":
		return nil, errors.New("--trusted-root and the certificates of a private PKI are two ways to prove one thing: give one")
	case f.roots != "" && f.caChains != "":
		return nil, errors.New("--certificate-chain and --ca-roots say the same: give one")
	}
	var all bytes.Buffer
	for _, name := range []string{f.roots, f.others, f.caChains} {
		if name == "" {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all.Write(data)
		all.WriteByte('\n')
	}
	return verifier.ParseCAs(all.Bytes())
}

// otherRoot is a variable by which cosign is told to trust another root than the public
// one: who has set it does not mean that. Empty for none.
func otherRoot() string {
	for _, variable := range []string{
		"SIGSTORE_ROOT_FILE", "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", "SIGSTORE_REKOR_PUBLIC_KEY", "SIGSTORE_TSA_CERTIFICATE_FILE",
		"TUF_MIRROR", "TUF_ROOT_JSON",
	} {
		if os.Getenv(variable) != "" {
			return variable
		}
	}
	return ""
}

func readTrustedRoot(name string) (*verifier.Root, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root: %w", err)
	}
	root, err := verifier.ParseRoot(data)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root %s: %w", name, err)
	}
	return root, nil
}
