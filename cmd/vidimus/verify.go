package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

type verifyFlags struct {
	registryFlags
	key         string
	annotations []string
	output      string
	ignoreTlog  bool
}

func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify --key KEY IMAGE...",
		Short: "Check that an image is signed by a key",
		Long: `Check the signatures of images with one public key, as cosign verify does. The
payloads that hold are printed as JSON. The name that a signature claims is not
compared, as it is not by cosign; a policy does that (vidimus explain).

KEY is a file, env://NAME, or the bare base64 body of a public key.

Exit code 0: every image is signed so; 1: one is not; 3: could not tell.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one image")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "public key: file, env://NAME, or base64 body")
	flags.StringSliceVarP(&f.annotations, "annotations", "a", nil, "key=value that must be signed")
	flags.StringVarP(&f.output, "output", "o", "json", "json or text")
	flags.BoolVar(&f.allowHTTP, "allow-http-registry", false, "speak plain HTTP to the registry")
	flags.StringVar(&f.caFile, "registry-cacert", "", "PEM file of authorities to trust for the registry, besides the system's")
	flags.BoolVar(&f.ignoreTlog, "insecure-ignore-tlog", true, "accepted for cosign's sake; no transparency log is asked")
	return cmd
}

func (f *verifyFlags) run(cmd *cobra.Command, images []string) error {
	if f.output != "json" && f.output != "text" {
		return misuse(fmt.Errorf("unknown output %q: want json or text", f.output))
	}
	if !f.ignoreTlog {
		return misuse(errors.New("checking the transparency log is not supported yet"))
	}
	key, err := loadPublicKey(f.key)
	if err != nil {
		return misuse(err)
	}
	annotations, err := parseAnnotations(f.annotations)
	if err != nil {
		return misuse(err)
	}
	for _, image := range images {
		if err := f.verify(cmd, image, key, annotations); err != nil {
			return err
		}
	}
	return nil
}

func (f *verifyFlags) verify(cmd *cobra.Command, image string, key verifier.Key, annotations map[string]string) error {
	reference, err := name.ParseReference(image)
	if err != nil {
		return misuse(err)
	}
	registry, free, err := f.openDirect(reference)
	if err != nil {
		return err
	}
	defer free()
	digest, err := resolveDigest(cmd.Context(), registry, reference)
	if err != nil {
		return err
	}
	evaluator, err := keyEvaluator(key, annotations)
	if err != nil {
		return err
	}
	d, err := evaluator.Evaluate(cmd.Context(), registry, policy.Subject{
		Repository: registryName(reference.Context().Registry) + "/" + reference.Context().RepositoryStr(), Digest: digest,
	})
	if err != nil {
		return fmt.Errorf("%s: could not tell: %w", image, err)
	}
	if !d.Allowed {
		return doesNotHold(fmt.Errorf("%s (%s): no signature holds: %s", image, digest, d.Explained))
	}
	return printVerified(cmd, f.output, image, d, annotations)
}

// resolveDigest returns the digest that a reference names: computed from the
// manifest's bytes.
func resolveDigest(ctx context.Context, registry direct, reference name.Reference) (v1.Hash, error) {
	if digest, ok := reference.(name.Digest); ok {
		return v1.NewHash(digest.DigestStr())
	}
	content, _, err := registry.image.client.Manifest(ctx, registry.image.repository, reference.Identifier())
	if err != nil {
		return v1.Hash{}, notThere(fmt.Errorf("resolve %s: %w", reference, err))
	}
	return sha256Of(content), nil
}

// keyEvaluator evaluates the policy that one key has signed, under any name.
func keyEvaluator(key verifier.Key, annotations map[string]string) (*policy.Evaluator, error) {
	everything, err := policy.ParseMatch([]string{"**"})
	if err != nil {
		return nil, err
	}
	set, err := policy.New(policy.Config{
		Authorities: []verifier.Authority{{Name: "key", Keys: []verifier.Key{key}}},
		Policies: []policy.Policy{{
			Name: "--key", Match: everything, Require: policy.Require{AtLeast: 1, Of: []string{"key"}},
			SignedAs: policy.Ignore, Annotations: annotations,
		}},
	})
	if err != nil {
		return nil, err
	}
	return policy.NewEvaluator(set, []verifier.Source{verifier.Tags()}, policy.Options{}), nil
}

// loadPublicKey reads what --key names: a file, env://NAME, or the key itself
// as bare base64, as the first cosign took it.
func loadPublicKey(key string) (verifier.Key, error) {
	if key == "" {
		return verifier.Key{}, errors.New("say which key with --key")
	}
	if variable, ok := strings.CutPrefix(key, "env://"); ok {
		value, set := os.LookupEnv(variable)
		if !set {
			return verifier.Key{}, fmt.Errorf("--key: the environment variable %s is not set", variable)
		}
		parsed, err := verifier.ParseKey([]byte(value))
		if err != nil {
			return verifier.Key{}, fmt.Errorf("--key %s: %w", key, err)
		}
		return parsed, nil
	}
	if scheme, _, ok := strings.Cut(key, "://"); ok {
		return verifier.Key{}, fmt.Errorf("--key: keys of %s are not supported yet", scheme)
	}
	content, err := os.ReadFile(key)
	if errors.Is(err, os.ErrNotExist) {
		if parsed, parseErr := verifier.ParseKey([]byte(key)); parseErr == nil {
			return parsed, nil
		}
	}
	if err != nil {
		return verifier.Key{}, fmt.Errorf("--key: %w", err)
	}
	parsed, err := verifier.ParseKey(content)
	if err != nil {
		return verifier.Key{}, fmt.Errorf("--key %s: %w", key, err)
	}
	return parsed, nil
}

// printVerified prints what cosign verify prints: what was checked for people,
// the payloads that hold for programs.
func printVerified(cmd *cobra.Command, output, image string, d policy.Decision, annotations map[string]string) error {
	heading := cmd.ErrOrStderr()
	fmt.Fprintf(heading, "\nVerification for %s --\nThe following checks were performed on each of these signatures:\n", image)
	if len(annotations) > 0 {
		fmt.Fprintln(heading, "  - The specified annotations were verified.")
	}
	fmt.Fprintln(heading, "  - The cosign claims were validated")
	fmt.Fprintln(heading, "  - The signatures were verified against the specified public key")
	var payloads []json.RawMessage
	for _, e := range d.Evidence {
		if !e.Verified() {
			continue
		}
		payload, err := envelope.EncodePayload(envelope.Payload{
			Reference: e.ClaimedName(), Digest: d.Subject.Digest.String(), Annotations: e.Annotations(),
		})
		if err != nil {
			return err
		}
		payloads = append(payloads, payload)
	}
	out := cmd.OutOrStdout()
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
