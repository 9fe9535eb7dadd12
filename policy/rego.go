package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
)

// Rego is a compiled module of Rego, as package policy/rego makes it. It may be called
// by several goroutines at once.
type Rego interface {
	// Judge returns why the module denies what is in input, a JSON document; nothing
	// when it does not. That it could not be evaluated is such a reason. An error means
	// that ctx ended.
	Judge(ctx context.Context, input []byte) (reasons []string, err error)
	// ReadsTag reports whether the answer may depend on the tag.
	ReadsTag() bool
}

// maxRegoInput is how many bytes of predicates one module is given at most.
const maxRegoInput = 4 << 20

// regoImage is the image in the input of every module. Tag is nil for a module that
// does not read it, so that no decision can depend on it unknown to Scope.
type regoImage struct {
	Repository string  `json:"repository"`
	Digest     string  `json:"digest"`
	Tag        *string `json:"tag,omitempty"`
}

// regoSignature is one verified signature. Counted says whether the policy's require
// counts it: by an authority that it names, for this name, with the annotations.
type regoSignature struct {
	Form        string         `json:"form"`
	Digest      string         `json:"digest"`
	Authorities []string       `json:"authorities"`
	KeyIDs      []string       `json:"keyIDs"`
	ClaimedName string         `json:"claimedName"`
	Annotations map[string]any `json:"annotations"`
	Counted     bool           `json:"counted"`
	regoSigner
}

// regoSigner is what a certificate and a trusted time say of who signed something. Both
// are empty where there is none.
type regoSigner struct {
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject"`
	SignedAt string `json:"signedAt"` // RFC 3339, in UTC
}

func signerFor(e verifier.Evidence) regoSigner {
	issuer, subject := e.Identity()
	signedAt := ""
	if at, proven := e.SignedAt(); proven {
		signedAt = at.UTC().Format(time.RFC3339)
	}
	return regoSigner{issuer, subject, signedAt}
}

// keyIDs is a list also where a certificate names the signer.
func keyIDs(e verifier.Evidence) []string { return append([]string{}, e.KeyIDs()...) }

// regoAttestation is one verified attestation.
type regoAttestation struct {
	Digest        string          `json:"digest"`
	Authorities   []string        `json:"authorities"`
	KeyIDs        []string        `json:"keyIDs"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate,omitempty"`
	regoSigner
}

// regoInput is what the Rego of a policy is given.
type regoInput struct {
	Image        regoImage         `json:"image"`
	Signatures   []regoSignature   `json:"signatures"`
	Attestations []regoAttestation `json:"attestations"`
}

// regoPredicate is what the Rego of an attestation is given.
type regoPredicate struct {
	Image regoImage `json:"image"`
	regoAttestation
}

func imageFor(module Rego, subject Subject) regoImage {
	image := regoImage{Repository: subject.Repository, Digest: subject.Digest.String()}
	if module.ReadsTag() {
		image.Tag = &subject.Tag
	}
	return image
}

func attestationFor(e verifier.Evidence) regoAttestation {
	return regoAttestation{e.Digest().String(), e.Authorities(), keyIDs(e), e.PredicateType(), e.Predicate(), signerFor(e)}
}

// judgeAttestations asks the Rego of the attestations that p requires about those that
// are there, until each is met. An error means that ctx ended.
func judgeAttestations(ctx context.Context, p *Policy, suspended map[string]string, subject Subject, evidence []verifier.Evidence, at time.Time) (judgements, error) {
	judged := make(judgements)
	for i, wanted := range p.Attestations {
		if wanted.Rego == nil {
			continue
		}
		for j, e := range evidence {
			if near, _ := weighAttestation(p, wanted, suspended, e, at); near != attestedDenied {
				continue
			}
			denials, err := judge(ctx, wanted.Rego, regoPredicate{imageFor(wanted.Rego, subject), attestationFor(e)})
			if err != nil {
				return nil, err
			}
			judged[judgement{i, j}] = denials
			if weighAttestations(p, i, suspended, evidence, judged, at).met {
				break
			}
		}
	}
	return judged, nil
}

// judgePolicy asks the Rego of p about all verified evidence.
func judgePolicy(ctx context.Context, p *Policy, suspended map[string]string, subject Subject, evidence []verifier.Evidence, at time.Time) ([]string, error) {
	input := regoInput{imageFor(p.Rego, subject), []regoSignature{}, []regoAttestation{}}
	size := 0
	for _, e := range evidence {
		if !e.Verified() {
			continue
		}
		if size += e.PredicateSize(); size > maxRegoInput {
			return []string{fmt.Sprintf("there are more than %d MiB of attestations, which is more than it is given", maxRegoInput>>20)}, nil
		}
		if !e.IsSignature() {
			input.Attestations = append(input.Attestations, attestationFor(e))
			continue
		}
		annotations := e.Annotations()
		if annotations == nil {
			annotations = map[string]any{}
		}
		input.Signatures = append(input.Signatures, regoSignature{
			e.Form(), e.Digest().String(), e.Authorities(), keyIDs(e), e.ClaimedName(), annotations,
			p.counts(suspended, subject, e, at), signerFor(e),
		})
	}
	return judge(ctx, p.Rego, input)
}

// unchanged returns until when p's Rego is given the same of evidence, at the latest, for
// it may deny as soon as one signature counts no more, or another one does; zero is for
// ever.
func (p *Policy) unchanged(evidence []verifier.Evidence, at time.Time) (until time.Time) {
	next := func(moment time.Time) {
		if moment.After(at) {
			until = earlier(until, moment)
		}
	}
	for _, e := range evidence {
		if !e.Verified() {
			continue
		}
		next(e.Until())
		signed, proven := e.SignedAt()
		if proven {
			next(signed.Add(p.MaxAge))
			next(signed.Add(p.MinAge))
			continue
		}
		for _, name := range e.Authorities() {
			window := p.windows[name][e.KeyID()]
			next(window.From)
			next(window.Until)
		}
	}
	return until
}

func judge(ctx context.Context, module Rego, input any) ([]string, error) {
	encoded, err := json.Marshal(input)
	if err != nil {
		return []string{"its input could not be made: " + err.Error()}, nil
	}
	return module.Judge(ctx, encoded)
}

// reasonsText is what Rego said, on one line.
func reasonsText(reasons []string) string {
	kept := make([]string, 0, len(reasons))
	for _, reason := range reasons {
		if reason = oneLine(reason, maxReason); reason == "" {
			reason = "without a reason"
		}
		kept = append(kept, reason)
	}
	return clean(strings.Join(kept, "; "), maxText)
}

const hintRego = "the policy's Rego says what it wants; vidimus explain shows the evidence that it was given"

// judge asks p's own Rego about d, which all else allows. An error says that nobody
// could tell.
func (e *Evaluator) judge(ctx context.Context, p *Policy, d *Decision, evidence []verifier.Evidence) error {
	unknown := func(e verifier.Evidence) bool { return e.Reason() == ReasonUntrusted }
	if names, causes := e.set.allSuspended(); len(names) > 0 && slices.ContainsFunc(evidence, unknown) {
		why := strings.Join(causes, "; ")
		return d.doubt(clean("the policy's Rego needs all evidence, and "+why, maxReason), hintSuspended(p, names), errors.New(why), causes...)
	}
	reasons, err := judgePolicy(ctx, p, e.set.suspended, d.Subject, evidence, d.Time)
	switch {
	case err != nil:
		return d.doubt("there was no time for the policy's Rego", hintAgain, err, err.Error())
	case len(reasons) > 0:
		d.deny(ReasonRego, "denied by the policy's Rego: "+reasonsText(reasons), Remedy{Do: hintRego})
	}
	return nil
}
