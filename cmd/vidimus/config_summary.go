package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"vidimus/policy"
	"vidimus/verifier/envelope"
)

// mostShown is how many policies or exceptions a summary lists.
const mostShown = 20

// summarize writes one screen about a configuration that holds, as it is at now.
func (l *loaded) summarize(w io.Writer, name string, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(t, "%s: ok\n", name)
	row("revision", "%s", l.ID)
	row("registry API", "%s%s", l.HTTP.Addr.Value, l.encryption())
	row("metrics", "%s", orOff(l.Metrics.Addr))
	row("admin", "%s", orOff(l.Admin.Addr))
	row("cache", "%s", l.cacheSummary())
	for _, u := range l.Upstreams {
		row("upstream", "%s %s%s", u.Name, u.Config.URL, l.upstreamNotes(u))
	}
	for _, a := range l.Policy.Authorities {
		notAsked := ""
		if l.withoutKey[a.Name] != "" {
			notAsked = ", and what is in a KMS, which was not asked"
		}
		row("authority", "%s, %s%s", a.Name, vouches(a), notAsked)
	}
	for _, line := range l.accessSummary() {
		row("access", "%s", line)
	}
	row("enforcement", "%s", l.Enforcement)
	for _, p := range l.Policies[:min(len(l.Policies), mostShown)] {
		row("policy", "%s", l.policySummary(p))
	}
	if more := len(l.Policies) - mostShown; more > 0 {
		row("policy", "and %d more", more)
	}
	row("otherwise", "denied")
	for _, e := range l.Exceptions[:min(len(l.Exceptions), mostShown)] {
		row("exception", "%s", exceptionSummary(e, now))
	}
	if more := len(l.Exceptions) - mostShown; more > 0 {
		row("exception", "and %d more", more)
	}
	for _, w := range l.Warnings[:min(len(l.Warnings), mostShown)] {
		row("warning", "%s", w)
	}
	if n := len(l.Revoked); n > 0 {
		row("revoked", "%d %s", n, plural(n, "digest", "digests"))
	}
	return t.Flush()
}

func (l *loaded) encryption() string {
	switch {
	case l.TLS == nil:
		return ", plain HTTP"
	case l.TLS.ClientCAs != nil:
		return ", TLS with client certificates"
	}
	return ", TLS"
}

func (l *loaded) cacheSummary() string {
	if l.Cache.Directory.Name == "" {
		return "in memory"
	}
	if l.Cache.MaxSize.Percent > 0 {
		return fmt.Sprintf("%s, at most %d%% of its file system", l.Cache.Directory.Name, l.Cache.MaxSize.Percent)
	}
	return fmt.Sprintf("%s, at most %d bytes", l.Cache.Directory.Name, l.Cache.MaxSize.Bytes)
}

func (l *loaded) upstreamNotes(u upstreamSettings) string {
	var notes []string
	if u.Config.Credentials != nil {
		notes = append(notes, "with credentials")
	}
	if u.Name == l.DefaultUpstream.Value {
		notes = append(notes, "the default")
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

// policySummary is what p matches and does, and where it differs from the
// defaults, in the words of an explanation's trace.
func (l *loaded) policySummary(p policyConfig) string {
	out := strings.Join(p.Match, " ") + ": " + effectSummary(p)
	if p.Name != "" {
		out = p.Name + ", for " + out
	}
	if p.SignedAs.As == policy.Remapped {
		out += fmt.Sprintf("; signedAs {prefix: %s, signedPrefix: %s}", p.SignedAs.Remap.Prefix, p.SignedAs.Remap.SignedPrefix)
	}
	for _, c := range signedAsWords() {
		if c.means == p.SignedAs.As && c.means != policy.IfPresent {
			out += "; signedAs " + c.word
		}
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(p.Annotations)) {
		pairs = append(pairs, name+"="+p.Annotations[name])
	}
	if len(pairs) > 0 {
		out += "; annotations " + strings.Join(pairs, ", ")
	}
	if p.Rego.Name != "" {
		out += "; unless " + p.Rego.Name + " denies"
	}
	if p.MaxAge > 0 {
		out += "; maxAge " + p.MaxAge.String()
	}
	if p.MinAge > 0 {
		out += "; minAge " + p.MinAge.String()
	}
	if p.Enforcement != nil && *p.Enforcement != l.Enforcement {
		out += "; " + p.Enforcement.String()
	}
	if p.Push != nil {
		out += "; pushes " + p.Push.rule().String()
		if p.Push.Delete {
			out += ", deletions"
		}
	}
	return out
}

func effectSummary(p policyConfig) string {
	switch {
	case p.Allow:
		return "allow unverified"
	case p.Deny != "":
		return "deny: " + displayed(p.Deny)
	}
	var parts []string
	if p.Require != nil {
		parts = append(parts, "require "+p.Require.summary())
	}
	for _, a := range p.Attestations {
		part := "require " + envelope.PredicateName(a.PredicateType) + " by " + a.Require.summary()
		if a.Rego.Name != "" {
			part += " that " + a.Rego.Name + " does not deny"
		}
		parts = append(parts, part)
	}
	return cmp.Or(strings.Join(parts, "; "), "nothing")
}

// summary is who must have signed.
func (r *requireConfig) summary() string {
	var names []string
	for _, n := range r.Of {
		names = append(names, n.Value)
	}
	slices.Sort(names)
	return requireSummary(r.AtLeast, names)
}

func requireSummary(atLeast int, names []string) string {
	list := strings.Join(names, ", ")
	switch {
	case len(names) == 1:
		return list
	case atLeast == len(names):
		return "all of " + list
	}
	return fmt.Sprintf("%d of %s", atLeast, list)
}

// exceptionSummary is what e lets through, or that it does so no more.
func exceptionSummary(e exceptionConfig, now time.Time) string {
	if !e.isActive(now) {
		return fmt.Sprintf("%s: ended on %s, remove it (%s)", e.about(), momentText(e.Until), e.where())
	}
	return fmt.Sprintf("%s: active until %s for %d %s, %s", e.about(), momentText(e.Until),
		len(e.Digests), plural(len(e.Digests), "digest", "digests"), e.Reason)
}

func orOff(addr string) string {
	if addr == "" {
		return "off"
	}
	return addr
}
