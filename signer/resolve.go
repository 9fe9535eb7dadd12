package signer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// Limits of what is signed recursively, the same as those of what is verified.
const (
	maxIndexDepth = 3    // an index in an index in an index
	maxManifests  = 1000 // that an index lists, all levels together
)

// Manifests is as much of a Registry as it takes to resolve.
type Manifests interface {
	Manifest(ctx context.Context, repository, reference string) ([]byte, error)
}

// Resolve fetches what reference, a tag or a digest, names in repository, and
// returns the digest of the bytes that came, computed here. For a digest they
// are the bytes of that digest, or an error.
func Resolve(ctx context.Context, reg Manifests, repository, reference string) (v1.Hash, error) {
	digest, _, err := fetch(ctx, reg, repository, reference)
	return digest, err
}

// Describe is Resolve for the whole descriptor of what reference names.
func Describe(ctx context.Context, reg Manifests, repository, reference string) (v1.Descriptor, error) {
	digest, data, err := fetch(ctx, reg, repository, reference)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaTypeOf(data), Size: int64(len(data)), Digest: digest}, nil
}

// mediaTypeOf is what a manifest says of itself, or what OCI calls one of its
// kind that says nothing.
func mediaTypeOf(data []byte) types.MediaType {
	var m struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	_ = json.Unmarshal(data, &m) // fetch has read it already
	switch {
	case m.MediaType != "":
		return m.MediaType
	case m.Manifests != nil:
		return types.OCIImageIndex
	}
	return types.OCIManifestSchema1
}

// ResolveAll is Describe for an index and every manifest that it lists, at any
// depth, each once and what was named first. What is not an index is returned
// alone. A manifest that is listed is named by its digest in bytes that were
// hashed, and is fetched only when it is an index itself.
func ResolveAll(ctx context.Context, reg Manifests, repository, reference string) ([]v1.Descriptor, error) {
	root, data, err := fetch(ctx, reg, repository, reference)
	if err != nil {
		return nil, err
	}
	first := v1.Descriptor{MediaType: mediaTypeOf(data), Size: int64(len(data)), Digest: root}
	w := walk{reg: reg, repository: repository, seen: map[v1.Hash]bool{root: true}, found: []v1.Descriptor{first}}
	if err := w.children(ctx, data, 1); err != nil {
		return nil, fmt.Errorf("%s@%s: %w", repository, root, err)
	}
	return w.found, nil
}

type walk struct {
	reg        Manifests
	repository string
	seen       map[v1.Hash]bool
	found      []v1.Descriptor
}

// children adds what the manifest data lists, when it is an index of the given
// depth, counted from one.
func (w *walk) children(ctx context.Context, data []byte, depth int) error {
	listed, err := listedManifests(data)
	if err != nil || len(listed) == 0 {
		return err
	}
	if depth > maxIndexDepth {
		return fmt.Errorf("an index nested deeper than %d", maxIndexDepth)
	}
	for _, desc := range listed {
		if w.seen[desc.Digest] {
			continue
		}
		if len(w.found) > maxManifests {
			return fmt.Errorf("lists more than %d manifests", maxManifests)
		}
		w.seen[desc.Digest] = true
		w.found = append(w.found, v1.Descriptor{MediaType: desc.MediaType, Size: desc.Size, Digest: desc.Digest})
		if !desc.MediaType.IsIndex() {
			continue
		}
		_, data, err := fetch(ctx, w.reg, w.repository, desc.Digest.String())
		if err != nil {
			return err
		}
		if err := w.children(ctx, data, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// listedManifests returns what an index lists, nothing for another manifest,
// and an error for what is neither or could be read as both.
func listedManifests(data []byte) ([]v1.Descriptor, error) {
	if err := envelope.CheckJSON(data, envelope.MaxDepth); err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, errors.New("not a manifest")
	}
	var mediaType types.MediaType
	if raw, ok := fields["mediaType"]; ok && json.Unmarshal(raw, &mediaType) != nil {
		return nil, errors.New("not a manifest: mediaType is not a string")
	}
	_, hasManifests := fields["manifests"]
	_, hasLayers := fields["layers"]
	_, hasConfig := fields["config"]
	switch {
	case string(fields["schemaVersion"]) != "2":
		return nil, errors.New("not a manifest of schema version 2")
	case hasManifests && (hasLayers || hasConfig),
		hasManifests && mediaType.IsImage(),
		!hasManifests && mediaType.IsIndex():
		return nil, errors.New("ambiguous: an index and an image manifest in one")
	case !hasManifests:
		return nil, nil
	}
	return descriptors(fields["manifests"])
}

// descriptors decodes the list of an index. The list is counted before it is
// decoded, since a descriptor takes far more memory than "{}".
func descriptors(list json.RawMessage) ([]v1.Descriptor, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(list, &raw); err != nil {
		return nil, errors.New("not an index: manifests is not a list")
	}
	if len(raw) > maxManifests {
		return nil, fmt.Errorf("an index that lists more than %d manifests", maxManifests)
	}
	descs := make([]v1.Descriptor, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &descs[i]); err != nil {
			return nil, fmt.Errorf("not an index: manifest %d: %w", i, err)
		}
		if descs[i].Digest == (v1.Hash{}) {
			return nil, fmt.Errorf("not an index: manifest %d has no digest", i)
		}
	}
	return descs, nil
}

// fetch returns a manifest's bytes and their digest.
func fetch(ctx context.Context, reg Manifests, repository, reference string) (v1.Hash, []byte, error) {
	isDigest := strings.Contains(reference, ":")
	if _, err := v1.NewHash(reference); isDigest && err != nil {
		return v1.Hash{}, nil, fmt.Errorf("fetch %s of %s: %w", reference, repository, err)
	}
	data, err := reg.Manifest(ctx, repository, reference)
	if err != nil {
		return v1.Hash{}, nil, fmt.Errorf("fetch %s of %s: %w", reference, repository, err)
	}
	if len(data) > maxManifestSize {
		return v1.Hash{}, nil, fmt.Errorf("fetch %s of %s: larger than %d bytes", reference, repository, maxManifestSize)
	}
	digest := digestOf(data)
	if isDigest && reference != digest.String() {
		return v1.Hash{}, nil, fmt.Errorf("fetch %s of %s: the registry sent bytes whose digest is %s", reference, repository, digest)
	}
	if _, err := listedManifests(data); err != nil {
		return v1.Hash{}, nil, fmt.Errorf("%s of %s: %w", reference, repository, err)
	}
	return digest, data, nil
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
