package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Push says what becomes of what is pushed into the repositories of a policy. This
// package only hands it on: it has no part in a decision.
type Push struct {
	// Sign names the authority whose key signs what a tag is pushed for, before the
	// tag is there. Empty: what is pushed is stored as it comes.
	Sign string
	// Annotations are signed along.
	Annotations map[string]string
	// Recursive signs what an index lists, too.
	Recursive bool
	// Formats are those that a signature is written in.
	Formats []string
	// Hook signs what the upstream tells of that was pushed to it.
	Hook bool
	// Delete lets tags and manifests be deleted.
	Delete bool
}

// clone returns a copy that shares nothing with p.
func (p *Push) clone() *Push {
	if p == nil {
		return nil
	}
	c := *p
	c.Annotations = maps.Clone(p.Annotations)
	c.Formats = slices.Clone(p.Formats)
	return &c
}

func (v *validation) push(where string, p Policy) {
	switch {
	case p.Push == nil:
		return
	case p.Deny != "":
		v.fault(where, "has push and deny: what nobody may pull is of no use; remove one")
		return
	case p.Push.Sign == "":
		if len(p.Push.Annotations) > 0 || p.Push.Recursive || p.Push.Hook {
			v.fault(where, "push has annotations, recursive or hook, which only sign reads: remove them, or add sign")
		}
		return
	}
	if _, ok := v.authorities[p.Push.Sign]; !ok {
		v.fault(where, "push.sign names %s, which is no authority: %s", clean(p.Push.Sign, maxLabel), v.suggestion())
	}
	if slices.Contains(p.Require.Of, p.Push.Sign) && (p.MaxAge > 0 || p.MinAge > 0) {
		v.fault(where, "wants a proven time of what %s signs, which nothing proves of what is signed when it is pushed: remove maxAge and minAge, or push.sign", clean(p.Push.Sign, maxLabel))
	}
	v.annotations(where, p.Push.Annotations)
	for _, name := range slices.Sorted(maps.Keys(p.Push.Annotations)) {
		if strings.HasPrefix(name, ReservedAnnotation) {
			v.fault(where, "push.annotations has %s: names that begin with %s are those that Vidimus signs by itself", clean(name, maxLabel), ReservedAnnotation)
		}
	}
	for name, value := range p.Annotations {
		if signed, ok := p.Push.Annotations[name]; slices.Contains(p.Require.Of, p.Push.Sign) && (!ok || signed != value) {
			v.fault(where, "wants the annotation %s, which push does not sign: add it to push.annotations", clean(pair(name, value), maxLabel))
		}
	}
}

// ReservedAnnotation is what the names of annotations begin with that Vidimus signs
// itself when it signs a push.
const ReservedAnnotation = "vidimus.dev/"

// needsName reports whether a signature by this key must claim the repository that
// it is found in. A key that signs pushes would otherwise let who may push into one
// repository vouch for what is in another.
func (p *Policy) needsName(keyID string) bool {
	return (p.SignedAs == IfPresent || p.SignedAs == Ignore) && slices.Contains(p.signing, keyID)
}

// named is p as it weighs the name that a signature by this key claims.
func (p *Policy) named(keyID string) *Policy {
	if !p.needsName(keyID) {
		return p
	}
	strict := *p
	strict.SignedAs = Repository
	return &strict
}

// String tells a push rule in one line.
func (p *Push) String() string {
	if p.Sign == "" {
		return "unsigned"
	}
	return fmt.Sprintf("signed by %s", clean(p.Sign, maxLabel))
}
