package proxy

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// fetchTime bounds one fetch of a manifest or a small blob, retries included.
const fetchTime = 60 * time.Second

// view is one repository of one upstream under one revision: where content
// comes from.
type view struct {
	*live
	place
	registered Registered
	name       string // the canonical repository
}

func (l *live) view(p place) *view {
	return &view{live: l, place: p, registered: l.Upstreams[p.upstream], name: p.canonical()}
}

// byDigest returns the manifest of digest, as this repository delivered it.
func (v *view) byDigest(ctx context.Context, digest v1.Hash) (*manifest, error) {
	m, err := v.held(ctx, digest)
	if err == nil {
		return m, nil
	}
	return v.fetchManifest(ctx, digest)
}

// held returns the manifest of digest without asking the upstream, provided
// that this repository's upstream delivered it.
func (v *view) held(ctx context.Context, digest v1.Hash) (*manifest, error) {
	delivered, _, err := v.proxy.index.Known(ctx, v.name, digest)
	if err != nil {
		return nil, err
	}
	if !delivered || v.isGone(ctx, digest) {
		return nil, fmt.Errorf("manifest %s in %s: %w", digest, v.name, fs.ErrNotExist)
	}
	return v.proxy.loadManifest(ctx, digest)
}

// loadManifest returns the manifest of digest from memory or the store.
func (p *Proxy) loadManifest(ctx context.Context, digest v1.Hash) (*manifest, error) {
	if m, ok := p.manifests.get(digest); ok {
		return m, nil
	}
	content, err := p.readHeld(ctx, digest, verifier.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(content, "")
	if err != nil {
		return nil, err
	}
	if m.digest != digest {
		return nil, fmt.Errorf("stored manifest %s: %w", digest, fs.ErrNotExist)
	}
	p.manifests.add(m)
	return m, nil
}

// readHeld reads a small piece of content whole from the store.
func (p *Proxy) readHeld(ctx context.Context, digest v1.Hash, most int64) ([]byte, error) {
	reader, _, err := p.store.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return readAtMost(reader, most)
}

func readAtMost(r io.Reader, most int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%w: larger than %d bytes", errMismatch, most)
	}
	return content, nil
}

// fetchManifest asks the upstream for the manifest of digest, once for all who
// ask for the same at the same time. It is asked for without a condition: who
// holds the bytes and asks all the same wants to know whether the upstream does.
func (v *view) fetchManifest(ctx context.Context, digest v1.Hash) (*manifest, error) {
	return flight(ctx, &v.fetches, v.name+"\x00"+digest.String(), fetchTime, func(ctx context.Context) (*manifest, error) {
		m, err := v.askManifest(ctx, digest.String(), nil, digest)
		if err == nil {
			v.back(ctx, digest)
		}
		return m, err
	})
}

// askManifest asks the upstream for a manifest. held, when not nil, is the one
// that reference named before: that it still does is believed of bytes that are
// held, were hashed here, and were asked about. want is the digest when reference
// is one.
func (v *view) askManifest(ctx context.Context, reference string, held *manifest, want v1.Hash) (*manifest, error) {
	var known v1.Hash
	if held != nil {
		known = held.digest
	}
	content, contentType, unchanged, err := v.registered.Upstream.Manifest(ctx, v.repository, reference, known)
	switch {
	case err != nil:
		return nil, err
	case unchanged && held != nil:
		return held, nil
	case unchanged:
		return nil, fmt.Errorf("%s of %s: %w: unchanged, which was not asked", printable(reference), v.name, errMismatch)
	}
	m, err := parseManifest(content, contentType)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", printable(reference), v.name, err)
	}
	if !isZero(want) && m.digest != want {
		return nil, fmt.Errorf("%s of %s: %w: the bytes hash to %s", want, v.name, errMismatch, m.digest)
	}
	v.proxy.manifests.add(m)
	v.keep(ctx, m.digest, m.bytes)
	return m, nil
}

// refusedBecauseAbsent reports whether a refusal to show a signature's tag can
// be read as its absence: some registries answer 403 for a tag that is not
// there. It can when the same credentials read the subject itself, now.
func (v *view) refusedBecauseAbsent(ctx context.Context, tag string) bool {
	subject, _, ok := subjectOfTag(tag)
	if !ok {
		return false
	}
	_, err := v.fetchManifest(ctx, subject)
	return err == nil
}

// Blob returns a small blob, whole and hashed.
func (v *view) Blob(ctx context.Context, _ string, desc v1.Descriptor) ([]byte, error) {
	if desc.Size < 0 || desc.Size > verifier.MaxPayloadSize {
		return nil, fmt.Errorf("%s: %w: declared with %d bytes, at most %d are read", desc.Digest, errMismatch, desc.Size, verifier.MaxPayloadSize)
	}
	if _, err := parseDigest(desc.Digest.String()); err != nil {
		return nil, err
	}
	delivered, _, err := v.proxy.index.Known(ctx, v.name, desc.Digest)
	if err == nil && delivered {
		content, err := v.proxy.readHeld(ctx, desc.Digest, verifier.MaxPayloadSize)
		if err == nil && int64(len(content)) == desc.Size {
			return content, nil
		}
	}
	return flight(ctx, &v.blobs, fmt.Sprintf("%s\x00%s\x00%d", v.name, desc.Digest.Hex, desc.Size), fetchTime, func(ctx context.Context) ([]byte, error) {
		return v.fetchSmall(ctx, desc)
	})
}

func (v *view) fetchSmall(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	body, _, err := v.registered.Upstream.Blob(ctx, v.repository, desc.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := readAtMost(body, desc.Size)
	if err != nil {
		return nil, fmt.Errorf("blob %s of %s: %w", desc.Digest, v.name, err)
	}
	if got := digestOf(content); int64(len(content)) != desc.Size || got != desc.Digest {
		return nil, fmt.Errorf("blob %s of %s: %w: %d bytes that hash to %s", desc.Digest, v.name, errMismatch, len(content), got)
	}
	v.keep(ctx, desc.Digest, content)
	return content, nil
}

// keep stores content that this repository's upstream delivered, while its
// answer goes on. The store is a convenience: what cannot be kept is served all
// the same.
func (v *view) keep(ctx context.Context, digest v1.Hash, content []byte) {
	v.delivered(ctx, digest)
	v.proxy.aside(func() {
		if err := v.proxy.store.Put(context.WithoutCancel(ctx), digest, content); err != nil {
			v.proxy.logger.Warn("cannot store content", "repository", v.name, "digest", digest.String(), "err", err)
		}
	})
}
