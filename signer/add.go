package signer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Blob is content and its digest.
type Blob struct {
	Digest v1.Hash
	Data   []byte
}

// Addition asks for descriptors to be in the image, or the list of referrers,
// under a tag: layers of an image of signatures or attestations, manifests of
// an index that stands in for a referrers API.
type Addition struct {
	Repository, Tag string

	// List says that what is under Tag is a list of referrers, an index. Without
	// it, it is an image.
	List bool

	// Descriptors are what is to be there, each the JSON that is written.
	Descriptors []json.RawMessage

	// Blobs are stored before the image is written; what Descriptors reference
	// and is not among them must be in Repository.
	Blobs []Blob

	// Exact is an image with just these Descriptors, as somebody else wrote it.
	// Where there is none under Tag yet, it is written to the byte. The blobs that
	// it references must be in Repository. Nil for none.
	Exact []byte
}

// Added says what became of an Addition.
type Added struct {
	// Kept is set when all was there already, so that nothing was written.
	Kept bool
	// Count is how many descriptors were under the tag, these among them, when it
	// was last read.
	Count int
}

// Add makes every Addition and returns when each was found to have stayed, as the
// package comment says of signatures. What is there already stays as the bytes it
// was; a descriptor with the same content and annotations is not added twice. c.Key
// is not used. On an error some may have been made, and all may be asked for again.
func Add(ctx context.Context, c Config, additions ...Addition) ([]Added, error) {
	if c.Registry == nil {
		return nil, errors.New("signer: no registry")
	}
	s := &Signer{registry: c.Registry, locker: c.Locker, dockerMediaTypes: c.DockerMediaTypes}
	jobs := make([]*job, len(additions))
	for i, a := range additions {
		j, err := s.additionJob(a)
		if err != nil {
			return nil, fmt.Errorf("add to %s:%s: %w", a.Repository, a.Tag, err)
		}
		jobs[i] = j
	}
	if err := s.attachAll(ctx, jobs); err != nil {
		return nil, err
	}
	added := make([]Added, len(jobs))
	for i, j := range jobs {
		added[i] = Added{Kept: j.result.Kept, Count: j.result.Signatures}
	}
	return added, nil
}

func (s *Signer) additionJob(a Addition) (*job, error) {
	j := &job{
		result: Result{Request: Request{Repository: a.Repository}, Tag: a.Tag, Kept: true},
		what:   a.Tag,
		form:   "an image",
		blobs:  a.Blobs,
		exact:  a.Exact,
		start:  func() signatureImage { return newSignatureImage(s.dockerMediaTypes) },
		parse:  parseSignatureImage,
	}
	if a.List {
		j.start, j.parse, j.form = newList, parseList, "a list of referrers"
	}
	for _, raw := range a.Descriptors {
		layer, err := parseLayer(raw)
		if err != nil {
			return nil, fmt.Errorf("what is to be added %w", err)
		}
		j.layers = append(j.layers, layer)
	}
	j.holds = func(img signatureImage) bool { return len(img.without(j.layers)) == 0 }
	return j, nil
}

// SignPayload returns key's signature over the exact bytes of payload, made as
// the package comment says and checked under the key's own public key.
func SignPayload(key crypto.Signer, payload []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return signPayload(key, payload)
}

// Layer returns the descriptor of a layer that holds data, as JSON, and its blob.
func Layer(mediaType string, annotations map[string]string, data []byte) (json.RawMessage, Blob, error) {
	desc := v1.Descriptor{MediaType: types.MediaType(mediaType), Size: int64(len(data)), Digest: digestOf(data), Annotations: annotations}
	raw, err := json.Marshal(desc)
	return raw, Blob{desc.Digest, data}, err
}
