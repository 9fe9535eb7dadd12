package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/proxy/upstream"
	"vidimus/signer"
)

// upstreamRegistry implements signer.Registry for the canonical repositories of one
// upstream, with the credentials that it is configured with.
type upstreamRegistry struct {
	name   string
	client *upstream.Client
	seen   *tagVersions
}

func (u upstreamRegistry) repository(canonical string) (string, error) {
	repository, ok := strings.CutPrefix(canonical, u.name+"/")
	if !ok {
		return "", fmt.Errorf("%s is not a repository of %s", canonical, u.name)
	}
	return repository, nil
}

// Manifest implements signer.Registry. Some registries answer 403 for a tag that is
// not there: it is absent when the same credentials read the manifest that it names.
func (u upstreamRegistry) Manifest(ctx context.Context, canonical, reference string) ([]byte, error) {
	content, version, err := u.read(ctx, canonical, reference)
	u.seen.note(canonical+":"+reference, version)
	return content, err
}

// read returns a manifest, and of a tag what the upstream calls it, where it says so.
func (u upstreamRegistry) read(ctx context.Context, canonical, reference string) (content []byte, version string, err error) {
	repository, err := u.repository(canonical)
	if err != nil {
		return nil, "", err
	}
	if strings.Contains(reference, ":") {
		content, _, _, err = u.client.Manifest(ctx, repository, reference, v1.Hash{})
		return content, "", err
	}
	content, _, version, err = u.client.ReadTag(ctx, repository, reference)
	fault, ok := errors.AsType[*upstream.Error](err)
	if !ok || fault.Kind() != upstream.KindForbidden && fault.Kind() != upstream.KindUnauthorized {
		return content, version, err
	}
	hex, isTag := strings.CutPrefix(reference, "sha256-")
	hex, _, _ = strings.Cut(hex, ".")
	subject, parseErr := v1.NewHash("sha256:" + hex)
	if !isTag || parseErr != nil {
		return nil, "", err
	}
	there, _, _, readErr := u.client.Manifest(ctx, repository, subject.String(), v1.Hash{})
	if readErr != nil || sha256Of(there) != subject {
		return nil, "", err
	}
	return nil, "", fmt.Errorf("%s: %w", reference, fs.ErrNotExist)
}

// Blob implements signer.Registry.
func (u upstreamRegistry) Blob(ctx context.Context, canonical string, digest v1.Hash, limit int64) ([]byte, error) {
	repository, err := u.repository(canonical)
	if err != nil {
		return nil, err
	}
	body, _, err := u.client.Blob(ctx, repository, digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("blob %s: %w: more than %d bytes", digest, signer.ErrTooLarge, limit)
	}
	return content, err
}

// Referrers implements signer.Registry.
func (u upstreamRegistry) Referrers(ctx context.Context, canonical string, digest v1.Hash) ([]v1.Descriptor, error) {
	repository, err := u.repository(canonical)
	if err != nil {
		return nil, err
	}
	listed, err := u.client.Referrers(ctx, repository, digest, "")
	if !errors.Is(err, fs.ErrNotExist) {
		if len(listed) > 0 {
			return listed, nil // cut short, at worst
		}
		return nil, err
	}
	tag := signer.FallbackTag(digest)
	content, _, err := u.read(ctx, canonical, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list v1.IndexManifest
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, &signer.HeldError{Tag: tag, Err: fmt.Errorf("a list of referrers: %w", err)}
	}
	return list.Manifests, nil
}

// PutBlob implements signer.Registry.
func (u upstreamRegistry) PutBlob(ctx context.Context, canonical string, digest v1.Hash, data []byte) error {
	repository, err := u.repository(canonical)
	if err != nil {
		return err
	}
	if _, err := u.client.Exists(ctx, repository, digest); err == nil {
		return nil
	}
	location, _, err := u.client.StartUpload(ctx, repository, v1.Hash{}, "")
	if err != nil {
		return err
	}
	location, _, err = u.client.AppendUpload(ctx, repository, location, 0, int64(len(data)), false, bytes.NewReader(data))
	if err != nil {
		return err
	}
	return u.client.CommitUpload(ctx, repository, location, digest)
}

// PutManifest implements signer.Registry.
func (u upstreamRegistry) PutManifest(ctx context.Context, canonical, reference string, mediaType types.MediaType, data []byte) (listed bool, err error) {
	repository, err := u.repository(canonical)
	if err != nil {
		return false, err
	}
	name := canonical + ":" + reference
	version := u.seen.required(name)
	listed, err = u.client.PutManifestOver(ctx, repository, reference, string(mediaType), data, version)
	if fault, ok := errors.AsType[*upstream.Error](err); ok && version != "" && fault.Status() == http.StatusPreconditionFailed {
		u.seen.refuse(name, version)
		return false, signer.ErrChanged
	}
	return listed, err
}

// tagVersions remembers what an upstream called what tags named when they were last
// read. A write asks for the tag to be still the same.
type tagVersions struct {
	mu      sync.Mutex
	read    map[string]string // by repository and tag; empty: not known
	refused map[string]string // what a write asked for in vain
}

func (v *tagVersions) note(name, version string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read == nil {
		v.read, v.refused = make(map[string]string), make(map[string]string)
	}
	v.read[name] = version
}

// required is what a write asks for; empty for nothing. What was refused is not asked for
// again when it was read once more: then the upstream means something else by it, and
// would refuse for ever.
func (v *tagVersions) required(name string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read[name] == v.refused[name] {
		return ""
	}
	return v.read[name]
}

func (v *tagVersions) refuse(name, version string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused[name] = version
}
