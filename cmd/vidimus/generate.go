package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

type generateFlags struct {
	imageFlags
	list []string
}

func newGenerateCommand() *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate IMAGE",
		Short: "Print the payload that a signature of an image is over",
		Long: `Print the simple-signing payload of an image, to the byte as sign signs it: without a
line break at its end. Other programs sign it, and attach signature brings the
signature to the image.

Exit code 0: printed; 2: misuse, or an image that is not there; 3: could not tell.`,
		Example: `  vidimus generate -a env=prod ghcr.io/acme/web@sha256:... | openssl dgst -sha256 -sign key.pem | base64 -w0`,
		Args:    takesOne("one image"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, 3*time.Minute)
	cmd.Flags().StringSliceVarP(&f.list, "annotations", "a", nil, "key=value to be signed along")
	registerCosignFlags(cmd, "generate")
	return cmd
}

func (f *generateFlags) run(cmd *cobra.Command, image string) error {
	annotations, err := parseAnnotations(f.list)
	if err != nil {
		return misuse(err)
	}
	ref, err := f.parse(image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	registry, err := f.registry(ref.Context())
	if err != nil {
		return err
	}
	registry.writes = "" // nothing is
	digest, err := signer.Resolve(ctx, registry, ref.Context().Name(), ref.Identifier())
	if err != nil {
		return notThere(err)
	}
	payload, err := payloadFor(ref.Context().Name(), digest.String(), annotations)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(payload)
	return err
}

// payloadFor is the payload as sign makes it.
func payloadFor(claimed, digest string, annotations map[string]string) ([]byte, error) {
	p := envelope.Payload{Form: envelope.Modern, Reference: claimed, Digest: digest}
	if len(annotations) > 0 {
		p.Annotations = make(map[string]any, len(annotations))
		for key, value := range annotations {
			p.Annotations[key] = value
		}
	}
	return envelope.EncodePayload(p)
}
