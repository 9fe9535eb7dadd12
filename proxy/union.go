package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier"
)

// The signatures of a manifest are the layers of one image under one tag, and its
// referrers, where there is no API for them, the entries of one index. Who adds to
// such a tag reads it, adds, and writes it: of two at a time one is lost. Through
// here none is. What is pushed is joined with what the tag holds, so that it only
// ever grows, in turns with whoever else writes it here; and then it is seen whether
// it stayed, for there may be others. What is deleted is taken off a list in the same way.
//
// The client is told the digest of what the tag names, which is then not what it
// sent. Those that write signatures (cosign, go-containerregistry) do not compare;
// one that does learns that it was not alone, and that nothing is lost.

// change is what becomes of a tag: what is put where held is, which is nil where nothing
// is. needed tells that held is not as it is to be. config, when not nil, must be there
// first.
type change func(ctx context.Context, held *manifest) (put *manifest, config []byte, needed bool, err error)

// putUnion adds what is pushed to what its tag holds.
func (p *pushed) putUnion(ctx context.Context, join change) (*manifest, error) {
	put, err := p.changeTag(ctx, p.tag, join)
	if err != nil {
		return nil, err
	}
	p.changed(ctx)
	return put, nil
}

// changeTag changes what a tag holds, until it is seen to have stayed so, and returns
// what it holds then; nil when that is nothing.
func (v *view) changeTag(ctx context.Context, tag string, c change) (*manifest, error) {
	for range maxMerges {
		held, err := v.changeTagOnce(ctx, tag, c)
		if err != nil || held == nil {
			return nil, err
		}
		if err := sleep(ctx, v.proxy.settle); err != nil {
			return nil, err
		}
		if held, _, err = v.heldBy(ctx, tag); err != nil {
			return nil, err
		}
		if _, _, needed, err := c(ctx, held); err != nil || !needed {
			return held, err
		}
	}
	return nil, overwritten(tag, nil)
}

// changeTagOnce reads, changes, writes and reads back in turn with others here.
func (v *view) changeTagOnce(ctx context.Context, tag string, c change) (*manifest, error) {
	unlock, err := v.proxy.locks.Lock(ctx, tagLock(v.name, tag))
	if err != nil {
		return nil, err
	}
	defer unlock()
	var putErr error
	var refused string // a version that the upstream would not take for the tag's
	for range maxMerges {
		held, version, err := v.heldBy(ctx, tag)
		if err != nil {
			return nil, errors.Join(putErr, err)
		}
		put, config, needed, err := c(ctx, held)
		if err != nil || !needed {
			return held, err
		}
		if putErr != nil {
			return nil, putErr // it failed, and did not happen
		}
		if config != nil {
			if err := v.putBlob(ctx, config); err != nil {
				return nil, err
			}
		}
		var listed bool
		if version == refused {
			version = "" // it means something else by it, and would refuse for ever
		}
		if listed, putErr = v.registered.Push.PutManifestOver(ctx, v.repository, tag, string(put.mediaType), put.bytes, version); putErr != nil {
			putErr = fmt.Errorf("put tag %s: %w", tag, putErr)
		}
		v.moved(ctx, tag)
		if version != "" && preconditionFailed(putErr) {
			refused, putErr = version, nil // another wrote it since
			continue
		}
		if putErr == nil && put.subject != nil && !listed {
			if err := v.list(ctx, put); err != nil {
				return nil, err
			}
		}
	}
	return nil, overwritten(tag, putErr)
}

func overwritten(tag string, err error) *Error {
	return unavailable("others keep overwriting the tag "+tag+": try again", retryAfterDefault, err)
}

// heldBy is readVersion for a tag that is about to be written. That what it names is no
// manifest is for whoever writes to be told, and not an upstream's fault.
func (v *view) heldBy(ctx context.Context, tag string) (*manifest, string, error) {
	m, version, err := v.readVersion(ctx, tag)
	if _, stray := errors.AsType[*strayError](err); stray {
		return nil, "", inTheWay(tag, "what is no manifest that could be added to ("+whyUnfit(err)+")", err)
	}
	return m, version, err
}

// inTheWay is the answer to a push that would have to replace what a tag holds: what that
// is, and what to do.
func inTheWay(tag, what string, err error) *Error {
	e := conflict("the tag " + tag + " holds " + what + ", and is not replaced: remove it at the upstream, then push again")
	e.Err = err
	return e
}

// readTag returns what a tag names at the upstream now, nil when it names nothing.
func (v *view) readTag(ctx context.Context, tag string) (*manifest, error) {
	m, _, err := v.readVersion(ctx, tag)
	return m, err
}

// readVersion is readTag with what the upstream calls what is there, or nothing. Its
// error is a *strayError when the tag was read, and names no manifest that is understood.
func (v *view) readVersion(ctx context.Context, tag string) (m *manifest, version string, err error) {
	content, contentType, version, err := v.registered.Push.ReadTag(ctx, v.repository, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, version, nil
	}
	if f, ok := errors.AsType[Fault](err); ok && (f.Kind() == KindUnauthorized || f.Kind() == KindForbidden) && v.refusedBecauseAbsent(ctx, tag) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	if m, err = parseManifest(content, contentType); err != nil {
		return nil, "", &strayError{err}
	}
	return m, version, nil
}

// strayError says that what a tag names was read, and is no manifest that is understood.
type strayError struct{ err error }

func (e *strayError) Error() string { return e.err.Error() }
func (e *strayError) Unwrap() error { return e.err }

func preconditionFailed(err error) bool {
	refusal, ok := errors.AsType[Refusal](err)
	return ok && refusal.Status() == http.StatusPreconditionFailed
}

// unionOfSignatures joins signature artifacts.
func (p *pushed) unionOfSignatures(_ context.Context, held *manifest) (*manifest, []byte, bool, error) {
	if held == nil {
		return p.manifest, nil, true, nil
	}
	if p.digest == held.digest {
		return held, nil, false, nil
	}
	if p.proxy.merge == nil {
		return nil, nil, false, conflict("the tag " + p.tag + " holds other signatures, which would be lost")
	}
	content, config, err := p.proxy.merge(p.bytes, held.bytes)
	if err != nil {
		return nil, nil, false, inTheWay(p.tag, "what cannot be joined with what is pushed ("+printableText(err.Error())+")", err)
	}
	joined, err := parseManifest(content, "")
	if err != nil {
		return nil, nil, false, fmt.Errorf("join signatures: %w", err)
	}
	return joined, config, joined.digest != held.digest, nil
}

// unionOfListings adds to a list of referrers those of pushed that it has not. What it
// says of itself and of a referrer stays, understood or not.
func unionOfListings(tag string, pushed *manifest) change {
	return func(_ context.Context, held *manifest) (*manifest, []byte, bool, error) {
		if held == nil {
			return pushed, nil, true, nil
		}
		if !held.listsReferrersOf(tag) {
			return nil, nil, false, inTheWay(tag, "something else than the list of referrers that belongs there", nil)
		}
		var added []v1.Descriptor
		for _, desc := range pushed.manifests {
			if _, ok := held.reaches(desc.Digest); !ok {
				added = append(added, desc)
			}
		}
		if len(added) == 0 {
			return held, nil, false, nil
		}
		joined, err := held.relisted(func(entries []json.RawMessage) ([]json.RawMessage, error) {
			if len(entries)+len(added) > verifier.MaxChildren {
				return nil, conflict(fmt.Sprintf("the list of referrers under the tag %s would have more than %d: delete some that are not needed, then push again", tag, verifier.MaxChildren))
			}
			for _, desc := range added {
				entry, err := json.Marshal(desc)
				if err != nil {
					return nil, err
				}
				entries = append(entries, entry)
			}
			return entries, nil
		})
		return joined, nil, true, err
	}
}

// relisted returns an index with other entries, and all else that it says as it was.
func (m *manifest) relisted(edit func(entries []json.RawMessage) ([]json.RawMessage, error)) (*manifest, error) {
	var fields map[string]json.RawMessage
	var entries []json.RawMessage
	if err := json.Unmarshal(m.bytes, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["manifests"], &entries); err != nil {
		return nil, err
	}
	entries, err := edit(entries)
	if err != nil {
		return nil, err
	}
	if fields["manifests"], err = json.Marshal(entries); err != nil {
		return nil, err
	}
	content, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return parseManifest(content, "")
}

// isListing reports whether an index can be a list of referrers: it refers to nothing
// itself, and nothing in it is made to be run, or brings along what passes no gate of
// its own.
func (m *manifest) isListing() bool {
	for _, desc := range m.manifests {
		if desc.Platform != nil || desc.Data != nil || len(desc.URLs) > 0 {
			return false
		}
	}
	return m.index && m.subject == nil
}

// listsReferrersOf reports whether what a fallback tag holds is the list that belongs
// there, and can be written anew. An index for several platforms is none, least of all
// the very one that the tag is made of, which a copy by digest is tagged so: it would lose
// its name. Other clients keep a referrer's platform where they know of one, and always
// its type (oras copies attestations of BuildKit's so).
func (m *manifest) listsReferrersOf(tag string) bool {
	for _, desc := range m.manifests {
		if desc.Platform != nil && desc.ArtifactType == "" {
			return false
		}
	}
	return m.index && m.subject == nil && fallbackTag(m.digest) != tag
}

// list adds a manifest to the list of its subject's referrers under the fallback tag, for
// an upstream that keeps no list by itself.
func (v *view) list(ctx context.Context, m *manifest) error {
	subject := m.subject.Digest
	if _, err := parseDigest(subject.String()); err != nil {
		return err
	}
	content, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{m.asReferrer()}})
	if err != nil {
		return err
	}
	list, err := parseManifest(content, "")
	if err != nil {
		return err
	}
	tag := fallbackTag(subject)
	if _, err := v.changeTag(ctx, tag, unionOfListings(tag, list)); err != nil {
		return fmt.Errorf("list it among the referrers of %s: %w", subject, err)
	}
	return nil
}

// unlist takes a manifest off the list of its subject's referrers, where that is kept
// under the fallback tag, with the same care. What no list can be read in lists nothing.
func (v *view) unlist(ctx context.Context, m *manifest) error {
	if m.subject == nil {
		return nil
	}
	subject := m.subject.Digest
	if _, err := parseDigest(subject.String()); err != nil {
		return nil // then nothing lists it
	}
	tag := fallbackTag(subject)
	_, err := v.changeTag(ctx, tag, func(_ context.Context, held *manifest) (*manifest, []byte, bool, error) {
		if held == nil || !held.listsReferrersOf(tag) {
			return held, nil, false, nil
		}
		if _, listed := held.reaches(m.digest); !listed {
			return held, nil, false, nil
		}
		rest, err := held.relisted(func(entries []json.RawMessage) ([]json.RawMessage, error) {
			rest := make([]json.RawMessage, 0, len(entries)) // which is a list, though empty
			for i, entry := range entries {
				if held.manifests[i].Digest != m.digest {
					rest = append(rest, entry)
				}
			}
			return rest, nil
		})
		return rest, nil, true, err
	})
	if _, stray := errors.AsType[*strayError](err); stray {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take it off the list of what refers to %s: %w", subject, err)
	}
	return nil
}

// asReferrer is the descriptor under which a list of referrers has the manifest.
func (m *manifest) asReferrer() v1.Descriptor {
	var said struct {
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(m.bytes, &said) // else it says nothing of itself
	if said.ArtifactType == "" {
		said.ArtifactType = string(m.config.MediaType)
	}
	return v1.Descriptor{
		MediaType: m.mediaType, Digest: m.digest, Size: int64(len(m.bytes)),
		ArtifactType: said.ArtifactType, Annotations: said.Annotations,
	}
}

// putBlob stores a small blob.
func (v *view) putBlob(ctx context.Context, content []byte) error {
	digest := digestOf(content)
	if _, err := v.registered.Upstream.Exists(ctx, v.repository, digest); err == nil {
		return nil
	}
	location, _, err := v.registered.Push.StartUpload(ctx, v.repository, v1.Hash{}, "")
	if err != nil {
		return err
	}
	location, _, err = v.registered.Push.AppendUpload(ctx, v.repository, location, 0, int64(len(content)), false, bytes.NewReader(content))
	if err != nil {
		return err
	}
	return v.registered.Push.CommitUpload(ctx, v.repository, location, digest)
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
