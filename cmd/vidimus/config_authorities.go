package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"vidimus/signer/kms"
	"vidimus/verifier"
)

// authorities reads the keys and trust roots. An authority whose files cannot be used
// stays, so that the policies that name it are not blamed as well.
func (j *judgement) authorities() {
	if !j.config.TrustedRoot.none() {
		// reported once, and whether or not anybody needs it
		if r, what := j.root(j.config.TrustedRoot, true); what == "" && r.HasTimes() && r.HasAuthorities() {
			j.out.Policy.Root = r
		}
	}
	first := make(map[string]pos)
	for _, a := range j.config.Authorities {
		if before, ok := first[a.Name]; ok {
			j.fail(a, fmt.Sprintf("is defined already, in %s:%d", before.File, before.Line), "give one of them another name")
			continue
		}
		first[a.Name] = a.pos
		out := verifier.Authority{Name: a.Name, PrivatePKI: a.Value.PrivatePKI, Unlogged: !a.Value.TransparencyLog}
		j.kind(a)
		j.keys(a.Value.Keys, &out)
		j.identities(a.Value.identities(), &out)
		if root := j.config.root(a.Value); !root.none() {
			var what string
			if out.Root, what = j.root(root, a.Value.PrivatePKI); what != "" && j.config.needsRoot(a) {
				out.Suspended = what
			}
		}
		j.out.Policy.Authorities = append(j.out.Policy.Authorities, out)
	}
}

// kind makes sure that an authority is known in one way.
func (j *judgement) kind(a named[authorityConfig]) {
	if j.faults.inside(a.pos) {
		return // reported when it was decoded
	}
	var kinds []string
	for _, k := range []struct {
		name  string
		count int
	}{{"keys", len(a.Value.Keys)}, {"keyless", len(a.Value.Keyless)}, {"github", len(a.Value.GitHub)}, {"gitlab", len(a.Value.GitLab)}} {
		if k.count > 0 {
			kinds = append(kinds, k.name)
		}
	}
	certified := len(a.Value.identities()) > 0
	switch {
	case len(kinds) > 1:
		j.fail(a, "has "+enumerate(kinds), "make an authority of each")
	case len(kinds) == 0:
		j.fail(a, "says of nobody that it may vouch", "write keys, keyless, github or gitlab")
	case !certified && a.Value.PrivatePKI:
		j.fail(a, "has privatePKI, and no certificates", "remove it, or write keyless")
	case !certified && !a.Value.TransparencyLog:
		j.fail(a, "has transparencyLog, and no certificates", "remove it, or write keyless, github or gitlab")
	}
}

func (j *judgement) keys(keys []keyConfig, out *verifier.Authority) {
	first := make(map[string]keyConfig) // by the key's ID
	for i, k := range keys {
		if slices.ContainsFunc(keys[:i], func(o keyConfig) bool { return filepath.Clean(o.Name) == filepath.Clean(k.Name) }) {
			j.fail(k, k.Name+" is in this list already", "remove one of the two")
			continue
		}
		key, what := readKey(j.reader, k.Name)
		if what != "" && kms.IsReference(k.Name) {
			out.Suspended = what
			j.out.lacks(out.Name, what)
			continue
		}
		if what != "" {
			j.unusable(k.file, what, "name a PEM file with a public key")
			out.Suspended = what
			continue
		}
		if other, ok := first[key.ID()]; ok && !(other.From.Equal(k.From) && other.Until.Equal(k.Until)) {
			// which of them is meant is for nobody to guess
			j.fail(k, k.Name+" holds the key of "+other.Name+" with another from or until", "keep one of the two")
			continue
		}
		first[key.ID()] = k
		out.Keys = append(out.Keys, key)
		if !k.From.IsZero() || !k.Until.IsZero() {
			if out.Windows == nil {
				out.Windows = make(map[string]verifier.Window)
			}
			out.Windows[key.ID()] = verifier.Window{From: k.From, Until: k.Until}
		}
	}
}

// unusable reports a file that an authority cannot do without.
func (j *judgement) unusable(f file, what, fix string) {
	trouble := f.fault(what, fix)
	trouble.Key = f.Name
	j.faults.add(trouble)
}

func (j *judgement) identities(identities []identityConfig, out *verifier.Authority) {
	for _, c := range identities {
		if c.Subject == "" {
			continue // reported when it was decoded
		}
		id, err := verifier.ParseIdentity(c.Issuer, c.Subject, c.Source)
		if err != nil {
			j.fail(c, err.Error(), identityFix)
			continue
		}
		out.Identities = append(out.Identities, id)
		switch {
		case c.open():
			j.out.Warnings.add(c.fault("takes every workflow on every ref: whoever may push a branch of it may sign", "name the workflow, or the ref, like refs/tags/v*"))
		case c.crosses():
			j.out.Warnings.add(c.fault("has two stars that cross the @ before the ref: whoever may push a branch may call it x@refs/heads/main, and sign", "write * for the file of the workflow: it stays between slashes"))
		}
	}
	if len(identities) > 0 && len(out.Identities) == 0 {
		out.Suspended = "no identity" // reported above
	}
}

// root reads a trust root, once for all who name it.
func (j *judgement) root(c rootConfig, private bool) (*verifier.Root, string) {
	type answer = struct {
		root *verifier.Root
		what string
	}
	id := fmt.Sprintf("%v %v %s", c.Public, private, c.Name)
	if known, ok := j.roots[id]; ok {
		return known.root, known.what
	}
	root, what := readRoot(j.reader, c, private)
	if what != "" {
		j.unusable(c.file, what, "name a trusted_root.json, or write sigstore for the public instance")
	}
	if j.roots == nil {
		j.roots = make(map[string]answer)
	}
	j.roots[id] = answer{root, what}
	return root, what
}

// readKey returns the key in the file name, or what is wrong with it.
func readKey(r *reader, name string) (verifier.Key, string) {
	data, err := r.read(name)
	if err != nil {
		return verifier.Key{}, plainError(err)
	}
	key, err := verifier.ParseKey(data)
	if err != nil {
		return verifier.Key{}, name + ": " + err.Error()
	}
	return key, ""
}

// vouches says in a few words who an authority is.
func vouches(a verifier.Authority) string {
	if len(a.Identities) == 0 {
		return fmt.Sprintf("%d %s", len(a.Keys), plural(len(a.Keys), "key", "keys"))
	}
	var who []string
	for _, id := range a.Identities {
		who = append(who, id.String())
	}
	return strings.Join(who, " or ")
}
