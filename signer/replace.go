package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"vidimus/verifier/envelope"
)

// Deleter is a Registry that deletes manifests, which a Request with Replace needs.
type Deleter interface {
	Registry

	// DeleteManifest deletes the manifest of digest, and whatever tags name it. It is no
	// error that there is none. An error that matches ErrNoDelete says that the
	// registry deletes nothing for anybody.
	DeleteManifest(ctx context.Context, repository string, digest v1.Hash) error
}

// ErrNoDelete says that a registry deletes nothing.
var ErrNoDelete = errors.New("the registry refuses to delete")

const (
	// maxReplaced bounds how many layers, or referrers, are looked at to find those of
	// a type.
	maxReplaced = maxManifests

	// maxReturns bounds how often what another writer puts back is removed again.
	maxReturns = 3

	// maxUnmoved bounds how often it is tried to remove something from what stays as it
	// is to the byte. It is more than maxFailures, which tells more.
	maxUnmoved = 5
)

// inTotoArtifact is the artifact type of a referrer that holds envelopes as the tag of
// attestations does. Source: cosign pkg/oci/remote/write.go, WriteAttestationsReferrer.
const inTotoArtifact = "application/vnd.in-toto+json"

// earlier are the attestations of one predicate type about one subject that were there
// before a new one was attached: what the new one is to replace. What comes later, from
// others, is theirs.
type earlier struct {
	layers    []string  // digests, in the image under the tag of attestations
	referrers []v1.Hash // listed by the registry, or under the fallback tag
	listed    []string  // those of them under the fallback tag
}

// earlierOf finds what each request is to replace, before anything is written.
func (s *Signer) earlierOf(ctx context.Context, requests []Request) ([]earlier, error) {
	all := make([]earlier, len(requests))
	for i, r := range requests {
		if !r.Replace {
			continue
		}
		var err error
		if all[i], err = s.earlierThan(ctx, r); err != nil {
			return nil, fmt.Errorf("what is attested of %s@%s: %w", r.Repository, r.Subject, err)
		}
	}
	return all, nil
}

// replaceAll takes away what each request replaces, and says so in its results.
func (s *Signer) replaceAll(ctx context.Context, before []earlier, pending []*pendingResult, results []Result) error {
	formats := len(s.formats)
	for i := range before {
		r := results[i*formats].Request
		if !r.Replace {
			continue
		}
		var ours []string
		for format := range formats { // pending is sorted by format
			ours = append(ours, pending[format*len(before)+i].ours())
		}
		gone, err := s.replace(ctx, r, before[i], ours)
		if err != nil {
			return fmt.Errorf("%s@%s is attested anew, and what is replaced by that is there still: %w", r.Repository, r.Subject, err)
		}
		for format := range formats {
			results[i*formats+format].Replaced = gone
		}
	}
	return nil
}

// earlierThan finds what a request is to replace.
func (s *Signer) earlierThan(ctx context.Context, r Request) (earlier, error) {
	if _, ok := s.registry.(Deleter); !ok {
		return earlier{}, errors.New("signer: this registry's client deletes nothing, which it takes to replace an attestation")
	}
	var found earlier
	var err error
	if found.layers, err = s.layersLike(ctx, r); err != nil {
		return found, err
	}
	listed, err := s.registry.Referrers(ctx, r.Repository, r.Subject)
	if err != nil {
		return found, fmt.Errorf("read what refers to it: %w", err)
	}
	tag := FallbackTag(r.Subject)
	list, err := s.registry.Manifest(ctx, r.Repository, tag)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found, fmt.Errorf("read %s: %w", tag, err)
	}
	fallback := ReferrersIndex(list)
	var seen []v1.Hash
	for _, desc := range slices.Concat(listed, fallback) {
		if slices.Contains(seen, desc.Digest) {
			continue
		}
		if seen = append(seen, desc.Digest); len(seen) > maxReplaced {
			return found, fmt.Errorf("more than %d manifests refer to it: remove some by hand", maxReplaced)
		}
		like, err := s.referrerLike(ctx, r, desc)
		if err != nil {
			return found, fmt.Errorf("read referrer %s: %w", desc.Digest, err)
		}
		if like {
			found.referrers = append(found.referrers, desc.Digest)
		}
	}
	for _, desc := range fallback {
		if slices.Contains(found.referrers, desc.Digest) {
			found.listed = append(found.listed, desc.Digest.String())
		}
	}
	return found, nil
}

// layersLike returns the layers under the tag of attestations that a request replaces.
func (s *Signer) layersLike(ctx context.Context, r Request) ([]string, error) {
	tag := AttestationTag(r.Subject)
	raw, err := s.registry.Manifest(ctx, r.Repository, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", tag, err)
	}
	img, err := parseSignatureImage(raw)
	if err != nil {
		return nil, &HeldError{tag, fmt.Errorf("an image of attestations, of which one could be replaced: %w", err)}
	}
	return s.attestationsLike(ctx, r, img)
}

// attestationsLike returns the digests of an image's layers that are attestations of
// the type of r about its subject. It is the statements that tell, and no annotation.
func (s *Signer) attestationsLike(ctx context.Context, r Request, img signatureImage) ([]string, error) {
	var envelopes []string
	for _, layer := range img.layers {
		if layer.mediaType == envelope.MediaTypeDSSE && !slices.Contains(envelopes, layer.digest) {
			envelopes = append(envelopes, layer.digest)
		}
	}
	if len(envelopes) > maxReplaced {
		return nil, fmt.Errorf("more than %d attestations are there: remove some by hand", maxReplaced)
	}
	like := make([]bool, len(envelopes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, text := range envelopes {
		digest, err := v1.NewHash(text)
		if err != nil {
			continue // nobody reads it
		}
		g.Go(func() error {
			data, err := s.registry.Blob(ctx, r.Repository, digest, maxPayloadSize)
			if isNone(err) {
				return nil // nobody can tell what it says
			}
			if err != nil {
				return fmt.Errorf("read attestation %s: %w", digest, err)
			}
			parsed, err := envelope.ParseEnvelope(data)
			like[i] = err == nil && digestOf(data) == digest && isLike(r, parsed.Statement)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []string
	for i, digest := range envelopes {
		if like[i] {
			found = append(found, digest)
		}
	}
	return found, nil
}

// isLike reports whether a statement is one that r replaces.
func isLike(r Request, statement []byte) bool {
	parsed, err := envelope.ParseStatement(statement)
	return err == nil && parsed.PredicateType == r.PredicateType && slices.Contains(parsed.Digests(), r.Subject.String())
}

// referrerLike reports whether a referrer is an attestation that r replaces, and holds
// nothing else.
func (s *Signer) referrerLike(ctx context.Context, r Request, desc v1.Descriptor) (bool, error) {
	// Fallback indexes of old say "empty" of every referrer.
	switch kind := desc.ArtifactType; {
	case kind == "", kind == string(emptyConfig), kind == inTotoArtifact, envelope.IsBundle(kind):
	default:
		return false, nil
	}
	manifest, err := s.registry.Manifest(ctx, r.Repository, desc.Digest.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var m referrer
	if digestOf(manifest) != desc.Digest || json.Unmarshal(manifest, &m) != nil || m.Subject.Digest != r.Subject || len(m.Layers) == 0 {
		return false, nil
	}
	if len(m.Layers) == 1 && envelope.IsBundle(string(m.Layers[0].MediaType)) {
		layer := m.Layers[0]
		if layer.Size > maxPayloadSize {
			return false, nil
		}
		data, err := s.registry.Blob(ctx, r.Repository, layer.Digest, maxPayloadSize)
		if isNone(err) {
			return false, nil
		}
		if err != nil || digestOf(data) != layer.Digest {
			return false, err
		}
		b, err := envelope.ParseBundle(string(layer.MediaType), data)
		return err == nil && b.Statement != nil && isLike(r, b.Statement), nil
	}
	img, err := parseSignatureImage(manifest)
	if err != nil {
		return false, nil
	}
	like, err := s.attestationsLike(ctx, r, img)
	whole := !slices.ContainsFunc(img.layers, func(l signatureLayer) bool { return !slices.Contains(like, l.digest) })
	return whole, err
}

// replace takes away what was there before, all but ours. It is done last: at no moment
// is there no attestation of the type.
func (s *Signer) replace(ctx context.Context, r Request, e earlier, ours []string) (int, error) {
	mine := func(digest string) bool { return slices.Contains(ours, digest) }
	layers := slices.DeleteFunc(slices.Clone(e.layers), mine)
	listed := slices.DeleteFunc(slices.Clone(e.listed), mine)
	var jobs []*job
	remove := func(tag string, drop []string, list bool) {
		if len(drop) > 0 {
			jobs = append(jobs, newJob(Result{Request: r, Tag: tag}, &removal{list: list, drop: drop}))
		}
	}
	remove(AttestationTag(r.Subject), layers, false)
	remove(FallbackTag(r.Subject), listed, true)
	if err := s.attachAll(ctx, jobs); err != nil {
		return 0, err
	}
	for _, j := range jobs {
		if r := j.addition.(*removal); r.returns >= maxReturns {
			return 0, fmt.Errorf("another writer keeps putting back what was under %s", j.result.Tag)
		}
	}
	deletes := s.registry.(Deleter) // earlierThan has looked
	gone := len(layers)
	for _, digest := range e.referrers {
		if mine(digest.String()) {
			continue
		}
		err := deletes.DeleteManifest(ctx, r.Repository, digest)
		// Where the fallback tag was the list, nobody finds it any more.
		if errors.Is(err, ErrNoDelete) && slices.Contains(listed, digest.String()) {
			err = s.unlisted(ctx, r, digest, err)
		}
		if err != nil {
			return gone, fmt.Errorf("delete referrer %s: %w", digest, err)
		}
		gone++
	}
	return gone, nil
}

// unlisted returns why a referrer could not be deleted, if it still is listed.
func (s *Signer) unlisted(ctx context.Context, r Request, digest v1.Hash, why error) error {
	listed, err := s.registry.Referrers(ctx, r.Repository, r.Subject)
	if err != nil {
		return errors.Join(why, err)
	}
	if slices.ContainsFunc(listed, func(d v1.Descriptor) bool { return d.Digest == digest }) {
		return why
	}
	return nil
}

// removal takes layers from an image, or referrers from a list.
type removal struct {
	list bool
	drop []string // digests

	gone    bool // when it was last looked at
	returns int  // times that they were there again

	before  []byte // what it was last removed from
	unmoved int    // times in a row that this was the same
}

func (r *removal) read(raw []byte) (document, error) {
	switch {
	case r.list && raw == nil:
		return newReferrersIndex(), nil
	case r.list:
		return parseReferrersIndex(raw)
	case raw == nil:
		return newSignatureImage(false), nil
	}
	return parseSignatureImage(raw)
}

// in reports whether all of it is gone, or will not go: a writer that was overwritten by
// this one, and looks again, puts its own back.
func (r *removal) in(d document) bool {
	there := false
	switch d := d.(type) {
	case referrersIndex:
		there = slices.ContainsFunc(d.digests, r.drops)
	case signatureImage:
		there = slices.ContainsFunc(d.layers, func(l signatureLayer) bool { return r.drops(l.digest) })
	}
	if there && r.gone {
		r.returns++
	}
	r.gone = !there
	return r.gone || r.returns >= maxReturns
}

func (r *removal) drops(digest string) bool { return slices.Contains(r.drop, digest) }

func (r *removal) prepare(context.Context) error { return nil }

func (r *removal) to(d document) (document, error) {
	before, _, err := d.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(before, r.before) {
		r.before, r.unmoved = before, 0
	} else if r.unmoved++; r.unmoved == maxUnmoved {
		return nil, errors.New("what is written there changes nothing: a registry that adds it to what it has, as Vidimus does, takes nothing away so")
	}
	switch d := d.(type) {
	case referrersIndex:
		left := d
		left.manifests, left.digests = []json.RawMessage{}, nil
		for i, digest := range d.digests {
			if !r.drops(digest) {
				left.manifests, left.digests = append(left.manifests, d.manifests[i]), append(left.digests, digest)
			}
		}
		return left, nil
	case signatureImage:
		d.layers = slices.DeleteFunc(slices.Clone(d.layers), func(l signatureLayer) bool { return r.drops(l.digest) })
		return d, nil
	}
	return nil, fmt.Errorf("signer: nothing is removed from %T", d)
}
