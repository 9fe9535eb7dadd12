package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"vidimus/policy"
	"vidimus/proxy"
)

// explanationJSON is the stable output of explain.
type explanationJSON struct {
	ID          string          `json:"id"`
	Image       string          `json:"image"`
	Repository  string          `json:"repository"` // canonical
	Digest      string          `json:"digest"`
	MediaType   string          `json:"mediaType"`
	Allowed     bool            `json:"allowed"`
	Served      bool            `json:"served"` // also when warn or observe serves what is denied
	Reason      string          `json:"reason,omitempty"`
	Explained   string          `json:"explained,omitempty"`
	Causes      []string        `json:"causes,omitempty"` // what could not be read
	Message     string          `json:"message,omitempty"`
	Hint        string          `json:"hint,omitempty"`
	Remedies    []policy.Remedy `json:"remedies,omitempty"`
	Note        string          `json:"note,omitempty"`
	Policy      string          `json:"policy,omitempty"`
	Enforcement string          `json:"enforcement"`
	Authorities []string        `json:"authorities,omitempty"`
	Exception   string          `json:"exception,omitempty"`
	Via         string          `json:"via,omitempty"`
	Trace       []policy.Step   `json:"trace"`
	Evidence    []policy.Piece  `json:"evidence"`
}

// explained is an explanation with what only this command knows of it.
type explained struct {
	proxy.Explanation
	image string
	trace []policy.Step
}

func (e explained) MarshalJSON() ([]byte, error) {
	d := e.Decision
	return json.Marshal(explanationJSON{
		ID: d.ID, Image: e.image, Repository: d.Subject.Repository, Digest: e.Digest.String(), MediaType: e.MediaType,
		Allowed: d.Allowed, Served: d.Served(), Reason: d.Reason, Explained: d.Explained, Causes: d.Causes,
		Message: e.message(), Hint: d.Hint, Remedies: d.Remedies, Note: e.note(),
		Policy: d.Policy, Enforcement: d.Enforcement.String(), Authorities: d.Satisfied,
		Exception: d.Exception, Via: d.Via, Trace: e.trace, Evidence: d.Pieces(),
	})
}

// message is the policy's, which is about denials.
func (e explained) message() string {
	if e.Decision.Allowed {
		return ""
	}
	return e.Decision.Message
}

// note says what a running proxy may know, and an explanation does not.
func (e explained) note() string {
	d := e.Decision
	if d.Served() || d.Reason == policy.ReasonRevoked || !strings.Contains(e.image, "@") {
		return ""
	}
	return "a running proxy also serves this digest while an allowed index of the same repository that it knows lists it; --via TAG looks at one"
}

func (e explained) print(w io.Writer) error {
	d := e.Decision
	var pieces []piece
	for _, p := range d.Pieces() {
		pieces = append(pieces, piece(p))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s, %s\n", displayed(e.image), e.Digest, displayed(e.MediaType))
	fmt.Fprintf(&b, "policy  %s (%s)\n", displayed(orNone(d.Policy)), d.Enforcement)
	for _, step := range e.trace {
		if step.Omitted > 0 {
			fmt.Fprintf(&b, "  passed over  %d more\n", step.Omitted)
		}
		fmt.Fprintf(&b, "  %s\n", displayed(stepLine(step)))
	}
	b.WriteString("evidence" + e.about() + "\n")
	if len(pieces) == 0 {
		fmt.Fprintf(&b, "  %s\n", e.nothingFound())
	}
	for _, line := range evidenceTree(pieces) {
		b.WriteString("  " + line + "\n")
	}
	fmt.Fprintf(&b, "decision  %s\n", verdictLine(d))
	for _, line := range []struct{ name, text string }{
		{"because", d.Explained}, {"causes", causesBeside(d.Explained, d.Causes)}, {"message", e.message()}, {"note", e.note()},
		{"through index", d.Via}, {"exception", d.Exception},
	} {
		if line.text != "" {
			fmt.Fprintf(&b, "%s  %s\n", line.name, displayed(line.text))
		}
	}
	writeRemedies(&b, d.Allowed, d.Remedies, d.Hint)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRemedies shows what would mend a denial, each command or line by itself, ready to
// be copied; or the hint, of a record that has no more.
func writeRemedies(b *strings.Builder, allowed bool, remedies []policy.Remedy, hint string) {
	label := "to mend it"
	if allowed {
		label = "to ask for it"
	}
	if len(remedies) == 0 && hint != "" {
		fmt.Fprintf(b, "%s  %s\n", label, displayed(hint))
	}
	for i, r := range remedies {
		switch {
		case r.And:
			label = "and"
		case i > 0:
			label = "or"
		}
		if r.Command+r.Config != "" {
			r.Do += ":"
		}
		fmt.Fprintf(b, "%s  %s\n", label, displayed(r.Do))
		if r.Command+r.Config != "" {
			fmt.Fprintf(b, "    %s\n", displayed(r.Command+r.Config))
		}
	}
}

// stepLine shows one policy on the way to the one that decides.
func stepLine(s policy.Step) string {
	match := strings.Join(s.Match, ", ")
	if s.Policy != match {
		match = s.Policy + ", for " + match
	}
	switch {
	case s.Matches:
		return fmt.Sprintf("decides      %s: %s; %s", match, s.Rule, s.Enforcement)
	case s.Policy == "":
		return fmt.Sprintf("decides      %s; %s", s.Rule, s.Enforcement)
	}
	return fmt.Sprintf("passed over  %s, does not match: %s; %s", match, s.Rule, s.Enforcement)
}

// about says what the evidence is about, when that is not the image itself.
func (e explained) about() string {
	switch d := e.Decision; {
	case d.Via != "":
		return " about the index " + d.Via
	case d.About != "":
		return " about its subject " + d.About
	}
	return ""
}

// nothingFound is nothingFound for one who has looked wherever no decision forbids it.
func (e explained) nothingFound() string {
	d := e.Decision
	if d.Reason == policy.ReasonNoPolicy || d.Allowed && d.Exception == "" {
		return "none"
	}
	return nothingFound(d.Allowed, d.Reason)
}

// nothingFound says why there is no evidence: some decisions do not ask for any.
func nothingFound(allowed bool, reason string) string {
	switch reason {
	case policy.ReasonRevoked, policy.ReasonPolicyDeny, policy.ReasonNoPolicy, reasonNoUpstream:
		return "not asked for"
	}
	if allowed {
		return "not asked for"
	}
	return "none"
}

func verdictLine(d policy.Decision) string {
	switch {
	case d.Allowed:
		return "allowed"
	case d.Reason == policy.ReasonInconclusive:
		return "inconclusive: could not tell"
	case d.Served():
		return "denied (" + d.Reason + "), served all the same under " + d.Enforcement.String()
	}
	return "denied (" + d.Reason + ")"
}
