package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"vidimus/carrier"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// Annotations of the layers of signature images (cosign pkg/oci/static/signature.go).
const (
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	certAnnotation      = "dev.sigstore.cosign/certificate"
	chainAnnotation     = "dev.sigstore.cosign/chain"
	logAnnotation       = "dev.sigstore.cosign/bundle"
	timestampAnnotation = "dev.sigstore.cosign/rfc3161timestamp"
	predicateAnnotation = "predicateType"
)

const (
	inTotoType = "application/vnd.in-toto+json"

	// maxSBOM is how large an SBOM may be, as in cosign.
	maxSBOM = 128 << 20
)

type downloadFlags struct {
	imageFlags
	predicate string
	layer     string
}

func newDownloadCommand() *cobra.Command {
	var old downloadFlags
	cmd := &cobra.Command{
		Use:   "download",
		Short: "Print the signatures, attestations or SBOM of an image",
		Example: `  vidimus download signature ghcr.io/acme/web:v1
  vidimus download attestation --predicate-type slsaprovenance1 ghcr.io/acme/web:v1
  vidimus download sbom ghcr.io/acme/web:v1 > web.spdx`,
		// The first cosign had no words after download: it was signatures.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("download takes signature, attestation or sbom, and %q is neither", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return old.signatures(cmd, args[0])
		},
	}
	old.imageFlags.register(cmd, 3*time.Minute)
	cmd.AddCommand(newDownloadSignature(), newDownloadAttestation(), newDownloadSBOM())
	registerCosignFlags(cmd, "download signature")
	return cmd
}

func newDownloadSignature() *cobra.Command {
	var f downloadFlags
	cmd := &cobra.Command{
		Use:     "signature IMAGE",
		Aliases: []string{"signatures", "sig"},
		Short:   "Print the signatures of an image",
		Long: `Print the signatures of an image, each on a line: first those under its tags, in the
form of cosign, then the sigstore bundles that hold a signature, as they are. cosign
v3 prints bundles alone where there are any; here nothing is left out. Nothing is
verified.

Exit code 0: printed; 1: there are none; 2: misuse; 3: could not tell.`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.signatures(cmd, args[0]) },
	}
	f.imageFlags.register(cmd, 3*time.Minute)
	registerCosignFlags(cmd, "download signature")
	return cmd
}

func newDownloadAttestation() *cobra.Command {
	var f downloadFlags
	cmd := &cobra.Command{
		Use:     "attestation IMAGE",
		Aliases: []string{"attestations", "att"},
		Short:   "Print the attestations of an image",
		Long: `Print the attestations of an image, each on a line: first the DSSE envelopes under its
tag, then the sigstore bundles that hold an attestation, as they are. Nothing is
verified.

Exit code 0: printed; 1: there are none (of the predicate type); 2: misuse; 3: could
not tell.`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.attestations(cmd, args[0]) },
	}
	f.imageFlags.register(cmd, 3*time.Minute)
	f.registerPlatform(cmd, "of what an index lists for this `PLATFORM`")
	cmd.Flags().StringVar(&f.predicate, "predicate-type", "", "only those of this `TYPE`: a URI, or cosign's word for it")
	registerCosignFlags(cmd, "download attestation")
	return cmd
}

func newDownloadSBOM() *cobra.Command {
	var f downloadFlags
	cmd := &cobra.Command{
		Use:     "sbom IMAGE",
		Aliases: []string{"sboms"},
		Short:   "Print the SBOM that is attached to an image",
		Long: `Print the SBOM that is attached to an image under its tag, as it is. Where there are
several, the last one is printed, and standard error lists them all. It is not
signed by being there: an attestation is.

Exit code 0: printed; 1: there is none; 2: misuse; 3: could not tell.`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.sbom(cmd, args[0]) },
	}
	f.imageFlags.register(cmd, 3*time.Minute)
	f.registerPlatform(cmd, "of what an index lists for this `PLATFORM`")
	cmd.Flags().StringVar(&f.layer, "digest", "", "of several, the one with this `DIGEST`")
	registerCosignFlags(cmd, "download sbom")
	return cmd
}

// open finds an image and what is said about it alone.
func (f *downloadFlags) open(ctx context.Context, cmd *cobra.Command, image string) (*carrier.Node, error) {
	ref, err := f.parse(image)
	if err != nil {
		return nil, err
	}
	g, err := f.find(ctx, cmd, ref, carrier.Options{Alone: true})
	if err != nil {
		return nil, err
	}
	return g.Root, nil
}

// signedPayload is a signature in the form of cosign's download signature; the names
// and their order are its.
type signedPayload struct {
	Base64Signature  string
	Payload          []byte
	Cert             *x509.Certificate
	Chain            []*x509.Certificate
	Bundle           json.RawMessage
	RFC3161Timestamp json.RawMessage
}

func (f *downloadFlags) signatures(cmd *cobra.Command, image string) error {
	signatures := wantedEvidence{kind: carrier.Signature, mediaType: envelope.MediaTypeSimpleSigning, called: "signatures"}
	return f.lines(cmd, image, signatures, func(ctx context.Context, from carrier.Place, layer v1.Descriptor) (any, error) {
		return readSigned(ctx, from, layer)
	})
}

// wantedEvidence is what of an image's evidence is printed.
type wantedEvidence struct {
	kind      carrier.Kind
	mediaType types.MediaType // of layers
	predicate string          // type of the bundles; empty for any
	called    string
}

// lines prints evidence of an image, each piece on a line: what read makes of the layers
// under tags, where it makes something, and then the bundles.
func (f *downloadFlags) lines(cmd *cobra.Command, image string, wanted wantedEvidence,
	read func(ctx context.Context, from carrier.Place, layer v1.Descriptor) (any, error),
) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	root, err := f.open(ctx, cmd, image)
	if err != nil {
		return err
	}
	var lines lines
	for _, source := range evidenceImages(root, wanted.kind) {
		for _, layer := range source.Layers {
			if layer.MediaType != wanted.mediaType {
				continue
			}
			document, err := read(ctx, source.From, layer)
			if err == nil && document != nil {
				err = lines.add(document)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := lines.addBundles(ctx, root, wanted.kind, wanted.predicate); err != nil {
		return err
	}
	if lines.count == 0 {
		return doesNotHold(fmt.Errorf("%s (%s) has no %s", image, root.Digest, wanted.called))
	}
	return lines.print(cmd)
}

// evidenceImages are the images under tags, and the referrers, that hold evidence of a kind.
func evidenceImages(root *carrier.Node, kind carrier.Kind) []*carrier.Node {
	var images []*carrier.Node
	for _, tagged := range root.Tagged {
		if tagged.Kind == kind {
			images = append(images, tagged.Node)
		}
	}
	for _, referrer := range root.Referrers {
		if referrer.Kind == kind {
			images = append(images, referrer)
		}
	}
	return images
}

func readSigned(ctx context.Context, from carrier.Place, layer v1.Descriptor) (signedPayload, error) {
	signed := signedPayload{Base64Signature: layer.Annotations[signatureAnnotation]}
	var err error
	if signed.Payload, err = carrier.ReadBlob(ctx, from, layer, verifier.MaxPayloadSize); err != nil {
		return signed, err
	}
	wrong := func(what string, err error) error {
		return fmt.Errorf("the signature over %s: %s: %w", layer.Digest, what, err)
	}
	certs, err := certificates(layer.Annotations[certAnnotation])
	if err != nil {
		return signed, wrong("certificate", err)
	}
	if len(certs) > 0 {
		signed.Cert = certs[0]
	}
	if signed.Chain, err = certificates(layer.Annotations[chainAnnotation]); err != nil {
		return signed, wrong("chain", err)
	}
	if signed.Bundle, err = compact(layer.Annotations[logAnnotation]); err != nil {
		return signed, wrong("bundle", err)
	}
	if signed.RFC3161Timestamp, err = compact(layer.Annotations[timestampAnnotation]); err != nil {
		return signed, wrong("timestamp", err)
	}
	return signed, nil
}

func certificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("not PEM")
			}
			return all, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
}

// compact returns JSON on one line; nil for no text.
func compact(text string) (json.RawMessage, error) {
	if text == "" {
		return nil, nil
	}
	var b bytes.Buffer
	err := json.Compact(&b, []byte(text))
	return b.Bytes(), err
}

// dsseEnvelope is a DSSE envelope in the form of cosign's download attestation.
type dsseEnvelope struct {
	PayloadType string          `json:"payloadType"`
	Payload     string          `json:"payload"`
	Signatures  []dsseSignature `json:"signatures"`
}

type dsseSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// statement returns what the envelope says.
func (e dsseEnvelope) statement() (envelope.Statement, error) {
	data, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return envelope.Statement{}, fmt.Errorf("payload: %w", err)
	}
	return envelope.ParseStatement(data)
}

func (f *downloadFlags) attestations(cmd *cobra.Command, image string) error {
	attestations := wantedEvidence{kind: carrier.Attestation, mediaType: envelope.MediaTypeDSSE, called: "attestations"}
	if f.predicate != "" {
		var err error
		if attestations.predicate, err = envelope.PredicateType(f.predicate); err != nil {
			return misuse(fmt.Errorf("--predicate-type: %w", err))
		}
		attestations.called += " of predicate type " + attestations.predicate
	}
	return f.lines(cmd, image, attestations, func(ctx context.Context, from carrier.Place, layer v1.Descriptor) (any, error) {
		data, err := carrier.ReadBlob(ctx, from, layer, verifier.MaxPayloadSize)
		if err != nil {
			return nil, err
		}
		var e dsseEnvelope
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, fmt.Errorf("the attestation %s is no DSSE envelope: %w", layer.Digest, err)
		}
		if attestations.predicate != "" {
			statement, err := e.statement()
			if err != nil || statement.PredicateType != attestations.predicate {
				return nil, nil
			}
		}
		return e, nil
	})
}

// lines are JSON documents, each on a line.
type lines struct {
	text  bytes.Buffer
	count int
}

func (l *lines) add(document any) error {
	data, err := json.Marshal(document)
	if err != nil {
		return err
	}
	l.count++
	l.text.Write(data)
	l.text.WriteByte('\n')
	return nil
}

// addBundles adds the bundles of a kind, of one predicate type when one is wanted.
func (l *lines) addBundles(ctx context.Context, root *carrier.Node, kind carrier.Kind, predicate string) error {
	for _, referrer := range root.Referrers {
		if referrer.Kind != kind || predicate != "" && referrer.Predicate != predicate {
			continue
		}
		for _, layer := range referrer.Layers {
			if !envelope.IsBundle(string(layer.MediaType)) {
				continue
			}
			data, err := carrier.ReadBlob(ctx, referrer.From, layer, verifier.MaxPayloadSize)
			if err != nil {
				return err
			}
			document, err := compact(string(data))
			if err != nil {
				return fmt.Errorf("the bundle %s: %w", layer.Digest, err)
			}
			if err := l.add(document); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lines) print(cmd *cobra.Command) error {
	_, err := cmd.OutOrStdout().Write(l.text.Bytes())
	return err
}

func (f *downloadFlags) sbom(cmd *cobra.Command, image string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	root, err := f.open(ctx, cmd, image)
	if err != nil {
		return err
	}
	type attached struct {
		from  carrier.Place
		layer v1.Descriptor
	}
	var all []attached
	for _, source := range evidenceImages(root, carrier.SBOM) {
		for _, layer := range source.Layers {
			all = append(all, attached{source.From, layer})
		}
	}
	if len(all) == 0 {
		return doesNotHold(fmt.Errorf("%s (%s) has no SBOM", image, root.Digest))
	}
	chosen := len(all) - 1
	if f.layer != "" {
		for chosen >= 0 && all[chosen].layer.Digest.String() != f.layer {
			chosen--
		}
		if chosen < 0 {
			return doesNotHold(fmt.Errorf("%s (%s) has no SBOM %s", image, root.Digest, f.layer))
		}
	}
	if len(all) > 1 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d SBOMs are attached; --digest chooses:\n", len(all))
		for _, a := range all {
			fmt.Fprintf(cmd.ErrOrStderr(), "  %s %s\n", a.layer.Digest, printable(string(a.layer.MediaType)))
		}
	}
	content, err := carrier.ReadBlob(ctx, all[chosen].from, all[chosen].layer, maxSBOM)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Found SBOM of media type: %s\n", printable(string(all[chosen].layer.MediaType)))
	_, err = io.Copy(cmd.OutOrStdout(), bytes.NewReader(content))
	return err
}
