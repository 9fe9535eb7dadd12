package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/signer/kms"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

type verifyFlags struct {
	judgingFlags
	annotations []string
	checkClaims bool
}

func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify --key KEY IMAGE... | verify --certificate-identity WHO --certificate-oidc-issuer URL IMAGE...",
		Short: "Check that an image is signed by a key or an identity",
		Long: `Check the signatures of images with one public key, or by whom a certificate names,
as cosign verify does. The payloads that hold are printed as JSON. The name that a
signature claims is not compared, as it is not by cosign; a policy does that
(vidimus explain).

KEY is a file, env://NAME, or the bare base64 body of a public key. Signatures
are looked for beside the image, or in COSIGN_REPOSITORY.

What proves a certificate is --trusted-root, or the root of Sigstore's public
instance that is built in. It must be in a log where the root has any, unless
--insecure-ignore-tlog says that a timestamp suffices. With --ca-roots or
--certificate-chain it is of a private PKI: the whole chain must be valid now.
Regular expressions must fit the whole text, which cosign does not ask for.

With --check-claims=false any payload counts that the key signed and that is attached to
the image, whatever it says, even of another image: that proves nothing about the image.

No log is asked over the network. Other flags of cosign verify pass where they ask
for nothing more, as --offline does, and are refused by name where they do.

Exit code 0: every image is signed so; 1: one is not, or does not exist;
2: misuse; 3: could not tell.`,
		Example: `  vidimus verify --key cosign.pub ghcr.io/acme/web:v1
  vidimus verify --key env://COSIGN_PUBLIC_KEY -a env=prod ghcr.io/acme/web@sha256:...
  vidimus verify --certificate-oidc-issuer https://token.actions.githubusercontent.com \
    --certificate-identity https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1 ghcr.io/acme/web:v1`,
		Args: takesImages,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	cmd.Flags().StringSliceVarP(&f.annotations, "annotations", "a", nil, "key=value that must be signed")
	cmd.Flags().BoolVar(&f.checkClaims, "check-claims", true, "check what the payloads say; with =false only that the key signed them")
	f.register(cmd, "json or text")
	return cmd
}

func (f *verifyFlags) run(cmd *cobra.Command, images []string) error {
	if err := f.refuse(cmd); err != nil {
		return err
	}
	by, err := f.wanted(cmd.Context())
	if err != nil {
		return flagFault(err)
	}
	annotations, err := parseAnnotations(f.annotations)
	if err != nil {
		return misuse(err)
	}
	if err := f.refuseUnclaimed(by, annotations); err != nil {
		return misuse(err)
	}
	if !f.checkClaims {
		judge := func(ctx context.Context, reference name.Reference) ([]json.RawMessage, error) {
			return f.verifyUnclaimed(ctx, reference, by)
		}
		return judgeEach(cmd, &f.judgingFlags, images, judge, func(image string, payloads []json.RawMessage) error {
			return printUnclaimed(cmd, f.output, image, payloads)
		})
	}
	judge := func(ctx context.Context, reference name.Reference) (policy.Decision, error) {
		return f.verify(ctx, reference, by, annotations)
	}
	return judgeEach(cmd, &f.judgingFlags, images, judge, func(image string, d policy.Decision) error {
		return printVerified(cmd, f.output, image, d, annotations, len(by.Keys) == 0)
	})
}

// verify returns the decision that allows what reference names.
func (f *verifyFlags) verify(ctx context.Context, reference name.Reference, by wantedSigner, annotations map[string]string) (policy.Decision, error) {
	registry, digest, free, err := f.find(ctx, reference)
	if err != nil {
		return policy.Decision{}, err
	}
	defer free()
	evaluator, err := signerEvaluator(by.Authority, annotations)
	if err != nil {
		return policy.Decision{}, err
	}
	d, err := evaluator.Evaluate(ctx, registry, policy.Subject{Repository: canonicalName(reference), Digest: digest})
	if err != nil {
		return policy.Decision{}, fmt.Errorf("could not tell: %w", err)
	}
	if !d.Allowed {
		return policy.Decision{}, doesNotHold(fmt.Errorf("%s: no signature by %s holds: %s", digest, by.called, d.Explained))
	}
	return d, nil
}

// withHint adds to a registry's refusal where the reason is when the registry is
// a Vidimus. What it said itself is not shown: texts of registries are not.
func withHint(err error, reference name.Reference) error {
	fault, ok := errors.AsType[proxy.Fault](err)
	if !ok || fault.Kind() != proxy.KindForbidden {
		return err
	}
	return fmt.Errorf("%w (if this registry is a Vidimus, vidimus decisions --image %s says why)", err, reference.Context().RepositoryStr())
}

// keyName is what a sentence calls the key of --key.
func keyName(key string) string {
	if strings.Contains(key, "://") {
		return key
	}
	if _, err := os.Stat(key); err != nil {
		return "the given key" // in person
	}
	return filepath.Base(key)
}

// shortID is enough of a key's id to find it.
func shortID(id string) string { return id[:min(len(id), 8)] + "…" }

// resolveDigest returns the digest that a reference names: computed from the
// manifest's bytes.
func resolveDigest(ctx context.Context, registry direct, reference name.Reference) (v1.Hash, error) {
	if digest, ok := reference.(name.Digest); ok {
		return v1.NewHash(digest.DigestStr())
	}
	content, _, _, err := registry.image.client.Manifest(ctx, registry.image.repository, reference.Identifier(), v1.Hash{})
	if errors.Is(err, fs.ErrNotExist) {
		return v1.Hash{}, doesNotHold(fmt.Errorf("there is no such image: %w", err))
	}
	if err != nil {
		return v1.Hash{}, err
	}
	return sha256Of(content), nil
}

// signerEvaluator evaluates the policy that one signer has signed, under any name.
func signerEvaluator(by verifier.Authority, annotations map[string]string) (*policy.Evaluator, error) {
	everything, err := policy.ParseMatch([]string{"**"})
	if err != nil {
		return nil, err
	}
	set, err := policy.New(policy.Config{
		Authorities: []verifier.Authority{by},
		Policies: []policy.Policy{{
			Name: "--key", Match: everything, Require: policy.Require{AtLeast: 1, Of: []string{by.Name}},
			SignedAs: policy.Ignore, Annotations: annotations,
		}},
	})
	if err != nil {
		return nil, err
	}
	return policy.NewEvaluator(set, verifier.Sources(), policy.Options{}), nil
}

// loadPublicKey finds what a flag, --key, names: a file, env://NAME, a key in a KMS, or the key
// itself as bare base64, as the first cosign took it.
func loadPublicKey(ctx context.Context, flag, key string) (verifier.Key, error) {
	if !kms.IsReference(key) {
		parsed, err := readPublicKey(flag, key)
		if err != nil {
			return verifier.Key{}, misuse(err)
		}
		return parsed, nil
	}
	if err := kms.Check(key); err != nil {
		return verifier.Key{}, misuse(fmt.Errorf("%s: %w", flag, err))
	}
	public, err := kms.Public(ctx, key)
	if err != nil {
		return verifier.Key{}, &exitError{exitUnknown, fmt.Errorf("could not tell: %s: %w", flag, err)}
	}
	return verifier.NewKey(public)
}

// flagFault makes err one of the person who typed the command, unless it is known
// whose it is.
func flagFault(err error) error {
	if _, ok := errors.AsType[*exitError](err); ok {
		return err
	}
	return misuse(err)
}

func readPublicKey(flag, key string) (verifier.Key, error) {
	if key == "" {
		return verifier.Key{}, fmt.Errorf("say which key with %s", flag)
	}
	if variable, ok := strings.CutPrefix(key, "env://"); ok {
		value, set := os.LookupEnv(variable)
		if !set {
			return verifier.Key{}, fmt.Errorf("%s: the environment variable %s is not set", flag, variable)
		}
		parsed, err := verifier.ParseKey([]byte(value))
		if err != nil {
			return verifier.Key{}, fmt.Errorf("%s %s: %w", flag, key, err)
		}
		return parsed, nil
	}
	if scheme, _, ok := strings.Cut(key, "://"); ok {
		return verifier.Key{}, fmt.Errorf("%s: keys of %s are not supported; those of awskms, gcpkms, azurekms, hashivault and env are", flag, scheme)
	}
	content, err := os.ReadFile(key)
	if errors.Is(err, os.ErrNotExist) {
		if parsed, parseErr := verifier.ParseKey([]byte(key)); parseErr == nil {
			return parsed, nil
		}
	}
	if err != nil {
		return verifier.Key{}, fmt.Errorf("%s: %w", flag, err)
	}
	parsed, err := verifier.ParseKey(content)
	if err != nil {
		return verifier.Key{}, fmt.Errorf("%s %s: %w", flag, key, err)
	}
	return parsed, nil
}

// printVerified prints what cosign verify prints: what was checked for people,
// the payloads that hold for programs.
func printVerified(cmd *cobra.Command, output, image string, d policy.Decision, annotations map[string]string, certified bool) error {
	printChecks(cmd.ErrOrStderr(), image, len(annotations) > 0, certified)
	var payloads []json.RawMessage
	for _, e := range d.Evidence {
		if !e.Verified() || !e.IsSignature() {
			continue
		}
		payload, err := payloadOf(e, image, d.Subject.Digest)
		if err != nil {
			return err
		}
		payloads = append(payloads, payload)
	}
	return printPayloads(cmd.OutOrStdout(), output, payloads)
}

func printPayloads(out io.Writer, output string, payloads []json.RawMessage) error {
	if output == "text" {
		for _, payload := range payloads {
			if _, err := fmt.Fprintf(out, "%s\n", payload); err != nil {
				return err
			}
		}
		return nil
	}
	encoded, err := json.Marshal(payloads)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s\n", encoded)
	return err
}

// payloadOf is what was signed in the shape of a simple-signing payload. A bundle has
// none: it is shown as cosign does, with the type of its statement, and the name that
// was asked for where none is claimed.
func payloadOf(e verifier.Evidence, image string, digest v1.Hash) (json.RawMessage, error) {
	if e.Form() == verifier.FormSimpleSigning {
		return envelope.EncodePayload(envelope.Payload{
			Reference: e.ClaimedName(), Digest: digest.String(), Annotations: e.Annotations(),
		})
	}
	var shown struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]any `json:"optional"`
	}
	shown.Critical.Identity.Reference = cmp.Or(e.ClaimedName(), image)
	shown.Critical.Image.Digest = digest.String()
	shown.Critical.Type = envelope.PredicateCosignSign
	shown.Optional = e.Annotations()
	if shown.Optional == nil {
		shown.Optional = map[string]any{}
	}
	return json.Marshal(shown)
}

// parseAnnotations reads -a flags.
func parseAnnotations(flags []string) (map[string]string, error) {
	annotations := make(map[string]string)
	for _, flag := range flags {
		key, value, ok := strings.Cut(flag, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("annotation %q: want key=value", flag)
		}
		if _, twice := annotations[key]; twice {
			return nil, fmt.Errorf("annotation %q is given twice", key)
		}
		annotations[key] = value
	}
	return annotations, nil
}
