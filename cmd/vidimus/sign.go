package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/signer"
)

type signFlags struct {
	writerFlags
	payloadFlags
	signedByFlags
	formatFlag
	bundleFlag
	annotations       []string
	identities        []string
	recursive         bool
	outputCertificate string
}

func newSignCommand() *cobra.Command { return new(signFlags).command() }

func (f *signFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sign [--key KEY] IMAGE...",
		Short: "Sign images, and attach the signatures to them in their registry",
		Long: `Sign images, as cosign does, and attach the signatures beside each image, or
in COSIGN_REPOSITORY: under the tag sha256-<hex>.sig, which podman and every
cosign read, and as a sigstore bundle that refers to the image, which cosign v3
looks for first. --format chooses one. Signatures that are there already are
kept. --bundle FILE writes the bundle to a file as well; with --upload=false nothing
is attached.

With --key the key in a file, a KMS or the environment signs. Without it nobody's
key does: one is made, certified by Fulcio for whoever an identity token is of,
and forgotten. The token is that of --identity-token, of SIGSTORE_ID_TOKEN, of a
GitHub workflow, or of a person who signs in with a browser. Neither log nor
timestamp authority is asked unless a flag asks for it, and without a key one must.

A tag is resolved once and the digest is signed: name images by digest, or the
tag may have moved since you looked at it. The password of the key is taken
from COSIGN_PASSWORD, the terminal, or all of standard input.

Other flags of cosign sign pass where they ask for nothing more, as
--tlog-upload=false does, and are refused by name where they do.

Exit code 0: signed, and read again; 2: misuse; 3: it could not be done.`,
		Example: `  vidimus sign --key cosign.key ghcr.io/acme/web@sha256:...
  vidimus sign --key cosign.key -a env=prod --recursive ghcr.io/acme/web:v1
  vidimus sign --key awskms:///alias/release ghcr.io/acme/web@sha256:...
  vidimus sign --tlog-upload ghcr.io/acme/web@sha256:...`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one image")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.annotations, "annotations", "a", nil, "key=value to sign along")
	flags.BoolVarP(&f.recursive, "recursive", "r", false, "sign an index and every manifest that it lists")
	flags.StringSliceVar(&f.identities, "sign-container-identity", nil, "claim this name for the image instead of its repository's")
	f.writerFlags.register(cmd)
	f.payloadFlags.register(cmd)
	f.signedByFlags.register(cmd)
	f.formatFlag.register(cmd)
	f.bundleFlag.register(cmd)
	f.registerRecordTime(cmd)
	flags.StringVar(&f.outputCertificate, "output-certificate", "", "write the certificate, or else the public key, to `FILE`")
	registerCosignFlags(cmd, "sign")
	return cmd
}

func (f *signFlags) run(cmd *cobra.Command, images []string) error {
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
	if err := f.refuseEarly(len(images)); err != nil {
		return misuse(err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	by, err := f.open(ctx, cmd)
	if err != nil {
		return err
	}
	formats, err := f.formats(cmd, by)
	if err != nil {
		return misuse(err)
	}
	if err := f.refusePayload(by, formats); err != nil {
		return misuse(err)
	}
	for i, ref := range refs {
		if _, ok := ref.(name.Digest); !ok {
			warnTag(cmd.ErrOrStderr(), images[i])
		}
		if err := f.sign(ctx, cmd, by, formats, ref, annotations); err != nil {
			return err
		}
	}
	return f.writeCertificate(cmd, by)
}

func warnTag(w io.Writer, image string) {
	fmt.Fprintf(w, `warning: %s is a tag, not a digest. Whoever can move it chooses what you sign;
name the image by digest (example.com/ubuntu@sha256:abc123...) instead.
`, image)
}

// sign signs what ref names, and prints where the signatures went and how to
// verify the one that was asked for.
func (f *signFlags) sign(ctx context.Context, cmd *cobra.Command, by signedBy, formats []signer.Format, ref name.Reference, annotations map[string]string) error {
	f.readsOnly = !f.uploads()
	s, place, err := f.attacher(cmd, by, formats, ref)
	if err != nil {
		return err
	}
	subjects, err := f.subjects(ctx, place.registry, ref)
	if err != nil {
		return notThere(err)
	}
	requests := f.requests(ref, place.repository, subjects, annotations)
	if f.asked(formats) {
		return f.signPayloads(ctx, cmd, by, place.registry, requests)
	}
	if err := f.bundleFlag.refuse(formats, len(requests)); err != nil {
		return misuse(err)
	}
	if !f.uploads() {
		return f.sealEach(ctx, cmd, by, requests)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "Pushing signature to:", place.repository.Name())
	results, err := s.Sign(ctx, requests...)
	if err != nil {
		return err
	}
	report(cmd.ErrOrStderr(), &f.registryFlags, "signed", results)
	if err := f.writeResult(cmd, results); err != nil {
		return err
	}
	return verifyCommand{
		command: []string{"cosign", "verify"}, by: by, flags: &f.signedByFlags, registry: &f.registryFlags,
		annotations: annotations, what: ref.Context().Name() + "@" + subjects[0].Digest.String(),
	}.print(cmd.OutOrStdout())
}

// sealEach makes bundles and attaches none.
func (f *signFlags) sealEach(ctx context.Context, cmd *cobra.Command, by signedBy, requests []signer.Request) error {
	for _, request := range requests {
		if err := f.sealOnly(ctx, cmd, by, request); err != nil {
			return fmt.Errorf("%s: %w", request.Repository, err)
		}
	}
	return nil
}

// place is where signatures go.
type place struct {
	repository name.Repository
	registry   *remoteRegistry
}

// attacher returns a signer that attaches to what ref names.
func (f *writerFlags) attacher(cmd *cobra.Command, by signedBy, formats []signer.Format, ref name.Reference) (*signer.Signer, place, error) {
	signatures, err := f.signatureRepository(ref.Context())
	if err != nil {
		return nil, place{}, err
	}
	registry, err := f.registry(signatures)
	if err != nil {
		return nil, place{}, err
	}
	config := by.config()
	config.Registry, config.Formats, config.DockerMediaTypes, config.RecordTime = registry, formats, dockerMediaTypes(), f.recordTime
	if lock, err := hostLock(); err == nil {
		config.Locker = lock
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: no lock file, so that signers on this host do not take turns: %v\n", err)
	}
	s, err := signer.New(config)
	return s, place{signatures, registry}, err
}

// subjects returns what is to be signed, what ref names first.
func (f *signFlags) subjects(ctx context.Context, registry signer.Registry, ref name.Reference) ([]v1.Descriptor, error) {
	if f.recursive {
		return signer.ResolveAll(ctx, registry, ref.Context().Name(), ref.Identifier())
	}
	subject, err := signer.Describe(ctx, registry, ref.Context().Name(), ref.Identifier())
	return []v1.Descriptor{subject}, err
}

// requests asks for a signature over every subject under every name.
func (f *signFlags) requests(ref name.Reference, signatures name.Repository, subjects []v1.Descriptor, annotations map[string]string) []signer.Request {
	names := f.identities
	if len(names) == 0 {
		names = []string{ref.Context().Name()}
	}
	var requests []signer.Request
	for _, subject := range subjects {
		for _, name := range names {
			requests = append(requests, signer.Request{
				Subject: subject.Digest, MediaType: subject.MediaType, Size: subject.Size,
				Repository: signatures.Name(), Reference: name, Annotations: annotations,
			})
		}
	}
	return requests
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
