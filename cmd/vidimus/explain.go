package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/proxy"
)

type explainFlags struct {
	config string
	policy string
	server string
	via    string
	output string
}

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain IMAGE|ID",
		Short: "Say what a pull of an image would meet, and why",
		Long: `Decide about an image as the proxy would, with the same engine, and show the
policies up to the one that decided, every piece of evidence and what became of
it, and the decision.

IMAGE is written with its registry, as policies know it: ghcr.io/acme/web:v1.
The policy is that of the server's configuration, or of --policy FILE, which may
be a configuration without upstreams: the image's own registry is then asked,
with docker's credentials. Of the server's secrets only those for its upstreams
are needed.

With each piece of evidence stand who made it and when, as far as that is known and by
what it is proven, what was checked and what failed, and for which authorities it counts.
What nobody is asked to have signed is told as well, as a claim: proven, where a trust
root is configured, or what anybody may have written. Below a denial stand the commands
or lines of the configuration that would mend it.

A manifest that an index lists may be served by its digest for the index's sake: --via
names a tag or digest of the same repository, which is looked at first, as if it had
been pulled.

ID is the identifier of a decision, from an error or a log, and --server the
admin listener of the server that made it (admin.addr). With --server IMAGE is what that
server has decided about an image last.

Exit code 0: allowed; 1: denied, also where warn or observe serves it all the
same, or there is no such image; 2: misuse; 3: could not tell.`,
		Example: `  vidimus explain ghcr.io/acme/web:v1
  vidimus explain --policy policy.yaml --output json ghcr.io/acme/web@sha256:...
  vidimus explain --via v1 ghcr.io/acme/web@sha256:...
  vidimus explain 7f3c51f2a09be1d4 --server http://127.0.0.1:5082
  vidimus explain ghcr.io/acme/web:v1 --server http://127.0.0.1:5082`,
		Args: takesOne("one image, or the id of a decision"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	addConfigFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "configuration to decide by, upstreams optional")
	flags.StringVar(&f.server, "server", "", "URL of a running server's admin listener, to explain what it has decided")
	flags.StringVar(&f.via, "via", "", "tag or digest of an index of the same repository, through which a digest may be allowed")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, what string) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	switch {
	case f.via != "" && (f.server != "" || isDecisionID(what) || !strings.Contains(what, "@")):
		return misuse(errors.New("--via is for an image by digest, decided about here: an index may let a digest pass, and never a tag"))
	case isDecisionID(what):
		return f.explainID(cmd, what)
	case f.server != "":
		return f.explainDecided(cmd, what)
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
	told, err := oneDecision(records, id)
	if err != nil {
		return misuse(err)
	}
	return f.tell(cmd, told)
}

// explainDecided shows what a server has decided last about an image.
func (f *explainFlags) explainDecided(cmd *cobra.Command, image string) error {
	repository, ok := repositoryOf(image)
	if !ok {
		return misuse(fmt.Errorf("%q is neither the id of a decision nor an image with its registry", image))
	}
	reference := "latest"
	if _, digest, ok := strings.Cut(image, "@"); ok {
		reference = digest
	} else if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		reference = image[colon+1:]
	}
	records, err := askDecisions(cmd.Context(), f.server, proxy.Query{Image: reference})
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(records) {
		if r.Repository == repository && (r.Reference == reference || r.Digest == reference) {
			told, err := oneDecision(slices.DeleteFunc(records, func(o proxy.Record) bool { return o.ID != r.ID }), r.ID)
			if err != nil {
				return err
			}
			return f.tell(cmd, told)
		}
	}
	return misuse(fmt.Errorf("the server knows no recent decision about %s, as policies would write it, without the proxy's own address; without --server vidimus explain decides anew", displayed(image)))
}

// tell shows a decision of a server, and leaves as it says.
func (f *explainFlags) tell(cmd *cobra.Command, told toldDecision) (err error) {
	if f.output == "json" {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(told)
	} else {
		err = told.print(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	switch told.Decision {
	case "inconclusive":
		return &exitError{code: exitUnknown}
	case "denied":
		return &exitError{code: exitDoesNotHold}
	}
	return nil
}

// toldDecision is one decision of a server: its newest record, and for what else
// the decision has been the answer.
type toldDecision struct {
	proxy.Record
	OtherReferences []string `json:"otherReferences,omitempty"`
}

// oneDecision joins the records of one decision, the newest last, whose
// identifier begins with id. There is one for each reference that was asked for.
func oneDecision(records []proxy.Record, id string) (toldDecision, error) {
	if len(records) == 0 {
		return toldDecision{}, fmt.Errorf("the server knows no recent decision %s; vidimus decisions --from FILE searches older ones", id)
	}
	told := toldDecision{Record: records[len(records)-1]}
	ids := make(map[string]bool)
	for _, r := range records {
		ids[r.ID] = true
		if r.Reference != told.Reference && !slices.Contains(told.OtherReferences, r.Reference) {
			told.OtherReferences = append(told.OtherReferences, r.Reference)
		}
	}
	if len(ids) > 1 {
		return toldDecision{}, fmt.Errorf("%d decisions have an id that begins with %s", len(ids), id)
	}
	return told, nil
}

func (f *explainFlags) explainImage(cmd *cobra.Command, image string) error {
	from, err := f.source(cmd.Context(), image)
	if err != nil {
		return err
	}
	engine, err := newEngine(from, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer engine.close()
	if registry, rest, ok := strings.Cut(image, "/"); ok && engine.isProxy(registry) {
		return misuse(fmt.Errorf("%s is the proxy itself: write the image as policies know it, %s", registry, displayed(rest)))
	}
	var explanation proxy.Explanation
	if f.via == "" {
		explanation, err = engine.Explain(cmd.Context(), image)
	} else {
		explanation, err = engine.ExplainThrough(cmd.Context(), image, f.via)
	}
	d := explanation.Decision
	if err != nil && d.ID == "" {
		return undecidedExit(image, proxy.AsError(err))
	}
	e := explained{explanation, image, engine.gate.Trace(d.Subject.Repository)}
	if f.output == "json" {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(e)
	} else {
		err = e.print(cmd.OutOrStdout())
	}
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

// undecidedExit is what to say, and how to leave, when there is nothing to decide
// about.
func undecidedExit(image string, told *proxy.Error) error {
	text := told.Message
	if !strings.Contains(text, image) {
		text = displayed(image) + ": " + text
	}
	if cause := told.Err; cause != nil && cause.Error() != fs.ErrNotExist.Error() && !strings.Contains(text, cause.Error()) {
		text += ": " + cause.Error()
	}
	if told.Detail != nil && told.Detail.Hint != "" {
		text += "; " + told.Detail.Hint
	}
	switch told.Status {
	case http.StatusBadRequest:
		return misuse(errors.New(text))
	case http.StatusForbidden, http.StatusNotFound:
		return doesNotHold(errors.New(text))
	}
	return errors.New(text)
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
