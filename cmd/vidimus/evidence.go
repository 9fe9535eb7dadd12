package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/verifier"
)

// piece is one piece of evidence as it stands in an explanation made here and in a
// record of elsewhere. It is for showing only.
type piece policy.Piece

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
//	│    holds    form, signature, digest, authority, name
//	│    time     none is proven: it has neither a log entry nor a timestamp
//	│    counts   for release
//	└─ rejected (untrusted): simple-signing; its signature is by none of the keys asked for
//	     fails    signature
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
		groups := alike(from[source])
		for i, g := range groups {
			branch, below := "├─ ", "│    "
			if i == len(groups)-1 {
				branch, below = "└─ ", "     "
			}
			lines = append(lines, branch+displayed(g.text))
			for _, line := range g.findings {
				lines = append(lines, below+displayed(line))
			}
		}
	}
	return lines
}

// group are pieces of one place that are shown alike.
type group struct {
	text     string
	findings []string
}

// alike joins pieces that would be shown in the same words, of which there may be many.
func alike(pieces []piece) []group {
	var groups []group
	var counts []int
	at := make(map[string]int)
	for _, p := range pieces {
		nearest := p.Nearest
		p.Nearest = false
		g := group{p.String(), p.findings()}
		key := strings.Join(append([]string{g.text}, g.findings...), "\n")
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups, counts = append(groups, g), append(counts, 0)
		}
		if counts[i]++; nearest {
			groups[i].findings = append(groups[i].findings, finding("nearest", "to what is missing"))
		}
	}
	for i, n := range counts {
		if n > 1 {
			groups[i].text += fmt.Sprintf(" (%d of them)", n)
		}
	}
	return groups
}

func finding(name, text string) string { return fmt.Sprintf("%-8s %s", name, text) }

// findings are what was checked of a piece of evidence and what came of it, a line each.
func (p piece) findings() []string {
	var lines, held []string
	add := func(name, text string) { lines = append(lines, finding(name, text)) }
	for _, c := range p.Checks {
		switch c.Outcome {
		case verifier.OutcomeHolds:
			held = append(held, c.Name)
		case verifier.OutcomeFails:
			text := c.Name
			if c.Detail != "" && c.Detail != p.Detail {
				text += ": " + c.Detail
			}
			add("fails", text)
		}
	}
	if len(held) > 0 {
		lines = slices.Insert(lines, 0, finding("holds", strings.Join(held, ", ")))
	}
	switch {
	case p.ProvenBy != "":
		add("time", p.SignedAt.UTC().Format(time.RFC3339)+", proven by a "+p.ProvenBy)
	case p.Untimed != "":
		add("time", "none is proven: "+p.Untimed)
	}
	if p.Claimed != nil {
		add("claims", claims(*p.Claimed, p.Detail))
	}
	if len(p.Counts) > 0 {
		add("counts", "for "+strings.Join(p.Counts, ", "))
	}
	return lines
}

// claims tells who says that he has signed it. told is what stands beside it.
func claims(c verifier.Claimed, told string) string {
	if c.Key != "" {
		return "key " + c.Key + ", which is a hint that anybody can write"
	}
	text := visible(c.Subject) + " by " + visible(c.Issuer)
	if c.Source != "" {
		text += ", for " + visible(c.Source)
	}
	if !c.Proven {
		text += "; not proven"
		if c.Detail != "" && c.Detail != told {
			text += ": " + c.Detail
		}
		return text
	}
	if c.PredicateType != "" {
		text += ", of an attestation of " + c.PredicateType
	}
	text += "; proven by the trust root, " + c.SignedAt.UTC().Format(time.RFC3339) + " by a " + c.ProvenBy
	if c.Logged && c.ProvenBy != verifier.ProvenByLog {
		text += ", in a log"
	}
	return text
}

// visible is text that anybody may have written: quoted where it is not plain ASCII.
func visible(text string) string {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Sprintf("%+q", text)
	}
	return text
}

// String is what became of a piece of evidence, in one line.
func (p piece) String() string {
	var b strings.Builder
	if p.Verified {
		fmt.Fprintf(&b, "verified: %s", p.Form)
	} else {
		fmt.Fprintf(&b, "rejected (%s): %s", p.Reason, p.Form)
	}
	if p.PredicateType != "" {
		fmt.Fprintf(&b, " of %s", p.PredicateType)
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
