package signer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

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
	// created is what a config that is written anew says of when that is.
	created time.Time
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
	}
}

// parseSignatureImage reads the manifest of a signature image. It refuses what
// is not an image manifest, is an image to run, or can be read in two ways: to write it
// back could lose what somebody else reads in it.
func parseSignatureImage(data []byte) (signatureImage, error) {
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
	img := signatureImage{fields: fields, media: types.OCIManifestSchema1}
	if raw, ok := img.field("mediaType"); ok {
		if err := json.Unmarshal(raw, &img.media); err != nil {
			return signatureImage{}, errors.New("mediaType is not a string")
		}
	}
	if _, ok := img.field("manifests"); ok || !img.media.IsImage() || img.media.IsSchema1() {
		return signatureImage{}, fmt.Errorf("not an image manifest (%q)", img.media)
	}
	if err := img.parseConfig(); err != nil {
		return signatureImage{}, err
	}
	return img, img.parseLayers()
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
	raw, ok := img.field("layers")
	var layers []json.RawMessage
	if !ok || json.Unmarshal(raw, &layers) != nil {
		return errors.New("no layers")
	}
	for i, raw := range layers {
		layer := signatureLayer{raw: raw}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return fmt.Errorf("layer %d is not a descriptor", i)
		}
		// What is not understood is kept and takes no part in anything.
		_ = json.Unmarshal(fields["mediaType"], &layer.mediaType)
		_ = json.Unmarshal(fields["annotations"], &layer.annotations)
		if json.Unmarshal(fields["digest"], &layer.digest) != nil || layer.digest == "" {
			return fmt.Errorf("layer %d has no digest", i)
		}
		if types.MediaType(layer.mediaType).IsLayer() {
			return fmt.Errorf("layer %d is part of an image to run (%q)", i, layer.mediaType)
		}
		img.layers = append(img.layers, layer)
	}
	return nil
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
// verifies under the signer's key: the same bytes, or another signature by the
// same key over the same payload. Where the signer gets proof, there is to be
// some.
func (img signatureImage) holds(s *Signer, payload []byte, digest v1.Hash) bool {
	for _, layer := range img.layers {
		if layer.mediaType != envelope.MediaTypeSimpleSigning || layer.digest != digest.String() {
			continue
		}
		proven := layer.annotations[logAnnotation] != "" || layer.annotations[timestampAnnotation] != ""
		if s.prover != nil && !proven {
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(layer.annotations[signatureAnnotation])
		if err == nil && verifies(s.key.Public(), payload, signature, hashOf(s.key)) {
			return true
		}
	}
	return false
}

func (img signatureImage) mediaType() types.MediaType { return img.media }
func (img signatureImage) size() int                  { return len(img.layers) }

// with returns the image with one more layer.
func (img signatureImage) with(desc v1.Descriptor) (signatureImage, error) {
	raw, err := json.Marshal(desc)
	if err != nil {
		return signatureImage{}, err
	}
	img.layers = joined(img.layers, []signatureLayer{{
		raw:         raw,
		mediaType:   string(desc.MediaType),
		digest:      desc.Digest.String(),
		annotations: desc.Annotations,
	}})
	return img, nil
}

// surelyTried is how many of the signatures in one place a verifier tries whatever there
// is besides: the equal part of maxTried that each of the four places has.
const surelyTried = maxTried / 4

// joined returns what is held in one place and what is added to it: at the end, as cosign
// has it, but before all when it would not surely be tried there. Whoever put so many
// there before does not keep what is signed now from counting.
func joined[T any](held, added []T) []T {
	if len(held)+len(added) > surelyTried {
		return slices.Concat(added, held)
	}
	return slices.Concat(held, added)
}

// encode returns the manifest, and the config that goes with it (nil when the
// config that was read is kept). Both depend on the layers alone, unless the config is to
// say when it was written, so that two writers that merge the same signatures write the
// same bytes.
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
		case f.name == "layers":
			img.writeLayers(&b)
		default:
			b.Write(f.raw)
		}
	}
	b.WriteByte('}')
	if b.Len() > maxManifestSize {
		return nil, nil, &fullError{fmt.Errorf("it would grow beyond %d bytes", maxManifestSize)}
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

// encodeConfig returns the config as cosign writes it: nothing but the layers, and when
// it was written if that is to be said.
func (img signatureImage) encodeConfig() ([]byte, error) {
	config := v1.ConfigFile{
		Created: v1.Time{Time: img.created},
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
