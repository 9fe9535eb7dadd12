package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy/access"
)

// What is not admitted can be read by who may sign, for nobody could sign through
// the proxy what its policy does not allow yet; by who may inspect; and its
// headers by who may push, since clients look before they push. It passes no gate,
// and so nothing of it enters what others are answered from: no answer, edge or
// index entry is made of it. Its bytes are hashed as all are, and what is revoked
// stays refused.
//
// The gate is asked first all the same: what it allows is served as to everybody,
// and what it does not is on record with the right that it was read under.

// unadmitted returns the right under which the caller may read a manifest that
// the gate does not allow. Without one it returns refusal, the gate's answer.
func (q *request) unadmitted(ctx context.Context, v *view, m *manifest, d policy.Decision, refusal error, a asker) (access.Action, error) {
	if ctx.Err() != nil || v.Gate.Revoked(m.digest) {
		return "", refusal
	}
	right, ok := q.rightToUnadmitted(v.name, access.Sign, access.Inspect)
	if !ok {
		return "", refusal
	}
	if right == access.Push {
		return right, nil // nothing is read but that it is there
	}
	if u, ok := errors.AsType[*undecided](refusal); ok {
		refusal = u.err
	} else {
		refusal = nil
	}
	return right, v.noteUnadmitted(ctx, d, refusal, right, a)
}

// rightToUnadmitted returns the first of rights that the caller has in a
// repository, or push for a request that is answered with headers alone.
func (q *request) rightToUnadmitted(repository string, rights ...access.Action) (access.Action, bool) {
	if q.Access == nil {
		// nobody is known who could have a right of his own, but everybody may push
		// where anything can be
		return access.Push, q.r.Method == http.MethodHead && q.Gate.Scope(repository).Push != nil
	}
	for _, right := range rights {
		if q.may(repository, right) {
			return right, true
		}
	}
	return access.Push, q.r.Method == http.MethodHead && q.may(repository, access.Push)
}

// noteUnadmitted records, before it is served, that a caller reads what was not
// allowed: the same decision again, once for each caller and reference.
func (v *view) noteUnadmitted(ctx context.Context, d policy.Decision, evaluateErr error, right access.Action, a asker) error {
	key := notedKey{d.ID + "\x00" + string(right) + "\x00" + a.caller, a.reference}
	if _, ok := v.noted.get(key); ok && d.ID != "" {
		return nil
	}
	r := newRecord(d, evaluateErr, a)
	r.Time, r.Served, r.Access = v.proxy.now(), true, string(right)
	if err := v.write(ctx, d, r, a); err != nil {
		return err
	}
	v.noted.add(key, struct{}{})
	return nil
}

// sendUnadmitted answers with a manifest that was not admitted, or is evidence
// that the caller reads in order to sign.
func (q *request) sendUnadmitted(d policy.Decision, m *manifest, right access.Action) {
	q.decided(d)
	if right != access.Push {
		q.warn("299", "not admitted, and served because "+printable(q.caller.String())+" may "+string(right)+" here")
	}
	q.sendManifest(m)
}

// noteEvidence remembers the parts of a manifest that was served to who may sign
// and proves to be evidence, for those are all the blobs that a signer may read.
func (q *request) noteEvidence(ctx context.Context, v *view, m *manifest) {
	if q.Access == nil || !m.isEvidenceShaped() || !q.may(v.name, access.Sign) {
		return
	}
	subject, err := v.subjectOf(ctx, m, v1.Hash{})
	if err != nil || isZero(subject) {
		return
	}
	for _, layer := range m.layers {
		v.evidence.add(edgeKey{v.name, layer.Digest}, layer.Size)
	}
	if v.configIsOf(ctx, m) {
		v.evidence.add(edgeKey{v.name, m.config.Digest}, m.config.Size)
	}
}

// unadmittedBlob returns how a blob is read that no admitted manifest is known to
// reference. Without a right to it, it returns refusal.
func (q *request) unadmittedBlob(ctx context.Context, v *view, refusal error) (*edge, error) {
	digest := q.route.digest
	if v.Gate.Revoked(digest) {
		return nil, refusal
	}
	if size, ok := v.evidence.get(edgeKey{v.name, digest}); ok && q.Access != nil && q.may(v.name, access.Sign) {
		return newEdge(v1.Descriptor{Digest: digest, Size: size}), nil
	}
	if _, ok := q.rightToUnadmitted(v.name, access.Inspect); !ok {
		return nil, refusal
	}
	size, err := v.blobSize(ctx, digest)
	if err != nil {
		return nil, err
	}
	e := newEdge(v1.Descriptor{Digest: digest, Size: size})
	e.delivered.Store(true) // the upstream has just been asked
	return e, nil
}

// blobSize returns the size of a blob that no manifest is read for: of what is
// held when this repository's upstream has it, else as that upstream says, which
// the transfer then has to keep to.
func (v *view) blobSize(ctx context.Context, digest v1.Hash) (int64, error) {
	if held, size, err := v.proxy.store.Open(ctx, digest); err == nil {
		held.Close()
		return size, v.ensureDelivered(ctx, digest)
	}
	size, err := v.registered.Upstream.Exists(ctx, v.repository, digest)
	if err != nil || size > 0 {
		return size, err
	}
	// HEAD does not tell, or nothing that can be believed.
	body, size, err := v.registered.Upstream.Blob(ctx, v.repository, digest, 0)
	if err != nil {
		return 0, err
	}
	body.Close()
	if size < 0 {
		return 0, fmt.Errorf("blob %s of %s: %w: the upstream does not say how large it is", digest, v.name, errMismatch)
	}
	return size, nil
}
