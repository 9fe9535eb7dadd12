package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"vidimus/proxy"
	"vidimus/proxy/upstream"
	"vidimus/signer"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
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
		registry := upstreamRegistry{name: name, client: client, seen: new(tagVersions)}
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
	// What tags were is remembered for this turn alone: another's reading must not
	// vouch for what this one adds to.
	config.Registry = upstreamRegistry{name: s.registry.name, client: s.registry.client, seen: new(tagVersions)}
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
	verifier.Verify(ctx, direct{image: here, evidence: here}, verifier.Subject{Repository: r.Repository, Digest: subject.Digest},
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
		if name == envelope.DockerReference {
			continue // the name, in a bundle, which was compared
		}
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
