package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/verifier"
)

type explainFlags struct {
	config string
	policy string
	server string
	output string
}

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain IMAGE|ID",
		Short: "Say what a pull of an image would meet, and why",
		Long: `Decide about an image as the proxy would, with the same engine, and show the
policy that decided, every piece of evidence and what became of it.

IMAGE is written with its registry, as policies know it: ghcr.io/acme/web:v1.
The policy is that of the server's configuration, or of --policy FILE, which may
be a configuration without upstreams: the image's own registry is then asked,
with docker's credentials.

ID is the identifier of a decision, from an error or a log, and --server the
admin listener of the server that made it.

Exit code 0: it would be served; 1: refused; 3: could not tell.`,
		Args: takesOne("one image, or the id of a decision"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	addConfigFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "configuration to decide by, upstreams optional")
	flags.StringVar(&f.server, "server", "", "URL of a running server's admin listener, to explain a decision's id")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, what string) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	if isDecisionID(what) {
		return f.explainID(cmd, what)
	}
	if f.server != "" {
		return misuse(fmt.Errorf("%q is not a decision's id: --server explains ids only", what))
	}
	return f.explainImage(cmd, what)
}

// isDecisionID tells an identifier from an image, which has a slash for its
// registry.
func isDecisionID(s string) bool {
	return len(s) >= 4 && len(s) <= 16 && strings.Trim(s, "0123456789abcdef") == ""
}

func (f *explainFlags) explainID(cmd *cobra.Command, id string) error {
	if f.server == "" {
		return misuse(errors.New("say which server made the decision: --server URL of its admin listener (admin.addr)"))
	}
	records, err := askDecisions(cmd.Context(), f.server, proxy.Query{ID: id})
	if err != nil {
		return err
	}
	switch {
	case len(records) == 0:
		return misuse(fmt.Errorf("the server knows no recent decision %s; vidimus decisions --from FILE searches older ones", id))
	case len(records) > 1:
		return misuse(fmt.Errorf("%d decisions have an id that begins with %s", len(records), id))
	}
	record := records[0]
	if f.output == "json" {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(record)
	} else {
		err = printRecord(cmd.OutOrStdout(), record)
	}
	if err != nil {
		return err
	}
	switch {
	case record.Decision == "inconclusive":
		return &exitError{code: exitUnknown}
	case record.Decision == "denied":
		return &exitError{code: exitDoesNotHold}
	}
	return nil
}

func (f *explainFlags) explainImage(cmd *cobra.Command, image string) error {
	from, err := f.source(cmd.Context(), image)
	if err != nil {
		return err
	}
	e, err := newEngine(from)
	if err != nil {
		return err
	}
	defer e.close()
	explanation, err := e.Explain(cmd.Context(), image)
	if err != nil && explanation.Decision.ID == "" {
		switch told := proxy.AsError(err); {
		case told.Undecided():
			return told
		case told.Status == http.StatusForbidden:
			return doesNotHold(told)
		default:
			return misuse(told) // no such image, or no name of one
		}
	}
	if f.output == "json" {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(explained(explanation, image))
	} else {
		err = printExplanation(cmd.OutOrStdout(), explanation, image)
	}
	d := explanation.Decision
	switch {
	case err != nil:
		return err
	case d.Allowed:
		return nil
	case d.Reason == policy.ReasonInconclusive:
		return &exitError{code: exitUnknown}
	}
	return &exitError{code: exitDoesNotHold}
}

// explanationJSON is the stable output of explain.
type explanationJSON struct {
	Image       string              `json:"image"`
	Digest      string              `json:"digest"`
	MediaType   string              `json:"mediaType"`
	Allowed     bool                `json:"allowed"`
	Served      bool                `json:"served"` // also when warn or observe serves what is denied
	Reason      string              `json:"reason,omitempty"`
	Explained   string              `json:"explained,omitempty"`
	Hint        string              `json:"hint,omitempty"`
	Policy      string              `json:"policy,omitempty"`
	Enforcement string              `json:"enforcement"`
	Authorities []string            `json:"authorities,omitempty"`
	Exception   string              `json:"exception,omitempty"`
	Via         string              `json:"via,omitempty"`
	Evidence    []verifier.Evidence `json:"evidence"`
}

func explained(e proxy.Explanation, image string) explanationJSON {
	d := e.Decision
	return explanationJSON{
		Image: image, Digest: e.Digest.String(), MediaType: e.MediaType,
		Allowed: d.Allowed, Served: d.Served(), Reason: d.Reason, Explained: d.Explained, Hint: d.Hint,
		Policy: d.Policy, Enforcement: d.Enforcement.String(), Authorities: d.Satisfied,
		Exception: d.Exception, Via: d.Via, Evidence: append([]verifier.Evidence{}, d.Evidence...),
	}
}

func printExplanation(w io.Writer, e proxy.Explanation, image string) error {
	d := e.Decision
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s, %s\n", image, e.Digest, e.MediaType)
	fmt.Fprintf(&b, "policy  %s (%s)\n", orNone(d.Policy), d.Enforcement)
	if len(d.Evidence) == 0 {
		b.WriteString("evidence  none\n")
	} else {
		b.WriteString("evidence\n")
	}
	for _, piece := range d.Evidence {
		b.WriteString("  " + evidenceLine(piece) + "\n")
	}
	fmt.Fprintf(&b, "decision  %s\n", verdictLine(d))
	if d.Allowed {
		d.Message = "" // it is about denials
	}
	for _, line := range []struct{ name, text string }{
		{"because", d.Explained}, {"note", d.Message}, {"to mend it", d.Hint}, {"through index", d.Via}, {"exception", d.Exception},
	} {
		if line.text != "" {
			fmt.Fprintf(&b, "%s  %s\n", line.name, displayed(line.text))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func evidenceLine(e verifier.Evidence) string {
	state := "rejected: " + e.Reason()
	if e.Verified() {
		state = "verified"
		if holders := e.Authorities(); len(holders) > 0 {
			state += " by " + strings.Join(holders, ", ")
		}
	}
	line := fmt.Sprintf("%s in %s: %s", e.Form(), e.Source(), state)
	if claimed := e.ClaimedName(); claimed != "" {
		line += "; claims to be " + claimed
	}
	if detail := e.Detail(); detail != "" {
		line += "; " + detail
	}
	return displayed(line)
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

// source returns the configuration to decide by.
func (f *explainFlags) source(ctx context.Context, image string) (source, error) {
	if f.policy == "" {
		name, err := findConfig(f.config, os.LookupEnv)
		if err != nil {
			return nil, misuse(err)
		}
		return fromFile(name), nil
	}
	reference, err := name.ParseReference(image)
	if err != nil {
		return nil, misuse(err)
	}
	registry := reference.Context().Registry
	return withUpstreams(fromFile(f.policy), registryName(registry), new(registryFlags).urlOf(ctx, registry)), nil
}
