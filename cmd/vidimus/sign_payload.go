package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// payloadFlags are those of sign about the payload and the signature themselves.
type payloadFlags struct {
	payload         string
	upload          *bool // nil for true
	outputSignature string
	outputPayload   string
}

func (f *payloadFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.payload, "payload", "", "`FILE` of the payload to sign instead of the usual one")
	f.upload = flags.Bool("upload", true, "attach the signature; with =false it is printed")
	flags.StringVar(&f.outputSignature, "output-signature", "", "write the signature in base64 to `FILE`")
	flags.StringVar(&f.outputPayload, "output-payload", "", "write the payload to `FILE`")
}

// aboutPayload reports whether the payload itself, which only a signature under a tag
// has, is given or wanted.
func (f *payloadFlags) aboutPayload() bool {
	return f.payload != "" || f.outputSignature != "" || f.outputPayload != ""
}

// asked reports whether payloads are to be signed otherwise than by attaching what
// sign makes of them.
func (f *signFlags) asked(formats []signer.Format) bool {
	bundles := f.bundle != "" || isBundle(formats)
	return f.aboutPayload() || !f.uploads() && !bundles
}

const payloadNames = "--payload, --output-signature, --output-payload, and --upload=false without a bundle,"

// refuseEarly returns an error where the flags contradict each other, before it is known
// who signs.
func (f *signFlags) refuseEarly(images int) error {
	if f.aboutPayload() && f.key == "" {
		return errors.New(payloadNames + " are for a signature by a key (--key), without proof")
	}
	if f.aboutPayload() && f.bundle != "" {
		return errors.New(payloadNames + " are for a signature under a tag, and --bundle is over a statement: give one of them")
	}
	if f.bundle != "" && images > 1 {
		return fmt.Errorf("%d images would be signed, and --bundle is about one", images)
	}
	return nil
}

// refusePayload returns an error where the flags ask for what is about no payload.
func (f *signFlags) refusePayload(by signedBy, formats []signer.Format) error {
	switch {
	case !f.asked(formats):
		return nil
	case f.key == "" || by.proven():
		return errors.New(payloadNames + " are for a signature by a key (--key), without proof: --format bundle prints a bundle")
	case isBundle(formats):
		return errors.New(payloadNames + " are for a signature under a tag: a bundle is over a statement")
	}
	return nil
}

// isBundle reports whether bundles are all that is made.
func isBundle(formats []signer.Format) bool {
	return len(formats) == 1 && formats[0] == signer.FormatBundle
}

func (f *payloadFlags) uploads() bool { return f.upload == nil || *f.upload }

// signPayloads signs one payload for each digest under each name, writes what is
// asked for, and attaches the signatures unless they are only to be printed.
func (f *signFlags) signPayloads(ctx context.Context, cmd *cobra.Command, by signedBy, registry signer.Registry, requests []signer.Request) error {
	if len(requests) > 1 && (f.payload != "" || f.outputSignature != "" || f.outputPayload != "") {
		return misuse(fmt.Errorf("%d payloads would be signed, and --payload, --output-signature and --output-payload are about one", len(requests)))
	}
	var additions []signer.Addition
	for _, request := range requests {
		payload, err := f.payloadOf(cmd, request)
		if err != nil {
			return err
		}
		signature, err := f.signOne(cmd, by.key, payload)
		if err != nil {
			return fmt.Errorf("%s: %w", request.Repository, err)
		}
		raw, blob, err := signer.Layer(envelope.MediaTypeSimpleSigning, map[string]string{signatureAnnotation: signature}, payload)
		if err != nil {
			return err
		}
		additions = append(additions, signer.Addition{
			Repository: request.Repository, Tag: signer.Tag(request.Subject),
			Descriptors: []json.RawMessage{raw}, Blobs: []signer.Blob{blob},
		})
	}
	if !f.uploads() {
		return nil
	}
	config := signer.Config{Registry: registry, Key: by.key, Locker: locker(cmd.ErrOrStderr()), DockerMediaTypes: dockerMediaTypes()}
	added, err := signer.Add(ctx, config, additions...)
	if err != nil {
		return err
	}
	results := make([]signer.Result, len(added))
	for i, a := range added {
		results[i] = signer.Result{
			Request: requests[i], Format: signer.FormatTag, Tag: additions[i].Tag, Kept: a.Kept, Signatures: a.Count,
		}
	}
	report(cmd.ErrOrStderr(), &f.registryFlags, "signed", results)
	return nil
}

// payloadOf returns what is to be signed for a request.
func (f *signFlags) payloadOf(cmd *cobra.Command, request signer.Request) ([]byte, error) {
	if f.payload == "" {
		return payloadFor(request.Reference, request.Subject.String(), request.Annotations)
	}
	if len(request.Annotations) > 0 {
		return nil, misuse(errors.New("-a: the payload of --payload has its own annotations"))
	}
	payload, err := readInput(cmd, "payload", f.payload, verifier.MaxPayloadSize)
	if err != nil {
		return nil, err
	}
	return payload, aboutImage(cmd, f.payload, payload, request.Subject)
}

// aboutImage refuses a payload that is about another image. One that is about none may
// be signed, as with cosign, but counts for nobody who checks what it claims.
func aboutImage(cmd *cobra.Command, file string, payload []byte, digest v1.Hash) error {
	p, err := envelope.ParsePayload(payload)
	switch {
	case err != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: the payload is not one that cosign or Vidimus verifies: %v\n", err)
	case p.Digest != digest.String():
		return misuse(fmt.Errorf("--payload %s: is about %s, and the image is %s", file, p.Digest, digest))
	}
	return nil
}

// signOne returns the signature over a payload in base64, and writes it, and the
// payload, where that is asked for.
func (f *signFlags) signOne(cmd *cobra.Command, key crypto.Signer, payload []byte) (string, error) {
	signature, err := signer.SignPayload(key, payload)
	if err != nil {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString(signature)
	if f.outputPayload != "" {
		if err := os.WriteFile(f.outputPayload, payload, 0o600); err != nil {
			return "", fmt.Errorf("--output-payload: %w", err)
		}
	}
	if f.outputSignature != "" {
		if err := os.WriteFile(f.outputSignature, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("--output-signature: %w", err)
		}
	}
	if !f.uploads() && f.outputSignature == "" {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
			return "", err
		}
	}
	return text, nil
}
