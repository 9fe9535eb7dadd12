package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"vidimus/policy"
)

// summarize writes one screen about a configuration that holds.
func (l *loaded) summarize(w io.Writer, name string) error {
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
		row("authority", "%s, %d %s", a.Name, len(a.Keys), plural(len(a.Keys), "key", "keys"))
	}
	row("enforcement", "%s", l.Enforcement)
	const most = 20
	for i, p := range l.Policies {
		if i == most {
			row("policy", "and %d more", len(l.Policies)-most)
			break
		}
		row("policy", "%s: %s", strings.Join(p.Match, " "), policySummary(p))
	}
	row("otherwise", "denied")
	if n := len(l.Exceptions); n > 0 {
		row("exceptions", "%d", n)
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

func policySummary(p policyConfig) string {
	var out string
	switch {
	case p.Allow:
		return "allow unverified"
	case p.Deny != "":
		return "deny"
	case p.Require != nil:
		var names []string
		for _, n := range p.Require.Of {
			names = append(names, n.Value)
		}
		slices.Sort(names)
		out = fmt.Sprintf("require %d of %s", p.Require.AtLeast, strings.Join(names, ", "))
	}
	if p.Enforcement != nil && *p.Enforcement != policy.Enforce {
		out += ", " + p.Enforcement.String()
	}
	return out
}

func orOff(addr string) string {
	if addr == "" {
		return "off"
	}
	return addr
}
