package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

type attestFlags struct {
	writerFlags
	signedByFlags
	formatFlag
	bundleFlag
	predicate     string
	predicateType string
	noUpload      bool
	replace       bool
}

func newAttestCommand() *cobra.Command { return new(attestFlags).command() }

func (f *attestFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attest --predicate FILE [--type TYPE] [--key KEY] IMAGE",
		Short: "Sign a statement about an image, and attach it to the image in its registry",
		Long: `Sign an in-toto statement about an image, as cosign does, and attach it: as a
sigstore bundle that refers to the image, and under the tag sha256-<hex>.att for
those who read no bundles. --format chooses one.

The statement says what the predicate file says. Its type is one of cosign's short
names (slsaprovenance, slsaprovenance1, link, spdx, spdxjson, cyclonedx, vuln,
openvex, custom) or a URI. A predicate is a JSON object; with custom it may be any
text. Who signs is said as with vidimus sign.

With --replace the attestations of the same type that the image had before are taken
away, once this one is in place: whoever signed them, under the tag and among the
bundles. Those of other types stay, and so does what somebody else attaches meanwhile.

--bundle FILE writes the bundle to a file as well. With --no-upload nothing is attached:
the DSSE envelope is printed, or the bundle with --format bundle and where there is
proof, for which an envelope has no room. vidimus attach attestation attaches either.

An attestation is not a signature: it counts for a policy that names its type only.`,
		Example: `  vidimus attest --key cosign.key --type slsaprovenance1 --predicate provenance.json ghcr.io/acme/web@sha256:...`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one image")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.writerFlags.register(cmd)
	f.signedByFlags.register(cmd)
	f.formatFlag.register(cmd)
	f.bundleFlag.register(cmd)
	f.registerRecordTime(cmd)
	cmd.Flags().BoolVar(&f.replace, "replace", false, "take away what was attested before of this type, by whomever")
	cmd.Flags().BoolVar(&f.noUpload, "no-upload", false, "print the attestation instead of attaching it")
	cmd.Flags().StringVar(&f.predicate, "predicate", "", "`FILE` with the predicate")
	cmd.Flags().StringVar(&f.predicateType, "type", "custom", "predicate type: a short name or a URI")
	registerCosignFlags(cmd, "attest")
	return cmd
}

func (f *attestFlags) run(cmd *cobra.Command, image string) error {
	if f.replace && f.noUpload {
		return misuse(errors.New("--replace and --no-upload: what is not attached replaces nothing"))
	}
	predicateType, predicate, err := f.readPredicate()
	if err != nil {
		return misuse(err)
	}
	ref, err := name.ParseReference(image, f.nameOptions()...)
	if err != nil {
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
	if err := f.bundleFlag.refuse(formats, 1); err != nil {
		return misuse(err)
	}
	if _, ok := ref.(name.Digest); !ok {
		warnTag(cmd.ErrOrStderr(), image)
	}
	return f.attest(ctx, cmd, by, formats, ref, predicateType, predicate)
}

// readPredicate returns the type and the predicate.
func (f *attestFlags) readPredicate() (string, json.RawMessage, error) {
	predicateType, err := envelope.PredicateType(f.predicateType)
	if err != nil {
		return "", nil, fmt.Errorf("--type: %w", err)
	}
	if f.predicate == "" {
		return "", nil, errors.New("say what is attested with --predicate")
	}
	data, err := readBounded(f.predicate)
	if err != nil {
		return "", nil, fmt.Errorf("--predicate: %w", err)
	}
	if predicateType == envelope.PredicateCustom {
		predicate, err := json.Marshal(struct{ Data, Timestamp string }{string(data), time.Now().UTC().Format(time.RFC3339)})
		return predicateType, predicate, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil || members == nil {
		return "", nil, fmt.Errorf("--predicate %s: a predicate of this type is a JSON object (--type custom takes any text)", f.predicate)
	}
	return predicateType, data, nil
}

// attest signs the statement, attaches it, and prints how to verify it.
func (f *attestFlags) attest(ctx context.Context, cmd *cobra.Command, by signedBy, formats []signer.Format,
	ref name.Reference, predicateType string, predicate json.RawMessage) error {
	f.readsOnly = f.noUpload
	s, place, err := f.attacher(cmd, by, formats, ref)
	if err != nil {
		return err
	}
	subject, err := signer.Describe(ctx, place.registry, ref.Context().Name(), ref.Identifier())
	if err != nil {
		return notThere(err)
	}
	request := signer.Request{
		Subject: subject.Digest, MediaType: subject.MediaType, Size: subject.Size,
		Repository: place.repository.Name(), Reference: ref.Context().Name(),
		PredicateType: predicateType, Predicate: predicate, Replace: f.replace,
	}
	if f.noUpload && f.bundle != "" {
		return f.sealOnly(ctx, cmd, by, request)
	}
	if f.noUpload {
		return printAttestation(ctx, cmd, by, formats, request)
	}
	results, err := s.Sign(ctx, request)
	if err != nil {
		return err
	}
	report(cmd.ErrOrStderr(), &f.registryFlags, "attested", results)
	if f.replace {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s replaced: %d earlier attestations of %s\n", subject.Digest, results[0].Replaced, predicateType)
	}
	if err := f.writeResult(cmd, results); err != nil {
		return err
	}
	return verifyCommand{
		command: []string{"cosign", "verify-attestation", "--type", shellQuote(f.predicateType)}, by: by,
		flags: &f.signedByFlags, registry: &f.registryFlags, what: ref.Context().Name() + "@" + subject.Digest.String(),
	}.print(cmd.OutOrStdout())
}

// printAttestation signs the statement and prints it: as a bundle where that is asked
// for, or holds the proof.
func printAttestation(ctx context.Context, cmd *cobra.Command, by signedBy, formats []signer.Format, request signer.Request) error {
	bundled := !slices.Contains(formats, signer.FormatTag)
	if by.keyless() || by.proven() {
		if len(formats) == 1 && !bundled {
			return misuse(errors.New("--no-upload prints an envelope, which has no room for proof: use --format bundle"))
		}
		bundled = true
	}
	statement, sealed, err := sealStatement(ctx, by, request)
	if err != nil {
		return err
	}
	printed := sealed.Bundle
	if !bundled {
		printed, err = envelope.EncodeEnvelope(envelope.Envelope{
			Statement: statement, Signatures: []envelope.EnvelopeSignature{{Signature: sealed.Signature}},
		})
		if err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", printed)
	return err
}
