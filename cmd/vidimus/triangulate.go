package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/carrier"
	"vidimus/signer"
)

type triangulateFlags struct {
	imageFlags
	kind string
}

func newTriangulateCommand() *cobra.Command { return new(triangulateFlags).command() }

func (f *triangulateFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "triangulate IMAGE",
		Short: "Print where the signatures of an image are, or its attestations or SBOM",
		Example: `  vidimus triangulate ghcr.io/acme/web:v1
  vidimus triangulate --type digest ghcr.io/acme/web:v1`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, 3*time.Minute)
	cmd.Flags().StringVar(&f.kind, "type", "signature", "signature, attestation, sbom, or digest for the image itself")
	registerCosignFlags(cmd, "triangulate")
	return cmd
}

func (f *triangulateFlags) run(cmd *cobra.Command, image string) error {
	suffix, ok := map[string]string{"signature": ".sig", "attestation": ".att", "sbom": ".sbom", "digest": ""}[f.kind]
	if !ok {
		return misuse(fmt.Errorf("unknown --type %q: want signature, attestation, sbom or digest", f.kind))
	}
	if err := f.check(); err != nil {
		return err
	}
	ref, err := f.parse(image)
	if err != nil {
		return err
	}
	signatures, err := f.signatureRepository(ref.Context())
	if err != nil {
		return err
	}
	// A digest needs no registry: what is asked is a name.
	reference := ref.Identifier()
	if _, ok := ref.(name.Digest); !ok {
		registry, err := f.registry(name.Repository{})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		defer cancel()
		digest, err := signer.Resolve(ctx, registry, ref.Context().Name(), reference)
		if err != nil {
			return notThere(err)
		}
		reference = digest.String()
	}
	digest, err := parseDigest(reference)
	if err != nil {
		return misuse(err)
	}
	where := signatures.Name() + ":" + f.tagged(carrier.Tag(digest, suffix))
	if f.kind == "digest" {
		where = ref.Context().Name() + "@" + digest.String()
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), where)
	return err
}
