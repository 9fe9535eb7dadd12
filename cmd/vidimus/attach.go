package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/carrier"
	"vidimus/signer"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

func newAttachCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attach",
		Short: "Attach a signature, attestations or an SBOM that exist already",
		Args:  takesNothing,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAttachSignature("signature IMAGE"), newAttachAttestation(), newAttachSBOM())
	return cmd
}

// newUploadCommand is what the first cosign called attach signature.
func newUploadCommand() *cobra.Command {
	cmd := newAttachSignature("upload IMAGE")
	cmd.Hidden = true
	return cmd
}

type attachFlags struct {
	imageFlags
	signature, payload, certificate, chain string
	timestamp, log                         string
	attestations                           []string
	sbom, sbomType, sbomFormat             string
}

func newAttachSignature(use string) *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   use,
		Short: "Attach a signature that was made elsewhere",
		Long: `Attach a signature that was made elsewhere to an image, beside those that are there.
Without --payload it is taken to be over what vidimus generate prints. A sigstore
bundle, given with --payload alone, is attached as a referrer.

The signature is not verified, for which a key would be wanted; a payload about
another image is refused.

Exit code 0: attached, or there already; 2: misuse; 3: it could not be done.`,
		Example: `  vidimus generate ghcr.io/acme/web@sha256:... > payload.json
  vidimus attach signature --payload payload.json --signature payload.sig ghcr.io/acme/web@sha256:...`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], f.signatureAdditions) },
	}
	f.register(cmd, 3*time.Minute)
	flags := cmd.Flags()
	flags.StringVar(&f.signature, "signature", "", "the signature: `FILE` with it in base64, - for standard input, or the base64 itself")
	flags.StringVar(&f.payload, "payload", "", "`FILE` of the payload that is signed, or of a sigstore bundle")
	flags.StringVar(&f.payload, "bundle", "", "the same")
	flags.StringVar(&f.certificate, "certificate", "", "PEM `FILE` of the signer's certificate")
	flags.StringVar(&f.chain, "certificate-chain", "", "PEM `FILE` of the authorities above it")
	flags.StringVar(&f.timestamp, "tsr", "", "`FILE` of an RFC 3161 timestamp response")
	flags.StringVar(&f.log, "rekor-response", "", "`FILE` of the transparency log's entry, as cosign writes it")
	flags.Lookup("bundle").Hidden = true
	registerCosignFlags(cmd, "attach signature")
	return cmd
}

func newAttachAttestation() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "attestation --attestation FILE IMAGE",
		Short: "Attach attestations that were made elsewhere",
		Long: `Attach DSSE envelopes with in-toto statements to an image, beside those that are
there. A file has one, or one on each line. A sigstore bundle is attached as a
referrer. Nothing is verified; a statement about another image is refused.

Exit code 0: attached, or there already; 2: misuse; 3: it could not be done.`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], f.attestationAdditions) },
	}
	f.register(cmd, 3*time.Minute)
	cmd.Flags().StringArrayVar(&f.attestations, "attestation", nil, "`FILE` of envelopes; may be repeated")
	registerCosignFlags(cmd, "attach attestation")
	return cmd
}

func newAttachSBOM() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "sbom --sbom FILE IMAGE",
		Short: "Attach an SBOM",
		Long: `Attach an SBOM to an image. One that is there already stays, and download sbom prints
the last; cosign reads no image with several. An SBOM is not signed by being
attached: attest makes a statement of it.

Exit code 0: attached, or there already; 2: misuse; 3: it could not be done.`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args[0], f.sbomAdditions)
		},
	}
	f.register(cmd, 3*time.Minute)
	flags := cmd.Flags()
	flags.StringVar(&f.sbom, "sbom", "", "the `FILE`, or - for standard input")
	flags.StringVar(&f.sbomType, "type", "spdx", "spdx, cyclonedx or syft")
	flags.StringVar(&f.sbomFormat, "input-format", "", "json, xml or text; without it by the file's name")
	registerCosignFlags(cmd, "attach sbom")
	return cmd
}

// attachment is what is to be attached: layers under a tag, or bundles.
type attachment struct {
	suffix  string
	layers  []json.RawMessage
	blobs   []signer.Blob
	bundles []bundle
}

// add adds a layer.
func (a *attachment) add(mediaType string, annotations map[string]string, data []byte) error {
	raw, blob, err := signer.Layer(mediaType, annotations, data)
	a.layers, a.blobs = append(a.layers, raw), append(a.blobs, blob)
	return err
}

// run attaches to an image what read makes of the files.
func (f *attachFlags) run(cmd *cobra.Command, image string, read func(cmd *cobra.Command, claimed string, digest v1.Hash) (attachment, error)) error {
	ref, err := f.parse(image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	where, evidence, err := f.places(ctx, ref, true)
	if err != nil {
		return err
	}
	subject, err := f.findIn(ctx, cmd, where, nil, ref.Identifier(), carrier.Options{Alone: true})
	if err != nil {
		return err
	}
	if evidence == nil {
		evidence = where
	}
	a, err := read(cmd, ref.Context().Name(), subject.Root.Digest)
	if err != nil {
		return err
	}
	config := signer.Config{Registry: carrier.Registry{Target: evidence}, Locker: locker(cmd.ErrOrStderr()), DockerMediaTypes: dockerMediaTypes()}
	if len(a.layers) > 0 {
		tag := carrier.Tag(subject.Root.Digest, a.suffix)
		added, err := signer.Add(ctx, config, signer.Addition{
			Repository: evidence.Name(), Tag: tag, Descriptors: a.layers, Blobs: a.blobs,
		})
		if err != nil {
			return err
		}
		did := "attached"
		if added[0].Kept {
			did = "attached already"
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s:%s, which has %d now\n", did, evidence.Name(), f.tagged(tag), added[0].Count)
	}
	put, err := putBundles(ctx, config, evidence, subject.Root, a.bundles)
	for _, desc := range put {
		fmt.Fprintf(cmd.ErrOrStderr(), "attached: %s@%s\n", evidence.Name(), desc.Digest)
	}
	return err
}

func (f *attachFlags) signatureAdditions(cmd *cobra.Command, claimed string, digest v1.Hash) (attachment, error) {
	a := attachment{suffix: ".sig"}
	payload, err := f.readPayload(cmd, claimed, digest)
	if err != nil {
		return a, err
	}
	if b, err := parseBundle(payload); err == nil {
		if f.signature != "" {
			return a, misuse(errors.New("--signature: the bundle of --payload has its own"))
		}
		return a.withBundle(b, digest)
	}
	if f.signature == "" {
		return a, misuse(errors.New("say which signature with --signature"))
	}
	if err := aboutImage(cmd, f.payload, payload, digest); err != nil {
		return a, err
	}
	annotations, err := f.annotations(cmd)
	if err != nil {
		return a, err
	}
	return a, a.add(envelope.MediaTypeSimpleSigning, annotations, payload)
}

func (f *attachFlags) readPayload(cmd *cobra.Command, claimed string, digest v1.Hash) ([]byte, error) {
	if f.payload == "" {
		return envelope.EncodePayload(envelope.Payload{Reference: claimed, Digest: digest.String()})
	}
	return readInput(cmd, "payload", f.payload, verifier.MaxPayloadSize)
}

// signatureText returns the signature in base64: from a file, from standard input, or
// the base64 itself, as cosign takes it.
func (f *attachFlags) signatureText(cmd *cobra.Command) (string, error) {
	text, file := f.signature, f.signature
	if file == "--" {
		file = "-" // cosign's manual spells standard input so
	}
	if _, err := os.Stat(file); file == "-" || !errors.Is(err, fs.ErrNotExist) {
		data, err := readInput(cmd, "signature", file, 64<<10)
		if err != nil {
			return "", err
		}
		text = string(data)
	}
	signature := strings.Join(strings.Fields(text), "")
	if decoded, err := base64.StdEncoding.DecodeString(signature); err != nil || len(decoded) == 0 {
		return "", misuse(fmt.Errorf("--signature %s: neither base64 nor a file with it (base64 -w0 makes it so)", f.signature))
	}
	return signature, nil
}

// annotations returns what goes with a signature into its layer.
func (f *attachFlags) annotations(cmd *cobra.Command) (map[string]string, error) {
	signature, err := f.signatureText(cmd)
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{signatureAnnotation: signature}
	for _, pemFile := range []struct{ flag, file, annotation string }{
		{"certificate", f.certificate, certAnnotation}, {"certificate-chain", f.chain, chainAnnotation},
	} {
		if pemFile.file == "" {
			continue
		}
		data, err := readInput(cmd, pemFile.flag, pemFile.file, 256<<10)
		if err != nil {
			return nil, err
		}
		if block, _ := pem.Decode(data); block == nil || block.Type != "CERTIFICATE" {
			return nil, misuse(fmt.Errorf("--%s %s: no certificate in PEM", pemFile.flag, pemFile.file))
		}
		if _, err := certificates(string(data)); err != nil {
			return nil, misuse(fmt.Errorf("--%s %s: %w", pemFile.flag, pemFile.file, err))
		}
		annotations[pemFile.annotation] = string(data)
	}
	if f.timestamp != "" {
		data, err := readInput(cmd, "tsr", f.timestamp, 256<<10)
		if err != nil {
			return nil, err
		}
		annotation, err := json.Marshal(struct{ SignedRFC3161Timestamp []byte }{data})
		if err != nil {
			return nil, err
		}
		annotations[timestampAnnotation] = string(annotation)
	}
	if f.log != "" {
		entry, err := f.readLog(cmd)
		if err != nil {
			return nil, err
		}
		annotations[logAnnotation] = entry
	}
	return annotations, nil
}

// readLog reads the entry of a transparency log: alone, or as cosign sign-blob
// --bundle writes it.
func (f *attachFlags) readLog(cmd *cobra.Command) (string, error) {
	data, err := readInput(cmd, "rekor-response", f.log, verifier.MaxPayloadSize)
	if err != nil {
		return "", err
	}
	var local struct {
		Bundle json.RawMessage `json:"rekorBundle"`
	}
	if err := json.Unmarshal(data, &local); err == nil && len(local.Bundle) > 0 {
		data = local.Bundle
	}
	var entry struct {
		SignedEntryTimestamp []byte
		Payload              map[string]any
	}
	if err := json.Unmarshal(data, &entry); err != nil || len(entry.SignedEntryTimestamp) == 0 || entry.Payload == nil {
		return "", misuse(fmt.Errorf("--rekor-response %s: no entry of a log with SignedEntryTimestamp and Payload", f.log))
	}
	line, err := compact(string(data))
	return string(line), err
}

// withBundle adds a bundle that is about digest.
func (a attachment) withBundle(b bundle, digest v1.Hash) (attachment, error) {
	if b.statement != nil && !slices.Contains(b.statement.Digests(), digest.String()) {
		return a, misuse(fmt.Errorf("the bundle is about %v, and the image is %s", b.statement.Digests(), digest))
	}
	if b.statement == nil && b.digest != digest.String() {
		return a, misuse(fmt.Errorf("the bundle is about %s, and the image is %s", b.digest, digest))
	}
	a.bundles = append(a.bundles, b)
	return a, nil
}

func (f *attachFlags) attestationAdditions(cmd *cobra.Command, _ string, digest v1.Hash) (attachment, error) {
	a := attachment{suffix: ".att"}
	if len(f.attestations) == 0 {
		return a, misuse(errors.New("say which file with --attestation"))
	}
	for _, file := range f.attestations {
		data, err := readInput(cmd, "attestation", file, 64<<20)
		if err != nil {
			return a, err
		}
		if b, err := parseBundle(data); err == nil {
			if a, err = a.withBundle(b, digest); err != nil {
				return a, fmt.Errorf("--attestation %s: %w", file, err)
			}
			continue
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		for number := 1; decoder.More(); number++ {
			wrong := func(why string, args ...any) error {
				return misuse(fmt.Errorf("--attestation %s: document %d: "+why, append([]any{file, number}, args...)...))
			}
			var e dsseEnvelope
			if err := decoder.Decode(&e); err != nil {
				return a, wrong("not a DSSE envelope: %w", err)
			}
			if e.PayloadType != inTotoType || len(e.Signatures) == 0 {
				return a, wrong("payload type %q and %d signatures, want %s and at least one", e.PayloadType, len(e.Signatures), inTotoType)
			}
			statement, err := e.statement()
			if err != nil {
				return a, wrong("%w", err)
			}
			if !slices.Contains(statement.Digests(), digest.String()) {
				return a, wrong("is about %v, and the image is %s", statement.Digests(), digest)
			}
			line, err := json.Marshal(e)
			if err != nil {
				return a, err
			}
			if len(line) > verifier.MaxPayloadSize {
				return a, wrong("larger than %d bytes, which nobody reads", verifier.MaxPayloadSize)
			}
			annotations := map[string]string{signatureAnnotation: "", predicateAnnotation: statement.PredicateType}
			if err := a.add(envelope.MediaTypeDSSE, annotations, line); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

func (f *attachFlags) sbomAdditions(cmd *cobra.Command, _ string, _ v1.Hash) (attachment, error) {
	a := attachment{suffix: ".sbom"}
	if f.sbom == "" {
		return a, misuse(errors.New("say which file with --sbom"))
	}
	mediaType, err := sbomMediaType(f.sbomType, f.sbomFormat, filepath.Ext(f.sbom) == ".json")
	if err != nil {
		return a, misuse(err)
	}
	data, err := readInput(cmd, "sbom", f.sbom, maxSBOM)
	if err != nil {
		return a, err
	}
	return a, a.add(mediaType, nil, data)
}

// sbomMediaType returns the media type of an SBOM (cosign pkg/types/media.go).
func sbomMediaType(kind, format string, named bool) (string, error) {
	types := map[string]map[string]string{
		"spdx":      {"": "text/spdx", "text": "text/spdx", "json": "text/spdx+json"},
		"cyclonedx": {"": "application/vnd.cyclonedx+xml", "xml": "application/vnd.cyclonedx+xml", "json": "application/vnd.cyclonedx+json"},
		"syft":      {"": "application/vnd.syft+json", "json": "application/vnd.syft+json"},
	}
	formats, ok := types[kind]
	if !ok {
		return "", fmt.Errorf("--type %s: want spdx, cyclonedx or syft", kind)
	}
	if format == "" && named {
		format = "json"
	}
	mediaType, ok := formats[format]
	if !ok {
		return "", fmt.Errorf("--input-format %s: there is none such of %s", format, kind)
	}
	return mediaType, nil
}
