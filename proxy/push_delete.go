package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// deleteManifest removes a tag, and nothing else; or the manifest of a digest, with
// what is about it and about nothing else: signatures, attestations and referrers.
// Those go last, and so does its own place on a list of referrers: where the upstream
// does not let it go its tags stand, and need them, and others may need it. What is
// deleted twice is deleted all the same.
func (q *request) deleteManifest(v *view, rule *policy.Push) error {
	if !rule.Delete {
		return &Error{
			Status: http.StatusMethodNotAllowed, Code: codeUnsupported, Allow: "GET, HEAD, PUT",
			Message: "policy " + printable(v.Gate.Scope(v.name).Policy) + " lets nothing be deleted: add delete: true to its push",
		}
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), pushTime)
	defer cancel()
	a := q.asker()
	record := Record{ID: policy.NewID(), Action: "delete", Decision: "allowed", Explained: "deleted, as the policy allows", Digest: digestText(q.route.digest)}
	q.id = []string{record.ID}
	if err := v.noteChange(ctx, a, record, nil); err != nil {
		return err
	}
	err := v.remove(ctx, q.route.tag, q.route.digest)
	if err != nil {
		record.Decision, record.Explained = "inconclusive", "the deletion did not come to its end"
		if noteErr := v.noteChange(context.WithoutCancel(ctx), a, record, err); noteErr != nil {
			v.proxy.logger.Warn("a failed deletion is not on record", "id", record.ID, "err", noteErr)
		}
		return pushError(err, q.wanted())
	}
	q.setID()
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (v *view) remove(ctx context.Context, tag string, digest v1.Hash) error {
	subject, _, signatures := subjectOfTag(tag)
	if tag == "" || signatures {
		leave, err := v.proxy.signings.remove(ctx, v.name)
		if err != nil {
			return err
		}
		defer leave()
	}
	if tag != "" {
		err := v.registered.Push.DeleteManifest(ctx, v.repository, tag)
		v.moved(ctx, tag)
		if signatures {
			v.reconsider(subject)
		}
		return err
	}
	m, err := v.fetchManifest(ctx, digest)
	if errors.Is(err, fs.ErrNotExist) { // a deletion may have broken off
		left, _ := v.proxy.loadManifest(ctx, digest) // or nil: its bytes are kept here for a while
		if err := v.removeTraces(ctx, digest, left); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if m.mayVouch() {
		defer v.reconsider(v1.Hash{}) // also when it was not removed after all
	}
	err = v.registered.Push.DeleteManifest(ctx, v.repository, digest.String())
	v.gone(ctx, digest)
	if err != nil {
		return err
	}
	return v.removeTraces(ctx, digest, m)
}

// removeTraces removes what is left of a manifest that is not there any more: its place
// on a list, as far as it is known what it was, and what is about it.
func (v *view) removeTraces(ctx context.Context, digest v1.Hash, m *manifest) error {
	if m != nil {
		if err := v.unlist(ctx, m); err != nil {
			return err
		}
	}
	return v.removeEvidence(ctx, digest)
}

// mayVouch reports whether decisions may rest on a manifest: it may hold a signature, or
// be a list of referrers. What they are about it need not say.
func (m *manifest) mayVouch() bool {
	return m.index || slices.ContainsFunc(m.layers, func(layer v1.Descriptor) bool { return envelope.IsEvidence(string(layer.MediaType)) })
}

// removeEvidence removes what is about subject and nothing else.
func (v *view) removeEvidence(ctx context.Context, subject v1.Hash) error {
	defer v.reconsider(subject) // also when not all of it could be removed
	listed, err := v.referrers(ctx, subject, "")
	if err != nil && len(listed) == 0 && !errors.Is(err, errMismatch) { // else no list is there
		return fmt.Errorf("list the referrers: %w", err)
	}
	if len(listed) > verifier.MaxChildren {
		listed = listed[:verifier.MaxChildren]
	}
	for _, desc := range listed {
		if err := v.removeAbout(ctx, subject, desc.Digest.String(), ""); err != nil {
			return err
		}
	}
	name := fallbackTag(subject)
	for _, suffix := range []string{".sig", ".cosign", ".att", ".sbom", ""} {
		if err := v.removeAbout(ctx, subject, name+suffix, suffix); err != nil {
			return err
		}
	}
	return nil
}

// removeAbout removes what a reference names, when it is about subject. What only
// stands under a tag that is made of the subject's digest loses that tag, for it may
// be anything, and be in use by another name.
func (v *view) removeAbout(ctx context.Context, subject v1.Hash, reference, suffix string) error {
	isTag := reference == fallbackTag(subject)+suffix
	m, err := v.readTag(ctx, reference)
	if _, stray := errors.AsType[*strayError](err); stray {
		if !isTag {
			return nil // and says nothing of the subject
		}
		return v.removeTag(ctx, reference)
	}
	if err != nil || m == nil || m.digest == subject || !isTag && m.digest.String() != reference {
		return err
	}
	var named v1.Hash
	if isTag {
		named = subject
	}
	about, err := v.subjectOf(ctx, m, named)
	if err != nil {
		return err
	}
	switch {
	case about == subject, isTag && suffix == "" && m.listsReferrersOf(reference):
		err = v.registered.Push.DeleteManifest(ctx, v.repository, m.digest.String())
		v.gone(ctx, m.digest)
		if isTag {
			v.moved(ctx, reference)
		}
		return unlessAbsent(err)
	case isTag:
		return v.removeTag(ctx, reference)
	}
	return nil // it refers to it, and is an image of its own
}

// removeTag removes a tag of what is removed, if it is there.
func (v *view) removeTag(ctx context.Context, tag string) error {
	err := v.registered.Push.DeleteManifest(ctx, v.repository, tag)
	v.moved(ctx, tag)
	return unlessAbsent(err)
}

func unlessAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// gone forgets what is known of a manifest that is not there any more, and keeps that
// it is gone: the store may hold it still.
func (v *view) gone(ctx context.Context, digest v1.Hash) {
	v.proxy.moves.Add(1)
	v.setTag(context.WithoutCancel(ctx), goneName(digest), digest, v.proxy.now())
	for _, l := range []*live{v.live, v.proxy.current.Load()} {
		l.pushed.Add(1)
		l.decisions.forget(v.name, digest)
		l.answers.forget(v.place, digest)
	}
}

// goneName is what a deleted manifest goes by beside the tags of the repository, of
// which no one is called so.
func goneName(digest v1.Hash) string { return "deleted:" + digest.String() }

// isGone reports whether a manifest was deleted here, and not seen at the upstream
// since.
func (v *view) isGone(ctx context.Context, digest v1.Hash) bool {
	known, _, err := v.proxy.index.Tag(ctx, v.name, goneName(digest))
	return err == nil && known == digest
}

// back takes back that a manifest is gone: the upstream has it.
func (v *view) back(ctx context.Context, digest v1.Hash) {
	if v.isGone(ctx, digest) {
		v.setTag(context.WithoutCancel(ctx), goneName(digest), v1.Hash{}, time.Time{})
	}
}
