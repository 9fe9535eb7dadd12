package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/verifier"
)

// refuseUnclaimed refuses with --check-claims=false what could not be told then.
func (f *verifyFlags) refuseUnclaimed(by wantedSigner, annotations map[string]string) error {
	switch {
	case f.checkClaims:
		return nil
	case len(annotations) > 0:
		return errors.New("-a: with --check-claims=false nothing is checked that a payload claims, annotations neither")
	case len(by.Keys) == 0:
		return errors.New("--check-claims=false is not supported for certificates: name a key with --key")
	}
	return nil
}

// verifyUnclaimed returns the payloads that are attached to an image and signed by a key,
// whatever they say: cosign keeps signatures over payloads of every format.
func (f *verifyFlags) verifyUnclaimed(ctx context.Context, reference name.Reference, by wantedSigner) ([]json.RawMessage, error) {
	registry, digest, free, err := f.find(ctx, reference)
	if err != nil {
		return nil, err
	}
	defer free()
	subject := verifier.Subject{Repository: canonicalName(reference), Digest: digest}
	report := verifier.Verify(ctx, registry, subject, []verifier.Authority{by.Authority}, verifier.Sources(), nil)
	var payloads []json.RawMessage
	for _, e := range report.Evidence {
		payload, err := f.unclaimed(ctx, registry, e, reference, digest)
		if err != nil {
			return nil, fmt.Errorf("could not tell: %s: %w", e.Source(), err)
		}
		if payload != nil {
			payloads = append(payloads, payload)
		}
	}
	switch {
	case len(payloads) > 0:
		return payloads, nil
	case len(report.Failures) > 0:
		return nil, fmt.Errorf("could not tell: %s: %w", report.Failures[0].Source, report.Failures[0].Err)
	default:
		return nil, doesNotHold(fmt.Errorf("%s: nothing that is attached to it is signed by %s", digest, by.called))
	}
}

// unclaimed returns what the key signed, nil when it has not signed e. A bundle claims
// little more than a digest, so that one about another image is left out.
func (f *verifyFlags) unclaimed(ctx context.Context, registry direct, e verifier.Evidence, reference name.Reference, digest v1.Hash) (json.RawMessage, error) {
	switch {
	case e.KeyID() == "" || !e.IsSignature():
		return nil, nil
	case e.Form() != verifier.FormSimpleSigning && e.Verified():
		return payloadOf(e, reference.String(), digest)
	case e.Form() != verifier.FormSimpleSigning:
		return nil, nil
	}
	payload, err := registry.payload(ctx, e.Digest())
	if err == nil && f.output == "json" && !json.Valid(payload) {
		return json.Marshal(string(payload))
	}
	return payload, err
}

// printUnclaimed prints payloads whose signatures alone were checked.
func printUnclaimed(cmd *cobra.Command, output, image string, payloads []json.RawMessage) error {
	fmt.Fprintf(cmd.ErrOrStderr(), `
Verification for %s --
The following checks were performed on each of these signatures:
  - The signatures were verified against the specified public key
Warning: the following claims have not been verified:
`, image)
	return printPayloads(cmd.OutOrStdout(), output, payloads)
}

// payload reads what a signature is over, of which only the digest is known.
func (d direct) payload(ctx context.Context, digest v1.Hash) ([]byte, error) {
	body, _, err := d.evidence.client.Blob(ctx, d.evidence.repository, digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := readAtMost(body, verifier.MaxPayloadSize)
	if err == nil && sha256Of(content) != digest {
		err = errors.New("the registry sent other bytes")
	}
	return content, err
}
