package main

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vidimus/signer"
	"vidimus/verifier"
)

// report says what became of each signature. what is what it is: signed, attested.
func report(w io.Writer, registry *registryFlags, what string, results []signer.Result) {
	for _, r := range results {
		done := what
		if r.Kept {
			done = "was " + what + " by this key already"
		}
		where := r.Repository + ":" + registry.tagged(r.Tag)
		if r.Format == signer.FormatBundle {
			where = r.Repository + "@" + r.Digest.String()
		}
		fmt.Fprintf(w, "%s %s: %s\n", r.Subject, done, where)
		if r.Format == signer.FormatTag && r.Signatures > verifier.MaxSignatures {
			fmt.Fprintf(w, "warning: %s has %d signatures, and at most %d are tried when it is verified\n",
				r.Tag, r.Signatures, verifier.MaxSignatures)
		}
	}
}

// verifyCommand is the command of cosign, v2 and v3, that verifies what was signed.
type verifyCommand struct {
	command     []string // "cosign", "verify" and flags of its own
	by          signedBy
	flags       *signedByFlags
	registry    *registryFlags // nil where there is none
	annotations map[string]string
	what        string // that is verified
}

// print prints it, and before it what it takes.
func (c verifyCommand) print(w io.Writer) error {
	var words []string
	if elsewhere := os.Getenv("COSIGN_REPOSITORY"); elsewhere != "" && c.registry != nil {
		words = append(words, "COSIGN_REPOSITORY="+shellQuote(elsewhere))
	}
	words = append(words, c.command...)
	var text strings.Builder
	text.WriteString("Verify it with:\n")
	signer, err := c.signer(&text)
	if err != nil {
		return err
	}
	words = append(words, signer...)
	words = append(words, c.proof()...)
	for _, key := range slices.Sorted(maps.Keys(c.annotations)) {
		words = append(words, "-a", shellQuote(key+"="+c.annotations[key]))
	}
	if c.registry != nil {
		words = append(words, c.registry.words()...)
	}
	words = append(words, shellQuote(c.what))
	fmt.Fprintf(&text, "  %s\n", strings.Join(words, " "))
	_, err = io.WriteString(w, text.String())
	return err
}

// signer are the words that say who must have signed.
func (c verifyCommand) signer(text *strings.Builder) ([]string, error) {
	if c.by.keyless() {
		leaf, err := x509.ParseCertificate(c.by.chain[0])
		if err != nil {
			return nil, err
		}
		identity, issuer := certifiedIdentity(leaf)
		words := []string{"--certificate-identity", shellQuote(identity), "--certificate-oidc-issuer", shellQuote(issuer)}
		if !hasExtension(leaf, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}) {
			words = append(words, "--insecure-ignore-sct")
		}
		return words, nil
	}
	public, err := signer.EncodePublicKey(c.by.key.Public())
	if err != nil {
		return nil, err
	}
	file, there := publicKeyFile(c.flags.key, public)
	if !there {
		fmt.Fprintf(text, "  vidimus public-key --key %s --outfile %s\n", shellQuote(c.flags.key), shellQuote(file))
	}
	return []string{"--key", shellQuote(file)}, nil
}

// proof are the words that say which proof there is: cosign v2 and v3 ask for the
// transparency log unless told not to.
func (c verifyCommand) proof() []string {
	var words []string
	if len(c.by.services.Logs) == 0 {
		words = append(words, "--insecure-ignore-tlog=true")
	}
	if len(c.by.services.Stampers) > 0 {
		words = append(words, "--use-signed-timestamps")
	}
	if c.by.proven() && c.flags.trustedRoot != "" {
		words = append(words, "--trusted-root", shellQuote(c.flags.trustedRoot))
	}
	return words
}

// certifiedIdentity returns who a certificate of Fulcio's is of, and who says so.
// Source: fulcio docs/oid-info.md.
func certifiedIdentity(leaf *x509.Certificate) (identity, issuer string) {
	switch {
	case len(leaf.URIs) > 0:
		identity = leaf.URIs[0].String()
	case len(leaf.EmailAddresses) > 0:
		identity = leaf.EmailAddresses[0]
	}
	for _, extension := range leaf.Extensions {
		switch {
		case extension.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}):
			_, _ = asn1.Unmarshal(extension.Value, &issuer) // what cannot be read is not shown
		case issuer == "" && extension.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}):
			issuer = string(extension.Value)
		}
	}
	return identity, issuer
}

func hasExtension(certificate *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, extension := range certificate.Extensions {
		if extension.Id.Equal(id) {
			return true
		}
	}
	return false
}

// publicKeyFile returns the file that holds the public key beside the private
// one, or a name for it where there is none, or another key's.
func publicKeyFile(key string, public []byte) (file string, there bool) {
	base := "cosign"
	if !strings.Contains(key, "://") {
		base = strings.TrimSuffix(key, filepath.Ext(key))
	}
	existing, err := os.ReadFile(base + ".pub")
	switch {
	case err == nil && string(existing) == string(public):
		return base + ".pub", true
	case err == nil:
		return base + ".public.pem", false
	}
	return base + ".pub", false
}
