package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/proxy"
)

type policyTestFlags struct {
	config string
	policy string
	output string
}

func newPolicyTestCommand() *cobra.Command {
	var f policyTestFlags
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Run a table of what is expected of a configuration",
		Long: `Decide about images with the engine of serve, and compare with what a table
expects. The table is a list in YAML:

  - image: ghcr.io/acme/prod/web:v1       # with its registry
    expect: allowed                       # allowed, denied or inconclusive
  - name: nobody signs by hand            # instead of the image, for people
    image: ghcr.io/acme/prod/web:by-hand
    expect: denied
    reason: untrusted                     # of a denial; any without it
    policy: production                    # the policy that decides; any without it

Images are looked up where the configuration says, and decided about as a pull would
be, whatever the enforcement makes of it. A row with nothing but an image and a policy
asks no registry.

The policy is that of the server's configuration, or of --policy FILE, which may be a
configuration without upstreams: the images' own registries are then asked, with
docker's credentials.

Exit code 0: all is as expected; 1: something is not; 2: misuse, or a table with
faults; 3: something could not be told.`,
		Example: `  vidimus policy test --config vidimus.yaml expectations.yaml
  vidimus policy test --policy policy.yaml --output json expectations.yaml`,
		Args: takesOne("one file with a table"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	addConfigFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "configuration to decide by, upstreams optional")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

// tested is what became of one row. It is the stable output.
type tested struct {
	Name      string `json:"name"`
	Image     string `json:"image"`
	Line      int    `json:"line"`
	Outcome   string `json:"outcome"`            // ok, failed or unknown
	Decision  string `json:"decision,omitempty"` // empty where none was asked for, or reached
	Reason    string `json:"reason,omitempty"`
	Policy    string `json:"policy,omitempty"`
	Explained string `json:"explained,omitempty"`
	Want      string `json:"want"`
}

// testedAll is the stable output of a table.
type testedAll struct {
	OK    bool     `json:"ok"`
	Tests []tested `json:"tests"`
}

const (
	testOK      = "ok"
	testFailed  = "failed"
	testUnknown = "unknown"
)

func (f *policyTestFlags) run(cmd *cobra.Command, file string) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	rows, err := readExpectations(file)
	if err != nil {
		return misuse(err)
	}
	from, err := f.source(cmd.Context(), rows)
	if err != nil {
		return err
	}
	engine, err := newEngine(from, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer engine.close()
	all := []tested{}
	for _, row := range rows {
		all = append(all, engine.test(cmd.Context(), row))
	}
	return f.report(cmd.OutOrStdout(), all)
}

// source returns the configuration to decide by.
func (f *policyTestFlags) source(ctx context.Context, rows []expectation) (source, error) {
	if f.policy == "" {
		return (&explainFlags{config: f.config}).source(ctx, "")
	}
	from := fromFile(f.policy)
	asked := make(map[string]bool)
	for _, row := range rows {
		reference, err := name.ParseReference(row.Image)
		if err != nil {
			return nil, misuse(fmt.Errorf("%s: %w", row.Image, err))
		}
		registry := reference.Context().Registry
		if called := registryName(registry); !asked[called] {
			asked[called] = true
			from = withUpstreams(from, called, new(registryFlags).urlOf(ctx, registry))
		}
	}
	return from, nil
}

// test compares one row with what is decided.
func (e engine) test(ctx context.Context, row expectation) tested {
	t := tested{Name: row.called(), Image: row.Image, Line: row.Line, Outcome: testOK, Want: row.want()}
	if row.Expect == "" {
		repository, _ := repositoryOf(row.Image)
		trace := e.gate.Trace(repository)
		t.Policy = trace[len(trace)-1].Policy
		if upstream, _, _ := strings.Cut(repository, "/"); !slices.Contains(e.names, upstream) {
			t.Policy, t.Explained = "", "no registry called "+upstream+" is configured: write the image with its registry"
		}
	} else if !t.decide(ctx, e, row) {
		t.Outcome = testUnknown
		return t
	}
	switch {
	case t.Decision != row.Expect:
		t.Outcome = testFailed
		if t.Decision == policy.ReasonInconclusive {
			t.Outcome = testUnknown
		}
	case row.Reason != "" && row.Reason != t.Reason, row.Policy != "" && row.Policy != t.Policy:
		t.Outcome = testFailed
	}
	return t
}

// decide fills in what is decided; false when there is nothing to decide about and
// nobody can tell why.
func (t *tested) decide(ctx context.Context, e engine, row expectation) bool {
	explanation, err := e.Explain(ctx, row.Image)
	d := explanation.Decision
	if err != nil && d.ID == "" {
		told := proxy.AsError(err)
		t.Explained = told.Message
		switch told.Status {
		case http.StatusForbidden:
			t.Decision, t.Reason = "denied", reasonNoUpstream
		case http.StatusNotFound, http.StatusBadRequest: // no image: as expected of none
		default:
			return false
		}
		return true
	}
	t.Policy, t.Explained = d.Policy, d.Explained
	switch {
	case d.Allowed:
		t.Decision = "allowed"
	case d.Reason == policy.ReasonInconclusive:
		t.Decision = policy.ReasonInconclusive
	default:
		t.Decision, t.Reason = "denied", d.Reason
	}
	return true
}

// want says what a row expects.
func (e expectation) want() string {
	text := e.Expect
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	if e.Policy == "" {
		return text
	}
	if text != "" {
		text += " "
	}
	return text + "by policy " + e.Policy
}

// got says what a row met.
func (t tested) got() string {
	text := cmp.Or(t.Decision, "nothing decided")
	if t.Reason != "" {
		text += " (" + t.Reason + ")"
	}
	if t.Policy != "" {
		text += " by policy " + t.Policy
	}
	if t.Explained != "" {
		text += ": " + t.Explained
	}
	return text
}

func (f *policyTestFlags) report(w io.Writer, all []tested) error {
	counts := make(map[string]int)
	for _, t := range all {
		counts[t.Outcome]++
		if f.output == "json" {
			continue
		}
		line := fmt.Sprintf("ok       %s: %s", t.Name, t.Want)
		if t.Outcome != testOK {
			line = fmt.Sprintf("%-7s  %s: want %s, got %s", t.Outcome, t.Name, t.Want, t.got())
		}
		if _, err := fmt.Fprintln(w, displayed(line)); err != nil {
			return err
		}
	}
	var err error
	if f.output == "json" {
		err = json.NewEncoder(w).Encode(testedAll{counts[testOK] == len(all), all})
	} else {
		_, err = fmt.Fprintf(w, "%d as expected, %d not, %d could not be told\n", counts[testOK], counts[testFailed], counts[testUnknown])
	}
	switch {
	case err != nil:
		return err
	case counts[testFailed] > 0:
		return &exitError{code: exitDoesNotHold}
	case counts[testUnknown] > 0:
		return &exitError{code: exitUnknown}
	}
	return nil
}
