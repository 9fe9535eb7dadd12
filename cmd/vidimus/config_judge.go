package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/policy/rego"
)

// policies turns what is written into what the policy package decides with.
// What the package cannot tell, for it knows neither lines nor files, is judged
// here; the rest is left to it.
func (j *judgement) policies() {
	rules := &j.out.Policy
	rules.Revision = j.out.ID
	rules.Enforcement = j.config.Enforcement
	rules.Now = func() time.Time { return j.now }
	for _, r := range j.config.Revoked {
		rules.Revoked = append(rules.Revoked, r.Value)
	}
	for _, p := range j.config.Policies {
		rules.Policies = append(rules.Policies, j.policy(p))
	}
	for _, e := range j.config.Exceptions {
		rules.Exceptions = append(rules.Exceptions, policy.Exception{
			Match: j.match(e.pos, e.Match, e.Scope), Digests: e.Digests, Until: e.Until, Reason: e.Reason,
		})
	}
}

func (j *judgement) policy(p policyConfig) policy.Policy {
	out := policy.Policy{
		Name:            p.Name,
		Match:           j.match(p.pos, p.Match, p.Scope),
		AllowUnverified: p.Allow,
		Deny:            p.Deny,
		SignedAs:        p.SignedAs.As,
		Remap:           p.SignedAs.Remap,
		Annotations:     p.Annotations,
		MaxAge:          p.MaxAge,
		MinAge:          p.MinAge,
		Enforcement:     p.Enforcement,
		Message:         p.Message,
		Push:            p.Push.rule(),
	}
	out.Require = j.require(p.Require)
	out.Attestations = j.attestations(p.Attestations)
	out.Rego = j.rego(p.Rego, rego.Image)
	return out
}

// require returns what is required; nothing when nothing is written.
func (j *judgement) require(r *requireConfig) (out policy.Require) {
	if r == nil {
		return out
	}
	out.AtLeast = r.AtLeast
	for _, name := range r.Of {
		j.authorityExists(name)
		out.Of = append(out.Of, name.Value)
	}
	return out
}

func (j *judgement) authorityExists(name located[string]) {
	known := make([]string, len(j.config.Authorities))
	for i, a := range j.config.Authorities {
		known[i] = a.Name
	}
	if !slices.Contains(known, name.Value) {
		j.fail(name, "no authority is named "+quote(name.Value), "define it under authorities; "+suggest(name.Value, known))
	}
}

// match parses the patterns of a policy or an exception at p, which must lie
// inside of scope when there is one.
func (j *judgement) match(p pos, patterns []string, scope string) policy.Match {
	p.Path = joinKey(p.Path, "match")
	if len(patterns) == 0 {
		return policy.Match{} // reported when it was decoded
	}
	m, err := policy.ParseMatch(patterns)
	j.failEach(p, err)
	if err != nil || scope == "" {
		return m
	}
	limit, err := policy.ParseMatch([]string{scope})
	if err != nil || policy.Within(m, limit) { // a bad scope is reported with the include
		return m
	}
	what := "reaches outside of " + quote(scope) + ", the scope of this file"
	if example, ok := policy.Outside(m, limit); ok {
		what += ": it matches " + example
	}
	j.fail(p, what, "narrow it, or move it to the main file")
	return m
}

func (j *judgement) scopes() {
	for _, include := range j.config.Include {
		if include.Scope != "" {
			where := include.pos
			where.Path = joinKey(where.Path, "scope")
			_, err := policy.ParseMatch([]string{include.Scope})
			j.failEach(where, err)
		}
	}
}

// rules lets the policy package judge. What it says of an entry that has a fault
// already is only the consequence of that.
func (j *judgement) rules() {
	broken := slices.Clone(j.faults)
	if _, err := policy.New(j.out.Policy); err != nil {
		for _, each := range unjoin(err) {
			where, message := pos{File: j.config.File}, each.Error()
			if f, ok := errors.AsType[*policy.Fault](each); ok {
				where, message = j.where(f.Where), f.Message
			}
			if !broken.inside(where) {
				j.fail(where, message, "")
			}
		}
	}
	names := make([]string, len(j.config.Upstreams))
	for i, u := range j.config.Upstreams {
		names[i] = u.Name
	}
	for _, l := range policy.Lint(j.out.Policy.Policies, names) {
		if where := j.config.Policies[l.Index].pos; !broken.inside(where) {
			j.fail(where, l.Message, "")
		}
	}
}

// where finds the entry that the policy package names: policies[2] is the third
// of all files together.
func (j *judgement) where(name string) pos {
	section, rest, _ := strings.Cut(name, "[")
	index, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	switch {
	case err != nil:
	case section == "policies" && index < len(j.config.Policies):
		return j.config.Policies[index].pos
	case section == "exceptions" && index < len(j.config.Exceptions):
		return j.config.Exceptions[index].pos
	case section == "revoked" && index < len(j.config.Revoked):
		return j.config.Revoked[index].pos
	}
	for _, a := range j.config.Authorities {
		if name == "authorities."+a.Name {
			return a.pos
		}
	}
	return pos{File: j.config.File, Path: name}
}

func (j *judgement) fail(at interface{ position() pos }, what, fix string) {
	j.faults.add(at.position().fault(what, fix))
}

// failEach reports each of the errors that err joins; they say the fix.
func (j *judgement) failEach(at interface{ position() pos }, err error) {
	for _, each := range unjoin(err) {
		j.fail(at, each.Error(), "")
	}
}

// inside reports whether a fault lies at where or below it; no path is the whole
// file.
func (fs faults) inside(where pos) bool {
	return slices.ContainsFunc(fs, func(f fault) bool {
		rest, ok := strings.CutPrefix(f.Path, where.Path)
		return ok && f.File == where.File && (where.Path == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// unjoin returns the errors that err joins, or err alone.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, each := range joined.Unwrap() {
			all = append(all, unjoin(each)...)
		}
		return all
	}
	return []error{err}
}
