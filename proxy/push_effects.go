package proxy

import (
	"context"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// What is known here of a repository changes with what is pushed to it: at once,
// not when it expires. Nothing is believed for having been pushed. It is forgotten,
// and asked of the upstream when somebody wants it.

// sincePush is part of the names of questions, so that none that was asked before a
// push answers who asks after it.
func (l *live) sincePush() string { return "\x00" + strconv.FormatUint(l.pushed.Load(), 10) }

// changed forgets the denials that the manifest may turn: its own, and that of its
// subject.
func (p *pushed) changed(ctx context.Context) {
	p.back(ctx, p.digest)
	p.forget(p.digest)
	if !isZero(p.about) {
		p.forget(p.about)
	}
	if p.subject != nil {
		p.forget(p.subject.Digest)
	}
}

// forget drops the denials of digest in this repository, those too that are being
// reached.
func (v *view) forget(digest v1.Hash) {
	// the revision of the request, and that which has come meanwhile
	for _, l := range []*live{v.live, v.proxy.current.Load()} {
		l.pushed.Add(1)
		l.decisions.forgetDenials(v.name, digest)
		l.observed.forgetDenials(v.name, digest)
	}
}

// reconsider drops every decision about subject in this repository, those too that are
// being reached, for what it rests on may not be there any more; about everything in the
// repository when subject is the zero digest.
func (v *view) reconsider(subject v1.Hash) {
	for _, l := range []*live{v.live, v.proxy.current.Load()} {
		l.removed.Add(1) // before, for who is about to keep one
		l.pushed.Add(1)
		l.decisions.forget(v.name, subject)
		l.observed.forget(v.name, subject)
	}
}

// moved forgets what a tag named.
func (v *view) moved(ctx context.Context, tag string) {
	v.proxy.moves.Add(1) // before, for who is about to say what it named
	v.setTag(context.WithoutCancel(ctx), tag, v1.Hash{}, time.Time{})
	for _, l := range []*live{v.live, v.proxy.current.Load()} {
		l.pushed.Add(1)
		l.doubts.remove(v.tagKey(tag))
	}
}

// begin records that the push is let through, before anything of it takes effect.
func (p *pushed) begin(ctx context.Context) error {
	p.id = policy.NewID()
	why := "pushed, unsigned as the policy says"
	switch {
	case p.kind == pushedEvidence:
		why = "pushed as evidence about " + p.about.String()
	case p.kind == pushedListing:
		why = "pushed as the list of what refers to " + p.about.String()
	case p.rule.Sign != "" && p.tag == "":
		why = "pushed by digest, which is signed when a tag is pushed for it"
	case p.rule.Sign != "":
		why = "pushed, to be signed by " + p.rule.Sign + " before the tag is put"
	}
	return p.note(ctx, "push", "allowed", why, nil)
}

// failed records that a push which was let through did not come to its end: what it
// put by digest may be there, its tag is not or is unknown to be.
func (p *pushed) failed(ctx context.Context, err error) {
	why := "the push did not come to its end: the manifest may be there by its digest, and signed"
	if p.tag != "" {
		why += "; the tag may not have been put"
	}
	if noteErr := p.note(context.WithoutCancel(ctx), "push", "inconclusive", why, err); noteErr != nil {
		p.proxy.logger.Warn("a failed push is not on record", "id", p.id, "err", noteErr)
	}
}

// note keeps a record about the push.
func (p *pushed) note(ctx context.Context, action, outcome, why string, cause error) error {
	return p.view.noteChange(ctx, p.asker, Record{
		ID: p.id, Action: action, Decision: outcome, Explained: why, Digest: p.digest.String(), Subject: digestText(p.about),
	}, cause)
}

// noteChange keeps a record of something that changes the repository.
func (v *view) noteChange(ctx context.Context, a asker, r Record, cause error) error {
	scope := v.Gate.Scope(v.name)
	r.Time, r.Repository, r.Reference, r.Policy, r.Enforcement = v.proxy.now(), v.name, a.reference, scope.Policy, scope.Enforcement.String()
	r.Client, r.Caller, r.UserAgent, r.Revision = a.client, a.caller, a.userAgent, v.ID
	if cause != nil {
		r.Causes = []string{printableText(cause.Error())}
	}
	d := policy.Decision{ID: r.ID, Policy: scope.Policy, Enforcement: scope.Enforcement}
	d.Subject.Repository = v.name
	return v.write(ctx, d, r, a)
}

func digestText(digest v1.Hash) string {
	if isZero(digest) {
		return ""
	}
	return digest.String()
}
