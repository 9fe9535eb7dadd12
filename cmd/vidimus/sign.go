package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier"
)

type signFlags struct {
	writerFlags
	payloadFlags
	key         string
	annotations []string
	identities  []string
	recursive   bool
	timeout     time.Duration
}

func newSignCommand() *cobra.Command { return new(signFlags).command() }

func (f *signFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sign --key KEY IMAGE...",
		Short: "Sign images, and attach the signatures to them in their registry",
		Long: `Sign images with a private key, as cosign does, and attach the signatures
under the tag sha256-<hex>.sig beside each image, or in COSIGN_REPOSITORY.
Signatures that are there already are kept.

A tag is resolved once and the digest is signed: name images by digest, or the
tag may have moved since you looked at it. The password of the key is taken
from COSIGN_PASSWORD, the terminal, or all of standard input.

Other flags of cosign sign pass where they ask for nothing more, as
--tlog-upload=false does, and are refused by name where they do.

Exit code 0: signed, and read again; 2: misuse; 3: it could not be done.`,
		Example: `  vidimus sign --key cosign.key ghcr.io/acme/web@sha256:...
  vidimus sign --key cosign.key -a env=prod --recursive ghcr.io/acme/web:v1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one image")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "private key: file, or env://NAME")
	flags.StringSliceVarP(&f.annotations, "annotations", "a", nil, "key=value to sign along")
	flags.BoolVarP(&f.recursive, "recursive", "r", false, "sign an index and every manifest that it lists")
	flags.StringSliceVar(&f.identities, "sign-container-identity", nil, "claim this name for the image instead of its repository's")
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	flags.BoolP("yes", "y", false, "accepted for cosign's sake; nothing is asked")
	f.writerFlags.register(cmd)
	f.payloadFlags.register(cmd)
	registerCosignFlags(cmd)
	return cmd
}

func (f *signFlags) run(cmd *cobra.Command, images []string) error {
	if err := refuseLater(cmd); err != nil {
		return misuse(err)
	}
	annotations, err := parseAnnotations(f.annotations)
	if err != nil {
		return misuse(err)
	}
	refs := make([]name.Reference, len(images))
	for i, image := range images {
		if refs[i], err = name.ParseReference(image, f.nameOptions()...); err != nil {
			return misuse(err)
		}
	}
	if f.key == "" {
		return misuse(errors.New("say which private key with --key; signing without one (keyless) is not supported yet"))
	}
	key, err := loadPrivateKey(cmd.Context(), newPrompter(cmd), f.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	for i, ref := range refs {
		if _, ok := ref.(name.Digest); !ok {
			warnTag(cmd.ErrOrStderr(), images[i])
		}
		if err := f.sign(ctx, cmd, key, ref, annotations); err != nil {
			return err
		}
	}
	return nil
}

func warnTag(w io.Writer, image string) {
	fmt.Fprintf(w, `warning: %s is a tag, not a digest. Whoever can move it chooses what you sign;
name the image by digest (example.com/ubuntu@sha256:abc123...) instead.
`, image)
}

// sign signs what ref names, and prints where the signatures went and how to
// verify the one that was asked for.
func (f *signFlags) sign(ctx context.Context, cmd *cobra.Command, key crypto.Signer, ref name.Reference, annotations map[string]string) error {
	signatures, err := f.signatureRepository(ref.Context())
	if err != nil {
		return err
	}
	registry, err := f.registry(signatures)
	if err != nil {
		return err
	}
	digests, err := f.digests(ctx, registry, ref)
	if err != nil {
		return notThere(err)
	}
	config := signer.Config{Registry: registry, Key: key, DockerMediaTypes: dockerMediaTypes()}
	if lock, err := hostLock(); err == nil {
		config.Locker = lock
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: no lock file, so that signers on this host do not take turns: %v\n", err)
	}
	if f.asked() {
		return f.signPayloads(ctx, cmd, config, ref, f.requests(ref, signatures, digests, annotations))
	}
	s, err := signer.New(config)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "Pushing signature to:", signatures.Name())
	results, err := s.Sign(ctx, f.requests(ref, signatures, digests, annotations)...)
	if err != nil {
		return err
	}
	report(cmd.ErrOrStderr(), results)
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		return err
	}
	return f.printVerifyCommand(cmd.OutOrStdout(), public, ref.Context().Name()+"@"+digests[0].String(), annotations)
}

// digests returns what is to be signed, what ref names first.
func (f *signFlags) digests(ctx context.Context, registry signer.Registry, ref name.Reference) ([]v1.Hash, error) {
	if f.recursive {
		return signer.ResolveAll(ctx, registry, ref.Context().Name(), ref.Identifier())
	}
	digest, err := signer.Resolve(ctx, registry, ref.Context().Name(), ref.Identifier())
	return []v1.Hash{digest}, err
}

// requests asks for a signature over every digest under every name.
func (f *signFlags) requests(ref name.Reference, signatures name.Repository, digests []v1.Hash, annotations map[string]string) []signer.Request {
	names := f.identities
	if len(names) == 0 {
		names = []string{ref.Context().Name()}
	}
	var requests []signer.Request
	for _, digest := range digests {
		for _, name := range names {
			requests = append(requests, signer.Request{
				Subject: digest, Repository: signatures.Name(), Reference: name, Annotations: annotations,
			})
		}
	}
	return requests
}

func report(w io.Writer, results []signer.Result) {
	for _, r := range results {
		done := "signed"
		if r.Kept {
			done = "was signed by this key already"
		}
		fmt.Fprintf(w, "%s %s: %s:%s\n", r.Subject, done, r.Repository, r.Tag)
		if r.Signatures > verifier.MaxSignatures {
			fmt.Fprintf(w, "warning: %s has %d signatures, and at most %d are tried when it is verified\n",
				r.Tag, r.Signatures, verifier.MaxSignatures)
		}
	}
}

// printVerifyCommand prints the command by which cosign v2 and v3 verify what
// was signed: both ask for the transparency log unless told not to.
func (f *signFlags) printVerifyCommand(w io.Writer, public []byte, image string, annotations map[string]string) error {
	var command []string
	if elsewhere := os.Getenv("COSIGN_REPOSITORY"); elsewhere != "" {
		command = append(command, "COSIGN_REPOSITORY="+shellQuote(elsewhere))
	}
	file, there := publicKeyFile(f.key, public)
	command = append(command, "cosign", "verify", "--key", shellQuote(file), "--insecure-ignore-tlog=true")
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		command = append(command, "-a", shellQuote(key+"="+annotations[key]))
	}
	if f.allowHTTP {
		command = append(command, "--allow-http-registry")
	}
	if f.caFile != "" {
		command = append(command, "--registry-cacert", shellQuote(f.caFile))
	}
	if f.insecure {
		command = append(command, "--allow-insecure-registry")
	}
	command = append(command, shellQuote(image))

	var text strings.Builder
	text.WriteString("Verify it with:\n")
	if !there {
		fmt.Fprintf(&text, "  vidimus public-key --key %s --outfile %s\n", shellQuote(f.key), shellQuote(file))
	}
	fmt.Fprintf(&text, "  %s\n", strings.Join(command, " "))
	_, err := io.WriteString(w, text.String())
	return err
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

// dockerMediaTypes is cosign's COSIGN_DOCKER_MEDIA_TYPES, read as cosign does.
func dockerMediaTypes() bool {
	on, err := strconv.ParseBool(os.Getenv("COSIGN_DOCKER_MEDIA_TYPES"))
	return err == nil && on
}

// hostLock is where signers of this person on this host take turns.
func hostLock() (*signer.FileLock, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	return signer.NewFileLock(filepath.Join(cache, "vidimus", "locks"))
}
