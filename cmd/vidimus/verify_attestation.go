package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/policy/rego"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

type verifyAttestationFlags struct {
	judgingFlags
	predicateType string
	policies      []string
}

func newVerifyAttestationCommand() *cobra.Command {
	var f verifyAttestationFlags
	cmd := &cobra.Command{
		Use:   "verify-attestation --key KEY IMAGE... | verify-attestation --certificate-identity WHO --certificate-oidc-issuer URL IMAGE...",
		Short: "Check that a statement about an image is signed by a key or an identity",
		Long: `Check the attestations of images with one public key, or by whom a certificate names,
as cosign verify-attestation does, and print those of the predicate type as DSSE
envelopes, a line of JSON each, with the signatures that hold. They are looked for at
the image's tag .att, in sigstore bundles and in other referrers of the image, or in
COSIGN_REPOSITORY.

KEY is a file, env://NAME, or the bare base64 body of a public key. The flags about
certificates are those of verify. --type is a URI or one of ` + strings.Join(envelope.PredicateAliases(), ", ") + `.

--policy names a file of Rego in cosign's form (package signature, rule allow); its
input is the statement. Every attestation of the type must satisfy every one. CUE is
not supported.

Exit code 0: every image is attested so; 1: one is not, or does not exist;
2: misuse; 3: could not tell.`,
		Example: `  vidimus verify-attestation --key cosign.pub --type slsaprovenance1 ghcr.io/acme/web:v1
  vidimus verify-attestation --key cosign.pub --type vuln --policy scan.rego ghcr.io/acme/web@sha256:...
  vidimus verify-attestation --certificate-oidc-issuer https://token.actions.githubusercontent.com \
    --certificate-identity-regexp 'https://github\.com/acme/web/.*' --type slsaprovenance1 ghcr.io/acme/web:v1`,
		Args: takesImages,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.predicateType, "type", "custom", "predicate type: an alias or a URI")
	flags.StringSliceVar(&f.policies, "policy", nil, "`FILE` of Rego that every attestation must satisfy; may be repeated")
	f.register(cmd, "json or text; attestations are JSON either way")
	return cmd
}

// askedAttestation is what the flags ask for.
type askedAttestation struct {
	by            wantedSigner
	predicateType string
	modules       []askedModule
}

type askedModule struct {
	file string
	*rego.Module
}

func (f *verifyAttestationFlags) run(cmd *cobra.Command, images []string) error {
	if err := f.refuse(cmd); err != nil {
		return err
	}
	asked, err := f.asked(cmd.Context())
	if err != nil {
		return flagFault(err)
	}
	judge := func(ctx context.Context, reference name.Reference) ([]verifier.Evidence, error) {
		return f.verify(ctx, reference, asked)
	}
	return judgeEach(cmd, &f.judgingFlags, images, judge, func(image string, holding []verifier.Evidence) error {
		return printAttestations(cmd, image, holding, len(asked.by.Keys) == 0)
	})
}

// asked reads what the flags name.
func (f *verifyAttestationFlags) asked(ctx context.Context) (asked askedAttestation, err error) {
	if asked.by, err = f.wanted(ctx); err != nil {
		return asked, err
	}
	if asked.predicateType, err = envelope.PredicateType(f.predicateType); err != nil {
		return asked, fmt.Errorf("--type: %w", err)
	}
	for _, file := range f.policies {
		if filepath.Ext(file) == ".cue" {
			return asked, fmt.Errorf("--policy %s: CUE is not supported: write the policy in Rego (package signature, rule allow)", file)
		}
		source, err := readRegular(file, rego.MaxSource)
		if err != nil {
			return asked, fmt.Errorf("--policy: %s", plainError(err))
		}
		module, err := rego.Compile(filepath.Base(file), source, rego.Statement)
		if err != nil {
			return asked, fmt.Errorf("--policy %s: %w", file, err)
		}
		asked.modules = append(asked.modules, askedModule{file, module})
	}
	return asked, nil
}

// verify returns the attestations of the type that hold, at least one.
func (f *verifyAttestationFlags) verify(ctx context.Context, reference name.Reference, asked askedAttestation) ([]verifier.Evidence, error) {
	registry, digest, free, err := f.find(ctx, reference)
	if err != nil {
		return nil, err
	}
	defer free()
	subject := verifier.Subject{Repository: canonicalName(reference), Digest: digest, Attestations: true}
	report := verifier.Verify(ctx, registry, subject, []verifier.Authority{asked.by.Authority}, verifier.Sources(), nil)
	var holding []verifier.Evidence
	var others []string
	var rejected string // why one does not count that has a certificate
	for _, e := range report.Evidence {
		switch {
		case !e.Verified() && e.Certified():
			rejected = e.Detail()
		case !e.Verified() || e.IsSignature():
		case e.PredicateType() == asked.predicateType:
			holding = append(holding, e)
		case !slices.Contains(others, e.PredicateType()):
			others = append(others, e.PredicateType())
		}
	}
	// What could not be read, or was not looked at, may be what is missing, or what a
	// policy has something against.
	if len(holding) == 0 || len(asked.modules) > 0 {
		if len(report.Failures) > 0 {
			failure := report.Failures[0]
			return nil, fmt.Errorf("could not tell: %s: %w", failure.Source, failure.Err)
		}
		if report.TooMany {
			return nil, doesNotHold(fmt.Errorf("%s: there are more attestations than are looked at", digest))
		}
	}
	if len(holding) == 0 {
		text := fmt.Sprintf("%s: no attestation of %s by %s holds", digest, envelope.PredicateName(asked.predicateType), asked.by.called)
		switch {
		case len(others) > 0:
			text += "; it attested " + displayed(strings.Join(others, ", "))
		case len(asked.by.Keys) == 0 && rejected != "":
			text += ": " + displayed(rejected)
		}
		return nil, doesNotHold(errors.New(text))
	}
	return holding, asked.satisfied(ctx, holding)
}

// satisfied asks the policies about each attestation.
func (asked askedAttestation) satisfied(ctx context.Context, holding []verifier.Evidence) error {
	var against []string
	for _, e := range holding {
		held, _ := e.Envelope()
		for _, module := range asked.modules {
			reasons, err := module.Judge(ctx, held.Statement)
			if err != nil {
				return fmt.Errorf("could not tell: %w", err)
			}
			for _, reason := range reasons {
				against = append(against, fmt.Sprintf("%s, attestation %s: %s", module.file, e.Digest(), displayed(reason)))
			}
		}
	}
	if len(against) > 0 {
		return doesNotHold(errors.New("an attestation does not satisfy the policy: " + strings.Join(against, "; ")))
	}
	return nil
}

// printAttestations prints what cosign verify-attestation prints: what was checked for
// people, the envelopes for programs.
func printAttestations(cmd *cobra.Command, image string, holding []verifier.Evidence, certified bool) error {
	printChecks(cmd.ErrOrStderr(), image, false, certified)
	for _, e := range holding {
		held, _ := e.Envelope()
		line, err := envelope.EncodeEnvelope(held)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line); err != nil {
			return err
		}
	}
	return nil
}
