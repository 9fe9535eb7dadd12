package signer

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
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
// was; a descriptor with the same content and annotations is not added twice, nor is a
// payload among the Blobs that c.Key has signed already, where there is a key: it is
// asked to sign nothing. On an error some may have been made, and all may be asked for again.
func Add(ctx context.Context, c Config, additions ...Addition) ([]Added, error) {
	if c.Registry == nil {
		return nil, errors.New("signer: no registry")
	}
	s := &Signer{
		registry: c.Registry, key: c.Key, locker: c.Locker, dockerMediaTypes: c.DockerMediaTypes, settle: cmp.Or(c.Settle, SettleFloor),
	}
	jobs := make([]*job, len(additions))
	for i, a := range additions {
		add, err := s.descriptors(a)
		if err != nil {
			return nil, fmt.Errorf("add to %s:%s: %w", a.Repository, a.Tag, err)
		}
		request := Request{Repository: a.Repository, Subject: taggedSubject(a.Tag)}
		jobs[i] = newJob(Result{Request: request, Tag: a.Tag}, add)
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

// taggedSubject is the digest that a tag is made of; the zero one when it is of none.
func taggedSubject(tag string) v1.Hash {
	digits, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(digits) < 64 {
		return v1.Hash{}
	}
	return v1.Hash{Algorithm: "sha256", Hex: digits[:64]}
}

// descriptors returns the addition that a asks for.
func (s *Signer) descriptors(a Addition) (addition, error) {
	layers := make([]signatureLayer, len(a.Descriptors))
	for i, raw := range a.Descriptors {
		var err error
		if layers[i], err = parseLayer(raw); err != nil {
			return nil, fmt.Errorf("what is to be added %w", err)
		}
	}
	stored := storing{s.registry, a}
	if a.List {
		return &listedAddition{stored, layers}, nil
	}
	return &imageAddition{stored, s, layers}, nil
}

// storing stores the blobs of an Addition.
type storing struct {
	registry Registry
	Addition
}

func (s storing) prepare(ctx context.Context) error {
	for _, blob := range s.Blobs {
		if err := s.registry.PutBlob(ctx, s.Repository, blob.Digest, blob.Data); err != nil {
			return fmt.Errorf("upload the payload: %w", err)
		}
	}
	return nil
}

// listedAddition adds to a list of referrers.
type listedAddition struct {
	storing
	layers []signatureLayer
}

func (a *listedAddition) read(raw []byte) (document, error) {
	return (&listing{subject: taggedSubject(a.Tag)}).read(raw)
}

func (a *listedAddition) in(d document) bool {
	return len(a.missing(d.(referrersIndex))) == 0
}

// missing returns what index does not list, each once: referrers are one when they
// are the same manifest, whatever a list says of it besides.
func (a *listedAddition) missing(index referrersIndex) []signatureLayer {
	var missing []signatureLayer
	for _, layer := range a.layers {
		is := func(other signatureLayer) bool { return other.digest == layer.digest }
		if !slices.Contains(index.digests, layer.digest) && !slices.ContainsFunc(missing, is) {
			missing = append(missing, layer)
		}
	}
	return missing
}

func (a *listedAddition) to(d document) (document, error) {
	index := d.(referrersIndex)
	missing := a.missing(index)
	return index.with(missing...)
}

// imageAddition adds layers to an image.
type imageAddition struct {
	storing
	signer *Signer
	layers []signatureLayer
}

// exactImage is one that is written as it is.
type exactImage struct {
	signatureImage
	exact []byte
}

func (x exactImage) encode() (manifest, config []byte, err error) { return x.exact, nil, nil }

// noImage is what there is where there is none yet.
type noImage struct{ signatureImage }

func (a *imageAddition) read(raw []byte) (document, error) {
	if raw == nil {
		return noImage{newSignatureImage(a.signer.dockerMediaTypes)}, nil
	}
	img, err := parseSignatureImage(raw)
	if err != nil {
		return nil, fmt.Errorf("an image that could be added to: %w", err)
	}
	return img, nil
}

func (a *imageAddition) in(d document) bool {
	img, ok := d.(signatureImage)
	return len(a.missing(img)) == 0 && (ok || len(a.layers) == 0)
}

// missing returns the layers that img does not have, each once.
func (a *imageAddition) missing(img signatureImage) []signatureLayer {
	var missing []signatureLayer
	for _, layer := range a.layers {
		if !slices.ContainsFunc(img.layers, layer.same) && !slices.ContainsFunc(missing, layer.same) && !a.signed(img, layer) {
			missing = append(missing, layer)
		}
	}
	return missing
}

// signed reports whether img has another signature by our key over the payload of
// layer.
func (a *imageAddition) signed(img signatureImage, layer signatureLayer) bool {
	if a.signer.key == nil || layer.mediaType != envelope.MediaTypeSimpleSigning {
		return false
	}
	return slices.ContainsFunc(a.Blobs, func(blob Blob) bool {
		return blob.Digest.String() == layer.digest && img.holds(a.signer, blob.Data, blob.Digest)
	})
}

func (a *imageAddition) to(d document) (document, error) {
	none, first := d.(noImage)
	img := none.signatureImage
	if !first {
		img = d.(signatureImage)
	}
	img.layers = joined(img.layers, a.missing(img))
	if first && a.Exact != nil {
		return exactImage{img, a.Exact}, nil
	}
	return img, nil
}

// same reports whether two layers are one piece of evidence: the same content,
// signed and annotated alike.
func (l signatureLayer) same(other signatureLayer) bool {
	return bytes.Equal(l.raw, other.raw) ||
		l.digest == other.digest && l.mediaType == other.mediaType && maps.Equal(l.annotations, other.annotations) && !l.odd() && !other.odd()
}

// odd reports whether a layer has annotations that are no strings.
func (l signatureLayer) odd() bool {
	var fields struct {
		Annotations map[string]string `json:"annotations"`
	}
	return json.Unmarshal(l.raw, &fields) != nil
}

func parseLayer(raw json.RawMessage) (signatureLayer, error) {
	layer := signatureLayer{raw: raw}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return layer, errors.New("is not a descriptor")
	}
	// What is not understood is kept, and is the same as nothing else.
	_ = json.Unmarshal(fields["mediaType"], &layer.mediaType)
	_ = json.Unmarshal(fields["annotations"], &layer.annotations)
	if json.Unmarshal(fields["digest"], &layer.digest) != nil || layer.digest == "" {
		return layer, errors.New("has no digest")
	}
	return layer, nil
}

// SignPayload returns key's signature over the exact bytes of payload, made as
// the package comment says and checked under the key's own public key.
func SignPayload(key crypto.Signer, payload []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return signMessage(key, payload, hashOf(key))
}

// Layer returns the descriptor of a layer that holds data, as JSON, and its blob.
func Layer(mediaType string, annotations map[string]string, data []byte) (json.RawMessage, Blob, error) {
	desc := v1.Descriptor{MediaType: types.MediaType(mediaType), Size: int64(len(data)), Digest: digestOf(data), Annotations: annotations}
	raw, err := json.Marshal(desc)
	return raw, Blob{desc.Digest, data}, err
}
