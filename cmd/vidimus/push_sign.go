package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"vidimus/proxy"
	"vidimus/proxy/upstream"
	"vidimus/signer"
	"vidimus/verifier"
)

// pushSigner signs what is pushed to one upstream with the key of one authority. It
// implements proxy.Signer.
type pushSigner struct {
	registry upstreamRegistry
	config   signer.Config // without formats, which each policy chooses
	key      verifier.Key
}

// signersOf returns the signers for one upstream, by the authority's name. Those that
// are suspended sign nothing.
func (l *loaded) signersOf(name string, client *upstream.Client, o observers, suspended map[string]string) (map[string]proxy.Signer, error) {
	all := make(map[string]proxy.Signer)
	for authority, key := range l.Signers {
		if suspended[authority] != "" || suspended[signerOf(authority)] != "" {
			continue
		}
		registry := upstreamRegistry{name, client}
		config := signer.Config{Registry: registry, Key: key.Signer, Settle: o.Settle}
		if o.Locks != nil {
			config.Locker = o.Locks
		}
		if _, err := signer.New(config); err != nil {
			return nil, fmt.Errorf("the signer of %s: %w", authority, err)
		}
		all[authority] = &pushSigner{registry, config, key.id}
	}
	return all, nil
}

// signatureReaders is how many manifests are looked at at once for signatures that
// are there already.
const signatureReaders = 4

// Sign implements proxy.Signer.
func (s *pushSigner) Sign(ctx context.Context, r proxy.SignRequest) error {
	config := s.config
	for _, format := range []signer.Format{signer.FormatTag, signer.FormatBundle} {
		if slices.Contains(r.Formats, format.String()) {
			config.Formats = append(config.Formats, format)
		}
	}
	config.Key = failingOnce(ctx, config.Key)
	signs, err := signer.New(config)
	if err != nil {
		return err
	}
	requests := make([]signer.Request, len(r.Subjects))
	g, looking := errgroup.WithContext(ctx)
	g.SetLimit(signatureReaders)
	for i, subject := range r.Subjects {
		g.Go(func() error {
			requests[i] = signer.Request{
				Subject: subject.Digest, Repository: r.Repository, Reference: subject.Reference,
				Annotations: s.claims(looking, r, subject),
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = signs.Sign(ctx, requests...)
	return err
}

// claims returns the annotations to sign for a subject: with the passing ones of a
// signature that is there, when this key made it and it claims the same otherwise.
// The signer finds that one then, and adds none. Where nobody can tell, it adds one.
func (s *pushSigner) claims(ctx context.Context, r proxy.SignRequest, subject proxy.SignSubject) map[string]string {
	repository, err := s.registry.repository(r.Repository)
	if err != nil {
		return r.Annotations
	}
	here := registryRepository{s.registry.client, repository}
	authority := verifier.Authority{Name: "signer", Keys: []verifier.Key{s.key}}
	found := r.Annotations
	verifier.Verify(ctx, direct{here, here}, verifier.Subject{Repository: r.Repository, Digest: subject.Digest},
		[]verifier.Authority{authority}, verifier.Sources(), func(all []verifier.Evidence) bool {
			for _, e := range all {
				if signed, ok := sameClaims(e, r, subject); ok {
					found = signed
					return true
				}
			}
			return false
		})
	return found
}

// sameClaims returns the annotations of a signature that claims what is to be signed,
// the passing ones left aside.
func sameClaims(e verifier.Evidence, r proxy.SignRequest, subject proxy.SignSubject) (map[string]string, bool) {
	if !e.Verified() || !e.IsSignature() || e.ClaimedName() != subject.Reference {
		return nil, false
	}
	signed := make(map[string]string)
	for name, value := range e.Annotations() {
		text, ok := value.(string)
		if !ok {
			return nil, false
		}
		signed[name] = text
	}
	lasting := func(all map[string]string) map[string]string {
		all = maps.Clone(all)
		maps.DeleteFunc(all, func(name, _ string) bool { return slices.Contains(r.Passing, name) })
		return all
	}
	return signed, maps.Equal(lasting(signed), lasting(r.Annotations))
}

// upstreamRegistry implements signer.Registry for the canonical repositories of one
// upstream, with the credentials that it is configured with.
type upstreamRegistry struct {
	name   string
	client *upstream.Client
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
	repository, err := u.repository(canonical)
	if err != nil {
		return nil, err
	}
	content, _, _, err := u.client.Manifest(ctx, repository, reference, v1.Hash{})
	fault, ok := errors.AsType[*upstream.Error](err)
	if !ok || fault.Kind() != upstream.KindForbidden && fault.Kind() != upstream.KindUnauthorized {
		return content, err
	}
	hex, isTag := strings.CutPrefix(reference, "sha256-")
	hex, _, _ = strings.Cut(hex, ".")
	subject, parseErr := v1.NewHash("sha256:" + hex)
	if !isTag || parseErr != nil {
		return nil, err
	}
	there, _, _, readErr := u.client.Manifest(ctx, repository, subject.String(), v1.Hash{})
	if readErr != nil || sha256Of(there) != subject {
		return nil, err
	}
	return nil, fmt.Errorf("%s: %w", reference, fs.ErrNotExist)
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
		err = fmt.Errorf("blob %s is larger than %d bytes", digest, limit)
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
	content, err := u.Manifest(ctx, canonical, signer.FallbackTag(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list v1.IndexManifest
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("the list of referrers of %s: %w", digest, err)
	}
	return list.Manifests, nil
}

// PutBlob implements signer.Registry.
func (u upstreamRegistry) PutBlob(ctx context.Context, canonical string, digest v1.Hash, data []byte) error {
	repository, err := u.repository(canonical)
	if err != nil {
		return err
	}
	if u.client.Exists(ctx, repository, digest) == nil {
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
	return u.client.PutManifest(ctx, repository, reference, string(mediaType), data)
}
