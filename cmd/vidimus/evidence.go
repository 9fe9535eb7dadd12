package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// piece is one piece of evidence as verifier.Evidence writes itself, in an
// explanation made here as in a record of elsewhere. It is for showing only.
type piece struct {
	Form        string         `json:"form"`
	Source      string         `json:"source"`
	Verified    bool           `json:"verified"`
	Reason      string         `json:"reason"`
	Detail      string         `json:"detail"`
	KeyID       string         `json:"keyID"`
	Issuer      string         `json:"issuer"`
	Subject     string         `json:"subject"`
	SignedAt    time.Time      `json:"signedAt"`
	Authorities []string       `json:"authorities"`
	ClaimedName string         `json:"claimedName"`
	Annotations map[string]any `json:"annotations"`
	Predicate   string         `json:"predicateType"`
}

// parseEvidence reads a list of evidence; nothing is an empty list.
func parseEvidence(encoded []byte) ([]piece, error) {
	if len(encoded) == 0 {
		return nil, nil
	}
	var pieces []piece
	if err := json.Unmarshal(encoded, &pieces); err != nil {
		return nil, fmt.Errorf("the evidence of the decision does not parse: %w", err)
	}
	return pieces, nil
}

// evidenceTree shows evidence under the places where it was found:
//
//	sha256-<hex>.sig
//	├─ verified: simple-signing by release (key 3f2a51c0…), for ghcr.io/acme/web
//	└─ rejected (untrusted): simple-signing; signed by none of the keys asked for
func evidenceTree(pieces []piece) []string {
	var sources []string
	from := make(map[string][]piece)
	for _, p := range pieces {
		if from[p.Source] == nil {
			sources = append(sources, p.Source)
		}
		from[p.Source] = append(from[p.Source], p)
	}
	var lines []string
	for _, source := range sources {
		lines = append(lines, displayed(source))
		for i, p := range from[source] {
			branch := "├─ "
			if i == len(from[source])-1 {
				branch = "└─ "
			}
			lines = append(lines, branch+displayed(p.String()))
		}
	}
	return lines
}

// String is what became of a piece of evidence, in one line.
func (p piece) String() string {
	var b strings.Builder
	if p.Verified {
		fmt.Fprintf(&b, "verified: %s", p.Form)
	} else {
		fmt.Fprintf(&b, "rejected (%s): %s", p.Reason, p.Form)
	}
	if p.Predicate != "" {
		fmt.Fprintf(&b, " of %s", p.Predicate)
	}
	if len(p.Authorities) > 0 {
		fmt.Fprintf(&b, " by %s", strings.Join(p.Authorities, ", "))
	}
	// the detail of a rejection may have told it already
	if p.KeyID != "" && !strings.Contains(p.Detail, p.KeyID[:min(len(p.KeyID), 8)]) {
		fmt.Fprintf(&b, " (key %s)", shortID(p.KeyID))
	}
	if p.Subject != "" && !strings.Contains(p.Detail, p.Subject) {
		fmt.Fprintf(&b, " (%s", p.Subject)
		if p.Issuer != "" {
			fmt.Fprintf(&b, ", by %s", p.Issuer)
		}
		b.WriteString(")")
	}
	if !p.SignedAt.IsZero() {
		fmt.Fprintf(&b, " at %s", p.SignedAt.UTC().Format(time.RFC3339))
	}
	if p.ClaimedName != "" && !strings.Contains(p.Detail, p.ClaimedName) {
		fmt.Fprintf(&b, ", for %s", p.ClaimedName)
	}
	for i, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		separator := ", "
		if i == 0 {
			separator = "; annotations "
		}
		fmt.Fprintf(&b, "%s%s=%v", separator, name, p.Annotations[name])
	}
	if p.Detail != "" {
		fmt.Fprintf(&b, "; %s", p.Detail)
	}
	return b.String()
}
