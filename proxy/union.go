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
// it stayed, for there may be others.
//
// The client is told the digest of what the tag names, which is then not what it
// sent. Those that write signatures (cosign, go-containerregistry) do not compare;
// one that does learns that it was not alone, and that nothing is lost.

// union is what becomes of a tag: what is put for pushed where held is. missing
// tells that held has not all of pushed. config, when not nil, must be there first.
type union func(ctx context.Context, pushed, held *manifest) (put *manifest, config []byte, missing bool, err error)

// putUnion adds what is pushed to what its tag holds, until it is seen to have
// stayed.
func (p *pushed) putUnion(ctx context.Context, join union) (*manifest, error) {
	for range maxMerges {
		put, err := p.putUnionOnce(ctx, join)
		if err != nil {
			return nil, err
		}
		if err := sleep(ctx, p.proxy.settle); err != nil {
			return nil, err
		}
		stayed, now, err := p.stays(ctx, join)
		if err != nil {
			return nil, err
		}
		if stayed {
			p.changed(ctx)
			if now != nil {
				put = now
			}
			return put, nil
		}
	}
	return nil, unavailable("others keep overwriting the tag "+p.tag, retryAfterDefault, nil)
}

// putUnionOnce reads, joins, writes and reads back in turn with others here.
func (p *pushed) putUnionOnce(ctx context.Context, join union) (*manifest, error) {
	unlock, err := p.proxy.locks.Lock(ctx, tagLock(p.name, p.tag))
	if err != nil {
		return nil, err
	}
	defer unlock()
	var putErr error
	var refused string // a version that the upstream would not take for the tag's
	for range maxMerges {
		held, version, err := p.readVersion(ctx, p.tag)
		if err != nil {
			return nil, errors.Join(putErr, err)
		}
		put, config, missing, err := join(ctx, p.manifest, held)
		if err != nil || !missing {
			return held, err
		}
		if putErr != nil {
			return nil, putErr // it failed, and did not happen
		}
		if config != nil {
			if err := p.putBlob(ctx, config); err != nil {
				return nil, err
			}
		}
		var listed bool
		if version == refused {
			version = "" // it means something else by it, and would refuse for ever
		}
		if listed, putErr = p.registered.Push.PutManifestOver(ctx, p.repository, p.tag, string(put.mediaType), put.bytes, version); putErr != nil {
			putErr = fmt.Errorf("put tag %s: %w", p.tag, putErr)
		}
		p.moved(ctx, p.tag)
		if version != "" && preconditionFailed(putErr) {
			refused, putErr = version, nil // another wrote it since
			continue
		}
		if putErr == nil && put.subject != nil && !listed {
			if err := p.listAs(ctx, put); err != nil {
				return nil, err
			}
		}
	}
	return nil, unavailable("others keep overwriting the tag "+p.tag, retryAfterDefault, putErr)
}

// stays reads once more whether what was pushed is still there.
func (p *pushed) stays(ctx context.Context, join union) (bool, *manifest, error) {
	held, err := p.readTag(ctx, p.tag)
	if err != nil || held == nil {
		return false, nil, err
	}
	_, _, missing, err := join(ctx, p.manifest, held)
	return !missing, held, err
}

// readTag returns what a tag names at the upstream now, nil when it names nothing.
func (v *view) readTag(ctx context.Context, tag string) (*manifest, error) {
	m, _, err := v.readVersion(ctx, tag)
	return m, err
}

// readVersion is readTag with what the upstream calls what is there, or nothing.
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
	m, err = parseManifest(content, contentType)
	return m, version, err
}

func preconditionFailed(err error) bool {
	refusal, ok := errors.AsType[Refusal](err)
	return ok && refusal.Status() == http.StatusPreconditionFailed
}

// unionOfSignatures joins signature artifacts.
func (p *pushed) unionOfSignatures(_ context.Context, pushed, held *manifest) (*manifest, []byte, bool, error) {
	if held == nil {
		return pushed, nil, true, nil
	}
	if pushed.digest == held.digest {
		return held, nil, false, nil
	}
	if p.proxy.merge == nil {
		return nil, nil, false, conflict("the tag " + p.tag + " holds other signatures, which would be lost")
	}
	content, config, err := p.proxy.merge(pushed.bytes, held.bytes)
	if err != nil {
		e := conflict("what the tag " + p.tag + " holds cannot be joined with what is pushed, and is not replaced: " + printableText(err.Error()))
		e.Err = err
		return nil, nil, false, e
	}
	joined, err := parseManifest(content, "")
	if err != nil {
		return nil, nil, false, fmt.Errorf("join signatures: %w", err)
	}
	return joined, config, joined.digest != held.digest, nil
}

// unionOfListings joins lists of referrers: those of held, and those of pushed that
// held has not. What held says of itself and of a referrer stays, understood or not.
func unionOfListings(_ context.Context, pushed, held *manifest) (*manifest, []byte, bool, error) {
	if held == nil {
		return pushed, nil, true, nil
	}
	if !held.isListing() {
		return nil, nil, false, conflict("the tag that would list the referrers holds something else")
	}
	var fields map[string]json.RawMessage
	var entries []json.RawMessage
	if err := json.Unmarshal(held.bytes, &fields); err != nil {
		return nil, nil, false, err
	}
	if err := json.Unmarshal(fields["manifests"], &entries); err != nil {
		return nil, nil, false, err
	}
	for _, desc := range pushed.manifests {
		if _, ok := held.reaches(desc.Digest); ok {
			continue
		}
		entry, err := json.Marshal(desc)
		if err != nil {
			return nil, nil, false, err
		}
		entries = append(entries, entry)
	}
	switch {
	case len(entries) == len(held.manifests):
		return held, nil, false, nil
	case len(entries) > verifier.MaxChildren:
		return nil, nil, false, conflict(fmt.Sprintf("there are more than %d referrers", verifier.MaxChildren))
	}
	var err error
	if fields["manifests"], err = json.Marshal(entries); err != nil {
		return nil, nil, false, err
	}
	content, err := json.Marshal(fields)
	if err != nil {
		return nil, nil, false, err
	}
	joined, err := parseManifest(content, "")
	return joined, nil, true, err
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

// listReferrer adds the manifest to the fallback tag of its subject, for an upstream
// that keeps no list by itself.
func (p *pushed) listReferrer(ctx context.Context) error { return p.listAs(ctx, p.manifest) }

func (p *pushed) listAs(ctx context.Context, m *manifest) error {
	if _, err := parseDigest(m.subject.Digest.String()); err != nil {
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
	subject := m.subject.Digest
	listing := &pushed{view: p.view, manifest: list, rule: p.rule, tag: fallbackTag(subject), named: subject, kind: pushedListing, about: subject, asker: p.asker, began: p.began, id: p.id}
	if _, err := listing.putUnion(ctx, unionOfListings); err != nil {
		return fmt.Errorf("list it among the referrers of %s: %w", subject, err)
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
