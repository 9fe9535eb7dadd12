package main

import (
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"vidimus/proxy/access"
)

func authShape() shape[authConfig] {
	return object([]field[authConfig]{
		key("htpasswd", `""`, filePath(), func(c *authConfig) *file { return &c.Htpasswd },
			"file of user:hash lines, bcrypt alone; read again when it changes"),
		key("access", "", some(accessShape(), "write an entry, like {subjects: [authenticated], match: \"**\", actions: [pull]}"),
			func(c *authConfig) *[]accessConfig { return &c.Access },
			"an ordered list; the first whose subjects and match fit decides, and none fits is refused; without it whoever reaches the port may pull"),
		key("anonymousPull", "false", boolean(), func(c *authConfig) *bool { return &c.AnonymousPull },
			"everyone who reaches the port may read what the upstream credentials may read"),
	}, "token")
}

func accessShape() shape[accessConfig] {
	return object([]field[accessConfig]{
		required(key("subjects", "", some(placed(subject()), "name somebody: "+subjectFix), func(c *accessConfig) *[]located[string] { return &c.Subjects },
			"whom it is about: anonymous, authenticated, users, or cert: and a name of a client certificate")),
		required(key("match", "", matchShape(), func(c *accessConfig) *[]string { return &c.Match },
			"repositories, as in a policy")),
		required(key("actions", "", some(action(), "write what they may do: "+alternatives(actionNames())), func(c *accessConfig) *[]access.Action { return &c.Actions },
			"all that they may do there: pull, push, sign, inspect, delete")),
	})
}

const subjectFix = "write anonymous, authenticated, a user of the htpasswd file, or cert: and a name of a client certificate"

func subject() shape[string] {
	return checked(subjectFix, func(s string) error {
		name, isCertificate := strings.CutPrefix(s, access.CertificatePrefix)
		switch {
		case isCertificate && name == "":
			return errors.New("names no certificate")
		case isCertificate, s == access.SubjectAnonymous, s == access.SubjectAuthenticated:
			return nil
		case strings.Contains(s, ":"):
			return fmt.Errorf("%s is no subject that is known", quote(s))
		}
		return access.CheckUser(s)
	})
}

func action() shape[access.Action] {
	var choices []choice[access.Action]
	for _, a := range access.Actions() {
		choices = append(choices, choice[access.Action]{string(a), a})
	}
	return oneOf(choices)
}

func actionNames() []string {
	var names []string
	for _, a := range access.Actions() {
		names = append(names, string(a))
	}
	return names
}

// knowsCallers reports whether the configuration says who may do what. Without
// it everyone who reaches the registry API is alike.
func (c *Config) knowsCallers() bool { return len(c.Auth.Access) > 0 }

// everybodyPushes reports whether somebody may push who has not logged in.
func (c *Config) everybodyPushes() bool {
	return !c.knowsCallers() || slices.ContainsFunc(c.Auth.Access, func(a accessConfig) bool { return a.lets(access.SubjectAnonymous, access.Push) })
}

// lets reports whether an entry names a subject and an action.
func (a accessConfig) lets(subject string, action access.Action) bool {
	return slices.Contains(a.Actions, action) && slices.ContainsFunc(a.Subjects, func(s located[string]) bool { return s.Value == subject })
}

// loopbackAddr reports whether the registry API is reached from this machine
// alone.
func (c *Config) loopbackAddr() bool {
	host, _, err := net.SplitHostPort(c.HTTP.Addr.Value)
	return err == nil && isLoopback(host)
}

// access judges who may talk to the proxy, and refuses what says something else
// than whoever wrote it believes.
func (j *judgement) access() {
	auth := j.config.Auth
	passwords := j.passwords()
	if !j.config.knowsCallers() {
		if auth.Htpasswd.Name != "" && !j.faults.inside(accessAt(auth)) {
			j.fail(auth.Htpasswd, "gives users passwords, but nothing says what they may do", `add access, like [{subjects: [authenticated], match: "**", actions: [pull]}]`)
		}
		return
	}
	config := access.Config{Passwords: passwords}
	for _, a := range auth.Access {
		j.subjects(a, passwords)
		config.Entries = append(config.Entries, j.accessEntry(a))
	}
	for _, f := range access.Lint(config.Entries) {
		if where := auth.Access[f.Index].pos; !j.faults.inside(where) {
			j.fail(where, f.What, f.Fix)
		}
	}
	pulls := func(a accessConfig) bool { return a.lets(access.SubjectAnonymous, access.Pull) }
	if auth.AnonymousPull && !slices.ContainsFunc(auth.Access, pulls) {
		j.fail(auth, "says anonymousPull, but no entry of access lets anonymous pull, and only those count", "remove anonymousPull, or add such an entry")
	}
	j.out.Access = &config
}

// accessAt is where the access list stands, or would.
func accessAt(auth authConfig) pos {
	at := auth.pos
	at.Path = joinKey(at.Path, "access")
	return at
}

// passwords reads the htpasswd file. What is wrong with its lines is told there.
func (j *judgement) passwords() *access.Passwords {
	f := j.config.Auth.Htpasswd
	data, ok := j.content(f)
	if !ok {
		return nil
	}
	passwords, err := access.ParsePasswords(data)
	for _, each := range unjoin(err) {
		where := pos{File: f.Name}
		if line, ok := errors.AsType[*access.LineError](each); ok {
			where.Line = line.Line
			j.fail(where, line.What, line.Fix)
			continue
		}
		j.fail(f, each.Error(), "name another file")
	}
	return passwords
}

// subjects refuses whom no request could come from.
func (j *judgement) subjects(a accessConfig, passwords *access.Passwords) {
	htpasswd := j.config.Auth.Htpasswd.Name
	for _, s := range a.Subjects {
		switch {
		case s.Value == access.SubjectAnonymous:
			j.anonymous(a, s)
		case s.Value == access.SubjectAuthenticated:
			if htpasswd == "" && len(j.config.HTTP.TLS.ClientCAs) == 0 {
				j.fail(s, "is nobody, for there is neither an htpasswd file nor client certificates", "add htpasswd, or http.tls.clientCAs")
			}
		case strings.HasPrefix(s.Value, access.CertificatePrefix):
			if len(j.config.HTTP.TLS.ClientCAs) == 0 {
				j.fail(s, "is nobody, for no client shows a certificate", "add http.tls.clientCAs")
			}
		case htpasswd == "":
			j.fail(s, "is nobody, for there is no htpasswd file", "add auth.htpasswd with a line for "+s.Value)
		case passwords != nil && !slices.Contains(passwords.Users(), s.Value):
			j.fail(s, fmt.Sprintf("no user of %s is called %s", htpasswd, quote(s.Value)), "add the user; "+suggest(s.Value, passwords.Users()))
		}
	}
}

// anonymous refuses that everybody on a network changes or reads what is not
// even admitted.
func (j *judgement) anonymous(a accessConfig, s located[string]) {
	var more []string
	for _, action := range a.Actions {
		if action != access.Pull {
			more = append(more, string(action))
		}
	}
	if len(more) > 0 && !j.config.loopbackAddr() {
		j.fail(s, "lets everyone who reaches the port "+enumerate(more), "name users, or listen on loopback")
	}
}

func (j *judgement) accessEntry(a accessConfig) access.Entry {
	e := access.Entry{Match: j.match(a.pos, a.Match, ""), Actions: a.Actions}
	for _, s := range a.Subjects {
		e.Subjects = append(e.Subjects, s.Value)
	}
	for i, action := range a.Actions {
		if slices.Contains(a.Actions[:i], action) {
			at := a.pos
			at.Path = joinKey(at.Path, "actions")
			j.fail(at, "names "+string(action)+" twice", "remove one of the two")
		}
	}
	if dead := j.unknownUpstreams(a.Match); len(dead) > 0 {
		at := a.pos
		at.Path = joinKey(at.Path, "match")
		j.fail(at, "is only about what no configured upstream holds", "add "+enumerate(dead)+" to upstreams, or correct it")
	}
	return e
}

// unknownUpstreams returns the registries that patterns name, when none of them
// can be an upstream's.
func (j *judgement) unknownUpstreams(patterns []string) []string {
	var unknown []string
	for _, pattern := range patterns {
		first, _, _ := strings.Cut(pattern, "/")
		if strings.HasPrefix(pattern, "!") || slices.Contains(unknown, first) {
			continue
		}
		for _, u := range j.config.Upstreams {
			if fits, err := path.Match(first, u.Name); err != nil || fits || first == "**" || first == "{repo}" {
				return nil
			}
		}
		unknown = append(unknown, first)
	}
	return unknown
}

// accessSummary is who may do what, a line for each entry.
func (l *loaded) accessSummary() []string {
	if l.Access == nil {
		return []string{"everyone who reaches the port may pull"}
	}
	var lines []string
	for _, e := range l.Access.Entries[:min(len(l.Access.Entries), mostShown)] {
		var actions []string
		for _, a := range e.Actions {
			actions = append(actions, string(a))
		}
		lines = append(lines, fmt.Sprintf("%s: %s in %s", strings.Join(e.Subjects, ", "), strings.Join(actions, ", "), e.Match))
	}
	if more := len(l.Access.Entries) - mostShown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return append(lines, "otherwise refused")
}
