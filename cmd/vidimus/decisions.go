package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vidimus/policy"
	"vidimus/proxy"
)

// maxDecisions bounds what a server may answer about its decisions.
const maxDecisions = 64 << 20

// followEvery is how often -f looks for more.
const followEvery = time.Second

type decisionsFlags struct {
	query  proxy.Query
	since  time.Duration
	follow bool
	from   string
	server string
	output string
}

func newDecisionsCommand() *cobra.Command {
	var f decisionsFlags
	cmd := &cobra.Command{
		Use:   "decisions (--from FILE|- | --server URL)",
		Short: "Search the record of what was served and refused, and why",
		Long: `Search decision records: of a running server, by the address of its admin
listener (admin.addr), which knows the last 10,000; or of a file of JSON lines
(decisions.path), or of standard input with --from -.

An image is found by any part of repository:tag or of the digest. --reason takes
a reason (unsigned, untrusted, ...) or allowed, denied, inconclusive. A decision
answers every request for the same digest: it has a record for each tag that was
asked for, under one id.`,
		Example: `  vidimus decisions --server http://127.0.0.1:5082 --reason denied --since 10m
  kubectl logs deploy/vidimus | vidimus decisions --from - --image acme/web`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.query.Image, "image", "", "part of repository:tag, repository@digest or the digest")
	flags.StringVar(&f.query.Client, "client", "", "address or name of the client")
	flags.StringVar(&f.query.Reason, "reason", "", "why it was denied, or allowed, denied, inconclusive")
	flags.StringVar(&f.query.ID, "id", "", "beginning of the decision's id")
	flags.DurationVar(&f.since, "since", 0, "no older than this, like 10m")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on as decisions are made")
	flags.StringVar(&f.from, "from", "", "file of JSON lines, - for standard input")
	flags.StringVar(&f.server, "server", "", "URL of a running server's admin listener")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json (a record a line)")
	return cmd
}

func (f *decisionsFlags) run(cmd *cobra.Command) error {
	if (f.from == "") == (f.server == "") {
		return misuse(errors.New("say where the decisions are: --from FILE (decisions.path) or --server URL (admin.addr)"))
	}
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	if f.since < 0 {
		return misuse(fmt.Errorf("--since %s: want how long ago, like 10m", f.since))
	}
	if f.query.Reason != "" && !slices.Contains(decisionWords(), f.query.Reason) {
		return misuse(fmt.Errorf("unknown --reason %q: want one of %s", f.query.Reason, strings.Join(decisionWords(), ", ")))
	}
	if f.since > 0 {
		f.query.Since = time.Now().Add(-f.since)
	}
	show := f.printer(cmd.OutOrStdout())
	if image, digest, ok := strings.Cut(f.query.Image, "@"); ok {
		f.query.Image, show = digest, within(image, show) // every record names its digest
	}
	if f.server != "" {
		return f.fromServer(cmd.Context(), show)
	}
	in := cmd.InOrStdin()
	if f.from != "-" {
		file, err := os.Open(f.from)
		if err != nil {
			return misuse(err)
		}
		defer file.Close()
		in = file
		if f.follow {
			in = &follower{ctx: cmd.Context(), r: file}
		}
	}
	err := proxy.ReadDecisions(in, f.query, show)
	if cmd.Context().Err() != nil {
		return nil // -f ends so
	}
	return err
}

// within shows records about an image only, which is part of repository:tag.
func within(image string, show func(proxy.Record) error) func(proxy.Record) error {
	return func(r proxy.Record) error {
		if !strings.Contains(r.Repository+":"+r.Reference, image) {
			return nil
		}
		return show(r)
	}
}

// reasonNoUpstream is the proxy's own reason: there is no such upstream.
const reasonNoUpstream = "no-upstream"

// decisionWords are what --reason takes: decisions, and the reasons of denials.
func decisionWords() []string {
	return []string{
		"allowed", "denied", policy.ReasonInconclusive,
		policy.ReasonNoPolicy, policy.ReasonPolicyDeny, policy.ReasonRevoked, policy.ReasonUnsigned,
		policy.ReasonUntrusted, policy.ReasonPayloadInvalid, policy.ReasonDigestMismatch,
		policy.ReasonIdentityMismatch, policy.ReasonAnnotationMismatch, policy.ReasonThreshold, policy.ReasonExpired,
		policy.ReasonTooManySignatures, policy.ReasonAttestedNotSigned, policy.ReasonAttestationMissing, policy.ReasonRego,
		reasonNoUpstream,
	}
}

// follower reads a file that grows until its context ends.
type follower struct {
	ctx context.Context
	r   io.Reader
}

func (f *follower) Read(p []byte) (int, error) {
	for {
		n, err := f.r.Read(p)
		if n > 0 || err != io.EOF {
			return n, err
		}
		if !pause(f.ctx, followEvery) {
			return 0, io.EOF
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *decisionsFlags) fromServer(ctx context.Context, show func(proxy.Record) error) error {
	type line struct {
		id, reference string
		at            int64
	}
	seen := make(map[line]bool)
	for {
		records, err := askDecisions(ctx, f.server, f.query)
		if err != nil {
			if f.follow && ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, r := range records {
			key := line{r.ID, r.Reference, r.Time.UnixNano()}
			if seen[key] {
				continue
			}
			if seen[key] = f.follow; f.follow {
				f.query.Since = r.Time
			}
			if err := show(r); err != nil {
				return err
			}
		}
		if !f.follow || !pause(ctx, followEvery) {
			return nil
		}
	}
}

// askDecisions asks a running server's admin listener.
func askDecisions(ctx context.Context, server string, query proxy.Query) ([]proxy.Record, error) {
	values := url.Values{}
	for name, value := range map[string]string{"image": query.Image, "client": query.Client, "reason": query.Reason, "id": query.ID} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if !query.Since.IsZero() {
		values.Set("since", query.Since.UTC().Format(time.RFC3339Nano))
	}
	base, err := serverURL(server)
	if err != nil {
		return nil, misuse(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/decisions?"+values.Encode(), nil)
	if err != nil {
		return nil, misuse(fmt.Errorf("--server: %w", err))
	}
	client := &http.Client{Timeout: 30 * time.Second}
	answer, err := client.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("nobody answers at %s, where admin.addr (serve --admin-addr) should be: %w", base, errors.Unwrap(err))
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxDecisions))
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s: %s (is this the address of admin.addr?)", answer.Status, firstLine(body))
	}
	var found struct {
		Decisions []proxy.Record `json:"decisions"`
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, fmt.Errorf("the server's answer does not parse (is this the address of admin.addr?): %w", err)
	}
	return found.Decisions, nil
}

// serverURL reads --server. The admin listener speaks HTTP on loopback, so that
// its address alone will do.
func serverURL(server string) (string, error) {
	address := server
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("--server %q: want the URL of an admin listener, like http://127.0.0.1:5082", server)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if address != server && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("--server %q: write http://%[1]s if you mean to ask for decisions without TLS, over the network", server)
	}
	return strings.TrimSuffix(address, "/"), nil
}

func firstLine(body []byte) string {
	line, _, _ := bytes.Cut(body, []byte("\n"))
	return displayed(string(line[:min(len(line), 200)]))
}

// displayed makes text of elsewhere fit for a terminal.
func displayed(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func (f *decisionsFlags) printer(w io.Writer) func(proxy.Record) error {
	if f.output == "json" {
		encoder := json.NewEncoder(w)
		return func(r proxy.Record) error { return encoder.Encode(r) }
	}
	return func(r proxy.Record) error {
		_, err := fmt.Fprintf(w, "%s  %s  %-12s %s  client %s\n    %s\n",
			r.Time.Format(time.RFC3339), r.ID, outcome(r), displayed(imageOf(r)), displayed(clientOf(r)), displayed(summary(r)))
		return err
	}
}

// imageOf is the image of a record as people write it.
func imageOf(r proxy.Record) string {
	if strings.Contains(r.Reference, ":") {
		return r.Repository + "@" + r.Reference
	}
	return r.Repository + ":" + r.Reference
}

// clientOf is who asked, and from where.
func clientOf(r proxy.Record) string {
	if r.Caller == "" {
		return r.Client
	}
	return r.Caller + " at " + r.Client
}

func outcome(r proxy.Record) string {
	if r.Action != "" {
		return r.Action + " " + r.Decision
	}
	if r.Reason != "" {
		return r.Reason
	}
	return r.Decision
}

func summary(r proxy.Record) string {
	parts := []string{r.Decision + " by policy " + orNone(r.Policy)}
	if r.Enforcement != "enforce" {
		parts = append(parts, r.Enforcement)
	}
	if r.Explained != "" {
		parts = append(parts, r.Explained)
	}
	if seen := seenIn(r); seen != "" {
		parts = append(parts, "seen: "+seen)
	}
	if r.Via != "" {
		parts = append(parts, "through index "+r.Via)
	}
	if r.Exception != "" {
		parts = append(parts, "EXCEPTION "+r.Exception)
	}
	if r.Access != "" {
		parts = append(parts, "SERVED all the same, for the caller may "+r.Access)
	}
	return strings.Join(parts, "; ")
}

// seenIn tells who has signed an image that is only observed, so that a first policy can
// be written from it: a handful of them, each once.
func seenIn(r proxy.Record) string {
	const most = 4
	pieces, err := parseEvidence(r.Evidence)
	if r.Enforcement != policy.Observe.String() || err != nil {
		return ""
	}
	var seen []string
	for _, p := range pieces {
		text := p.Form + " by "
		switch {
		case p.Verified:
			text += strings.Join(p.Authorities, ", ")
		case p.Claimed != nil:
			text += claims(*p.Claimed, p.Detail)
		default:
			text += "nobody known"
		}
		if !slices.Contains(seen, text) {
			seen = append(seen, text)
		}
	}
	if len(seen) > most {
		seen = append(seen[:most], fmt.Sprintf("and %d more", len(seen)-most))
	}
	return strings.Join(seen, ", ")
}

// causesBeside joins the causes that the explanation beside them does not tell
// already.
func causesBeside(explained string, causes []string) string {
	var rest []string
	for _, cause := range causes {
		if !strings.Contains(explained, cause) {
			rest = append(rest, cause)
		}
	}
	return strings.Join(rest, "; ")
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// print shows one decision whole.
func (r toldDecision) print(w io.Writer) error {
	pieces, err := parseEvidence(r.Evidence)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, displayed(value))
		}
	}
	row("decision", r.Decision)
	row("id", r.ID)
	row("time", r.Time.Format(time.RFC3339))
	row("image", imageOf(r.Record))
	row("also for", strings.Join(r.OtherReferences, ", "))
	row("digest", r.Digest)
	row("policy", orNone(r.Policy))
	row("enforcement", r.Enforcement)
	row("reason", r.Reason)
	row("because", r.Explained)
	row("causes", causesBeside(r.Explained, r.Causes))
	row("signed by", strings.Join(r.Authorities, ", "))
	row("through index", r.Via)
	row("exception", r.Exception)
	row("client", clientOf(r.Record))
	row("served for the right to", r.Access)
	row("user agent", r.UserAgent)
	row("revision", r.Revision)
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	writeRemedies(&b, r.Decision == "allowed", r.Remedies, r.Hint)
	b.WriteString("evidence\n")
	if len(pieces) == 0 {
		fmt.Fprintf(&b, "  %s\n", nothingFound(r.Decision == "allowed", r.Reason))
	}
	for _, line := range evidenceTree(pieces) {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
