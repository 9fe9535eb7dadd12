package signer

import (
	"bytes"
	"crypto"
	"encoding/base64"
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

// signatureAnnotation is the annotation of a layer that holds the signature
// over the layer's bytes, in base64.
const signatureAnnotation = "dev.cosignproject.cosign/signature"

// maxManifestSize is the size of a manifest that every registry must take
// (distribution-spec), and so the largest that is read or written.
const maxManifestSize = 4 << 20

// signatureImage is the image under a .sig tag, as much of it as is needed to
// add a layer. Everything that was read is kept as the bytes it was.
type signatureImage struct {
	fields []field // of the manifest, in its order
	layers []signatureLayer
	// config is the media type of a config that describes the layers, to be
	// written anew; empty for one of another type, which is kept as it is.
	config types.MediaType
	media  types.MediaType
	list   string // the member that holds the layers: "layers", or "manifests" in an index
}

type field struct {
	name string
	raw  json.RawMessage
}

// signatureLayer is one descriptor. raw is what is written back; the rest is
// what could be understood of it.
type signatureLayer struct {
	raw         json.RawMessage
	mediaType   string
	digest      string
	annotations map[string]string
	odd         bool // it has annotations that are no strings
}

// newSignatureImage is the image that is written where there was none yet.
func newSignatureImage(dockerMediaTypes bool) signatureImage {
	media, config := types.OCIManifestSchema1, types.OCIConfigJSON
	if dockerMediaTypes {
		media, config = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	return signatureImage{
		fields: []field{
			{"schemaVersion", json.RawMessage(`2`)},
			{"mediaType", json.RawMessage(`"` + string(media) + `"`)},
			{"config", nil},
			{"layers", nil},
		},
		config: config,
		media:  media,
		list:   "layers",
	}
}

// newList is the index that is written where there was none yet.
func newList() signatureImage {
	return signatureImage{
		fields: []field{
			{"schemaVersion", json.RawMessage(`2`)},
			{"mediaType", json.RawMessage(`"` + string(types.OCIImageIndex) + `"`)},
			{"manifests", nil},
		},
		media: types.OCIImageIndex,
		list:  "manifests",
	}
}

// parseSignatureImage reads the manifest of a signature image. It refuses what
// is not an image manifest, or can be read in two ways: to write it back could
// lose what somebody else reads in it.
func parseSignatureImage(data []byte) (signatureImage, error) {
	img, err := parseMembers(data, types.OCIManifestSchema1, "layers")
	if err != nil {
		return signatureImage{}, err
	}
	if _, ok := img.field("manifests"); ok || !img.media.IsImage() || img.media.IsSchema1() {
		return signatureImage{}, fmt.Errorf("not an image manifest (%q)", img.media)
	}
	if err := img.parseConfig(); err != nil {
		return signatureImage{}, err
	}
	return img, img.parseLayers()
}

// parseList reads a list of referrers, as strictly.
func parseList(data []byte) (signatureImage, error) {
	img, err := parseMembers(data, types.OCIImageIndex, "manifests")
	if err != nil {
		return signatureImage{}, err
	}
	_, layers := img.field("layers")
	if _, config := img.field("config"); layers || config || !img.media.IsIndex() {
		return signatureImage{}, fmt.Errorf("not an index (%q)", img.media)
	}
	return img, img.parseLayers()
}

func parseMembers(data []byte, media types.MediaType, list string) (signatureImage, error) {
	if len(data) > maxManifestSize {
		return signatureImage{}, fmt.Errorf("larger than %d bytes", maxManifestSize)
	}
	if err := envelope.CheckJSON(data, envelope.MaxDepth); err != nil {
		return signatureImage{}, err
	}
	fields, err := objectFields(data)
	if err != nil {
		return signatureImage{}, err
	}
	img := signatureImage{fields: fields, media: media, list: list}
	if raw, ok := img.field("mediaType"); ok {
		if err := json.Unmarshal(raw, &img.media); err != nil {
			return signatureImage{}, errors.New("mediaType is not a string")
		}
	}
	return img, nil
}

func (img *signatureImage) parseConfig() error {
	raw, ok := img.field("config")
	var config struct {
		MediaType types.MediaType `json:"mediaType"`
	}
	if !ok || json.Unmarshal(raw, &config) != nil {
		return errors.New("no config")
	}
	if config.MediaType == types.OCIConfigJSON || config.MediaType == types.DockerConfigJSON {
		img.config = config.MediaType
	}
	return nil
}

func (img *signatureImage) parseLayers() error {
	raw, ok := img.field(img.list)
	var layers []json.RawMessage
	if !ok || json.Unmarshal(raw, &layers) != nil {
		return fmt.Errorf("no %s", img.list)
	}
	for i, raw := range layers {
		layer, err := parseLayer(raw)
		if err != nil {
			return fmt.Errorf("%s: number %d %w", img.list, i, err)
		}
		img.layers = append(img.layers, layer)
	}
	return nil
}

func parseLayer(raw json.RawMessage) (signatureLayer, error) {
	layer := signatureLayer{raw: raw}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return layer, errors.New("is not a descriptor")
	}
	// What is not understood is kept and takes no part in anything.
	_ = json.Unmarshal(fields["mediaType"], &layer.mediaType)
	if raw, ok := fields["annotations"]; ok && json.Unmarshal(raw, &layer.annotations) != nil {
		layer.annotations, layer.odd = nil, true
	}
	if json.Unmarshal(fields["digest"], &layer.digest) != nil || layer.digest == "" {
		return layer, errors.New("has no digest")
	}
	return layer, nil
}

// objectFields returns the members of a JSON object in their order, each value
// as its bytes.
func objectFields(data []byte) ([]field, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var fields []field
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, errors.New("not a JSON object")
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		fields = append(fields, field{name, raw})
	}
	return fields, nil
}

func (img signatureImage) field(name string) (json.RawMessage, bool) {
	for _, f := range img.fields {
		if f.name == name {
			return f.raw, true
		}
	}
	return nil, false
}

// holds reports whether one of the layers is a signature over payload that
// verifies under pub: the same bytes, or another signature by the same key
// over the same payload.
func (img signatureImage) holds(pub crypto.PublicKey, payload []byte, digest v1.Hash) bool {
	for _, layer := range img.layers {
		if layer.mediaType != envelope.MediaTypeSimpleSigning || layer.digest != digest.String() {
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(layer.annotations[signatureAnnotation])
		if err == nil && verifies(pub, payload, signature) {
			return true
		}
	}
	return false
}

// with returns the image with more layers, at the end.
func (img signatureImage) with(layers ...signatureLayer) signatureImage {
	img.layers = append(img.layers[:len(img.layers):len(img.layers)], layers...)
	return img
}

func newLayer(desc v1.Descriptor) (signatureLayer, error) {
	raw, err := json.Marshal(desc)
	if err != nil {
		return signatureLayer{}, err
	}
	return signatureLayer{
		raw:         raw,
		mediaType:   string(desc.MediaType),
		digest:      desc.Digest.String(),
		annotations: desc.Annotations,
	}, nil
}

// same reports whether two layers are one piece of evidence: the same content,
// signed and annotated alike. Referrers are one when they are the same manifest:
// what a list says of it besides is nobody's signature.
func (img signatureImage) same(a, b signatureLayer) bool {
	switch {
	case a.digest != b.digest:
		return false
	case img.list != "manifests" && (a.odd || b.odd):
		return bytes.Equal(a.raw, b.raw)
	}
	return img.list == "manifests" || a.mediaType == b.mediaType && maps.Equal(a.annotations, b.annotations)
}

// without returns those of layers that are not in the image, each once.
func (img signatureImage) without(layers []signatureLayer) []signatureLayer {
	var missing []signatureLayer
	for _, layer := range layers {
		is := func(other signatureLayer) bool { return img.same(layer, other) }
		if !slices.ContainsFunc(img.layers, is) && !slices.ContainsFunc(missing, is) {
			missing = append(missing, layer)
		}
	}
	return missing
}

// encode returns the manifest, and the config that goes with it (nil when the
// config that was read is kept). Both depend on the layers alone, so that two
// writers that merge the same signatures write the same bytes.
func (img signatureImage) encode() (manifest, config []byte, err error) {
	var configField json.RawMessage
	if img.config != "" {
		if config, err = img.encodeConfig(); err != nil {
			return nil, nil, err
		}
		if configField, err = json.Marshal(describe(img.config, config)); err != nil {
			return nil, nil, err
		}
	}
	var b bytes.Buffer
	separator := byte('{')
	for _, f := range img.fields {
		b.WriteByte(separator)
		separator = ','
		key, err := json.Marshal(f.name)
		if err != nil {
			return nil, nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		switch {
		case f.name == "config" && img.config != "":
			b.Write(configField)
		case f.name == img.list:
			img.writeLayers(&b)
		default:
			b.Write(f.raw)
		}
	}
	b.WriteByte('}')
	if b.Len() > maxManifestSize {
		return nil, nil, fmt.Errorf("the signature image would grow beyond %d bytes", maxManifestSize)
	}
	return b.Bytes(), config, nil
}

func (img signatureImage) writeLayers(b *bytes.Buffer) {
	b.WriteByte('[')
	for i, layer := range img.layers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(layer.raw)
	}
	b.WriteByte(']')
}

// encodeConfig returns the config as cosign writes it: nothing but the layers.
func (img signatureImage) encodeConfig() ([]byte, error) {
	config := v1.ConfigFile{
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
		History: make([]v1.History, len(img.layers)),
	}
	for _, layer := range img.layers {
		// A layer is not compressed, so that its diff ID is its digest. The
		// text is taken as it is, not judged: it is written where it was read.
		algorithm, encoded, _ := strings.Cut(layer.digest, ":")
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: algorithm, Hex: encoded})
	}
	return json.Marshal(config)
}

func describe(mediaType types.MediaType, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(data)), Digest: digestOf(data)}
}
