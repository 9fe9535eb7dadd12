package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// referrersIndex is the index under a fallback tag. Everything that was read is
// kept as the bytes it was.
type referrersIndex struct {
	fields    []field // of the index, in its order
	manifests []json.RawMessage
	digests   []string // of manifests
}

// parseReferrersIndex reads what is under a fallback tag. It refuses what is not a list
// of referrers, or can be read in two ways: cosign copy gives an image itself such a
// tag, also one for several platforms, which is an index like the list; and to write
// there would take the image's name from it.
func parseReferrersIndex(data []byte) (referrersIndex, error) {
	if len(data) > maxManifestSize {
		return referrersIndex{}, fmt.Errorf("larger than %d bytes", maxManifestSize)
	}
	if _, err := listedManifests(data); err != nil {
		return referrersIndex{}, err
	}
	fields, err := objectFields(data)
	if err != nil {
		return referrersIndex{}, err
	}
	index := referrersIndex{fields: fields}
	if slices.ContainsFunc(fields, func(f field) bool { return f.name == "subject" }) {
		return referrersIndex{}, errors.New("it has a subject itself")
	}
	for _, f := range fields {
		if f.name != "manifests" {
			continue
		}
		if err := json.Unmarshal(f.raw, &index.manifests); err != nil {
			return referrersIndex{}, errors.New("manifests is not a list")
		}
		for i, raw := range index.manifests {
			var desc struct {
				Digest       string          `json:"digest"`
				ArtifactType json.RawMessage `json:"artifactType"`
				Platform     json.RawMessage `json:"platform"`
			}
			if err := json.Unmarshal(raw, &desc); err != nil || desc.Digest == "" {
				return referrersIndex{}, fmt.Errorf("manifest %d has no digest", i)
			}
			// Some keep a referrer's platform where they know of one, as oras does of
			// attestations of BuildKit's, and always its type.
			if isSaid(desc.Platform) && !isSaid(desc.ArtifactType) {
				return referrersIndex{}, errOwnName
			}
			index.digests = append(index.digests, desc.Digest)
		}
		return index, nil
	}
	return referrersIndex{}, errOwnName
}

// isSaid reports whether a member of a descriptor is there, and says something.
func isSaid(member json.RawMessage) bool {
	return len(member) > 0 && string(member) != "null" && string(member) != `""`
}

var errOwnName = errors.New("it is an image, which cosign copy tags so")

func newReferrersIndex() referrersIndex {
	return referrersIndex{fields: []field{
		{"schemaVersion", json.RawMessage(`2`)},
		{"mediaType", json.RawMessage(`"` + string(types.OCIImageIndex) + `"`)},
		{"manifests", nil},
	}}
}

func (x referrersIndex) mediaType() types.MediaType { return types.OCIImageIndex }
func (x referrersIndex) size() int                  { return len(x.manifests) }

func (x referrersIndex) encode() (manifest, config []byte, err error) {
	var b bytes.Buffer
	separator := byte('{')
	for _, f := range x.fields {
		raw := f.raw
		if f.name == "manifests" {
			if raw, err = json.Marshal(x.manifests); err != nil {
				return nil, nil, err
			}
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, nil, err
		}
		b.WriteByte(separator)
		separator = ','
		b.Write(name)
		b.WriteByte(':')
		b.Write(raw)
	}
	b.WriteByte('}')
	if b.Len() > maxManifestSize {
		return nil, nil, &fullError{fmt.Errorf("it would grow beyond %d bytes", maxManifestSize)}
	}
	return b.Bytes(), nil, nil
}

// with returns the index with more descriptors, unless there would be too many.
func (x referrersIndex) with(added ...signatureLayer) (referrersIndex, error) {
	if len(x.manifests)+len(added) > maxManifests {
		return x, &fullError{fmt.Errorf("it lists %d referrers, and may list %d", len(x.manifests), maxManifests)}
	}
	var raws []json.RawMessage
	var digests []string
	for _, desc := range added {
		raws, digests = append(raws, desc.raw), append(digests, desc.digest)
	}
	x.manifests, x.digests = joined(x.manifests, raws), joined(x.digests, digests)
	return x, nil
}

// listing adds a referrer, which is stored already, to the index under the
// fallback tag of its subject.
type listing struct {
	desc    v1.Descriptor
	subject v1.Hash // whose referrers are listed
}

func (l *listing) read(raw []byte) (document, error) {
	if raw == nil {
		return newReferrersIndex(), nil
	}
	index, err := parseReferrersIndex(raw)
	if err == nil && digestOf(raw) == l.subject {
		err = errOwnName
	}
	if err != nil {
		return nil, fmt.Errorf("an index of referrers that could be added to, and this registry lists none itself: %w "+
			"(a bundle cannot be stored here; the format tag can)", err)
	}
	return index, nil
}

func (l *listing) in(d document) bool {
	for _, digest := range d.(referrersIndex).digests {
		if digest == l.desc.Digest.String() {
			return true
		}
	}
	return false
}

func (l *listing) prepare(context.Context) error { return nil }

func (l *listing) to(d document) (document, error) {
	raw, err := json.Marshal(l.desc)
	if err != nil {
		return nil, err
	}
	return d.(referrersIndex).with(signatureLayer{raw: raw, digest: l.desc.Digest.String()})
}

// ReferrersIndex returns what the index under a fallback tag lists, nothing for
// what is not one: an image may be called so.
func ReferrersIndex(data []byte) []v1.Descriptor {
	if envelope.CheckJSON(data, envelope.MaxDepth) != nil {
		return nil
	}
	listed, err := listedManifests(data)
	if err != nil {
		return nil
	}
	return listed
}
