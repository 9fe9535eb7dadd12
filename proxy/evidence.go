package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// subjectOf returns the subject of a manifest that is proven to be evidence or
// another referrer, the zero digest when it is not proven. named is the subject
// that its tag names, or zero. An error means that nobody could tell.
//
// A signature artifact proves itself: each of its layers is read whole, hashed
// and parsed, and names the subject. Another referrer, whose layers mean
// nothing to us, has a subject field and no part that a client would run.
func (v *view) subjectOf(ctx context.Context, m *manifest, named v1.Hash) (v1.Hash, error) {
	subject := named
	if m.subject != nil {
		if !isZero(named) && m.subject.Digest != named {
			return v1.Hash{}, nil
		}
		subject = m.subject.Digest
	}
	if subject == m.digest {
		return v1.Hash{}, nil
	}
	if m.isEvidenceShaped() {
		return v.provenSubject(ctx, m, subject)
	}
	if m.isPlainReferrer() {
		return subject, nil
	}
	return v1.Hash{}, nil
}

// provenSubject is proveSubject, remembered where it found a proof: what content
// by digest says does not change.
func (v *view) provenSubject(ctx context.Context, m *manifest, subject v1.Hash) (v1.Hash, error) {
	key := proofKey{repository: v.name, manifest: m.digest, expected: subject}
	if proven, ok := v.proofs.get(key); ok {
		return proven, nil
	}
	proven, err := v.proveSubject(ctx, m, subject)
	if err == nil && !isZero(proven) {
		v.proofs.add(key, proven)
	}
	return proven, err
}

// proveSubject reads every layer of a signature artifact, the same content once. With
// no subject given, the one digest that the first layer names is it.
func (v *view) proveSubject(ctx context.Context, m *manifest, subject v1.Hash) (v1.Hash, error) {
	layers := m.differentLayers()
	if len(layers) > verifier.MaxSignatures {
		return v1.Hash{}, nil
	}
	for _, layer := range layers {
		named, err := v.namedBy(ctx, layer)
		if err != nil {
			return v1.Hash{}, err
		}
		if isZero(subject) && len(named) == 1 {
			if subject, err = parseDigest(named[0]); err != nil {
				return v1.Hash{}, nil
			}
		}
		if isZero(subject) || !slices.Contains(named, subject.String()) {
			return v1.Hash{}, nil
		}
	}
	proven, err := v.configIsPlain(ctx, m.config)
	if err != nil || !proven {
		return v1.Hash{}, err
	}
	return subject, nil
}

// namedBy returns the digests that one layer names, none when it is not what
// its media type says.
func (v *view) namedBy(ctx context.Context, layer v1.Descriptor) ([]string, error) {
	content, err := v.Blob(ctx, v.repository, layer)
	if isUnfit(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	named, err := envelope.Subjects(string(layer.MediaType), content)
	if err != nil || readsAsArchive(content) {
		return nil, nil
	}
	return named, nil
}

// configIsPlain reports whether the config of a signature artifact is a small
// JSON object that says nothing of how to run an image: where cosign writes an
// image's config, its "config" is empty.
func (v *view) configIsPlain(ctx context.Context, config v1.Descriptor) (bool, error) {
	content, err := v.Blob(ctx, v.repository, config)
	if isUnfit(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if envelope.CheckJSON(content, maxManifestDepth) != nil || readsAsArchive(content) {
		return false, nil
	}
	var said struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	return json.Unmarshal(content, &said) == nil && len(said.Config) == 0, nil
}

// configIsOf reports whether the config of a signature artifact tells of its layers and
// of nothing else, or of nothing at all, as those do that write signatures. Another one may
// be any document, which whoever made the artifact only put there.
func (v *view) configIsOf(ctx context.Context, m *manifest) bool {
	content, err := v.Blob(ctx, v.repository, m.config)
	var members map[string]json.RawMessage
	if err != nil || envelope.CheckJSON(content, maxManifestDepth) != nil || json.Unmarshal(content, &members) != nil {
		return false
	}
	if len(members) == 0 {
		return true
	}
	var rootfs struct {
		DiffIDs []string `json:"diff_ids"`
	}
	if json.Unmarshal(members["rootfs"], &rootfs) != nil || len(rootfs.DiffIDs) == 0 {
		return false
	}
	return !slices.ContainsFunc(rootfs.DiffIDs, func(id string) bool {
		return !slices.ContainsFunc(m.layers, func(layer v1.Descriptor) bool { return layer.Digest.String() == id })
	})
}

// isUnfit reports whether err says that the content is not there, too large or
// not what its digest says: reasons to call it no evidence, rather than reasons
// to try again.
func isUnfit(err error) bool {
	if err == nil {
		return false
	}
	if f, ok := errors.AsType[Fault](err); ok && f.Kind() == KindMismatch {
		return true
	}
	_, invalid := errors.AsType[*Error](err) // a digest that is not sha256
	return invalid || errors.Is(err, errMismatch) || errors.Is(err, fs.ErrNotExist)
}
