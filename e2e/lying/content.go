package lying

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of evidence.
const (
	SimpleSigning types.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	EmptyConfig   types.MediaType = "application/vnd.oci.empty.v1+json"
)

// Content is a manifest and all that it references: what Push needs. It is not
// changed once it is made.
type Content struct {
	MediaType string
	Body      []byte    // the manifest
	Blobs     [][]byte  // config first, as far as it has one
	Children  []Content // of an index
}

// Digest is that of the manifest.
func (c Content) Digest() v1.Hash { return Digest(c.Body) }

// Descriptor describes the manifest.
func (c Content) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: types.MediaType(c.MediaType), Digest: c.Digest(), Size: int64(len(c.Body))}
}

// Digest returns the SHA-256 digest of data.
func Digest(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// Layer is one layer, or the config, of a manifest and how its descriptor tells of it.
type Layer struct {
	MediaType   types.MediaType
	Data        []byte
	Annotations map[string]string
	URLs        []string
}

// Descriptor describes the layer.
func (b Layer) Descriptor() v1.Descriptor {
	return v1.Descriptor{
		MediaType: b.MediaType, Digest: Digest(b.Data), Size: int64(len(b.Data)),
		Annotations: b.Annotations, URLs: b.URLs,
	}
}

// ImageManifest is the shape of an image manifest or artifact; Build makes Content
// of it, lawful or not. Empty fields are left out.
type ImageManifest struct {
	MediaType    types.MediaType // OCI's image manifest when empty
	OmitType     bool            // leave the mediaType field out of the JSON
	ArtifactType string
	Config       Layer
	Layers       []Layer
	Subject      *v1.Descriptor
	Annotations  map[string]string
	Extra        map[string]any // further fields, which win over the others
}

// Build encodes the manifest.
func (m ImageManifest) Build() Content {
	if m.MediaType == "" {
		m.MediaType = types.OCIManifestSchema1
	}
	c := Content{MediaType: string(m.MediaType), Blobs: [][]byte{m.Config.Data}}
	layers := []v1.Descriptor{}
	for _, layer := range m.Layers {
		layers = append(layers, layer.Descriptor())
		c.Blobs = append(c.Blobs, layer.Data)
	}
	fields := map[string]any{"schemaVersion": 2, "config": m.Config.Descriptor(), "layers": layers}
	set(fields, "mediaType", m.MediaType, !m.OmitType)
	set(fields, "artifactType", m.ArtifactType, m.ArtifactType != "")
	set(fields, "subject", m.Subject, m.Subject != nil)
	set(fields, "annotations", m.Annotations, m.Annotations != nil)
	for key, value := range m.Extra {
		fields[key] = value
	}
	c.Body = encode(fields)
	return c
}

// Image returns a small OCI image for linux/amd64; another seed is another
// image, down to its config and layers.
func Image(seed string) Content { return ImageFor(seed, "amd64") }

// ImageFor is Image for another architecture.
func ImageFor(seed, architecture string) Content {
	return imageManifest(seed, architecture).Build()
}

// ImageWith is Image with further layers.
func ImageWith(seed string, layers ...Layer) Content {
	m := imageManifest(seed, "amd64")
	m.Layers = append(m.Layers, layers...)
	return m.Build()
}

// DockerImage is Image in docker's schema 2.
func DockerImage(seed string) Content {
	m := imageManifest(seed, "amd64")
	m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	for i := range m.Layers {
		m.Layers[i].MediaType = types.DockerLayer
	}
	return m.Build()
}

func imageManifest(seed, architecture string) ImageManifest {
	layers := []Layer{
		{MediaType: types.OCIUncompressedLayer, Data: []byte("layer one of " + seed)},
		{MediaType: types.OCIUncompressedLayer, Data: []byte("layer two of " + seed + strings.Repeat(".", 1000))},
	}
	diffs := []v1.Hash{}
	for _, layer := range layers {
		diffs = append(diffs, Digest(layer.Data))
	}
	config := encode(map[string]any{
		"os": "linux", "architecture": architecture,
		"config": map[string]any{"Labels": map[string]string{"seed": seed}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	return ImageManifest{Config: Layer{MediaType: types.OCIConfigJSON, Data: config}, Layers: layers}
}

// Artifact returns a manifest of artifactType with an empty config whose
// subject is the given manifest.
func Artifact(artifactType string, subject v1.Descriptor, layers ...Layer) Content {
	return ImageManifest{
		ArtifactType: artifactType,
		Config:       Layer{MediaType: EmptyConfig, Data: []byte("{}")},
		Layers:       layers,
		Subject:      &subject,
	}.Build()
}

// Index returns an OCI index of children, each with a platform when its config
// names one.
func Index(children ...Content) Content { return index(types.OCIImageIndex, children) }

// DockerList returns docker's manifest list of children.
func DockerList(children ...Content) Content { return index(types.DockerManifestList, children) }

func index(mediaType types.MediaType, children []Content) Content {
	descriptors := []v1.Descriptor{}
	for _, child := range children {
		desc := child.Descriptor()
		if len(child.Blobs) > 0 {
			var platform v1.Platform
			if json.Unmarshal(child.Blobs[0], &platform) == nil && platform.OS != "" {
				desc.Platform = &v1.Platform{OS: platform.OS, Architecture: platform.Architecture}
			}
		}
		descriptors = append(descriptors, desc)
	}
	c := IndexOf(descriptors...)
	c.MediaType = string(mediaType)
	c.Body = bytes.Replace(c.Body, []byte(types.OCIImageIndex), []byte(mediaType), 1)
	c.Children = children
	return c
}

// IndexOf returns an OCI index of descriptors, lawful or not: also a fallback
// tag of the referrers API.
func IndexOf(descriptors ...v1.Descriptor) Content {
	return Content{MediaType: string(types.OCIImageIndex), Body: encode(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": descriptors,
	})}
}

// RawManifest is Content of any bytes.
func RawManifest(mediaType string, body []byte, blobs ...[]byte) Content {
	return Content{MediaType: mediaType, Body: body, Blobs: blobs}
}

// FallbackTag is the tag under which a registry without the referrers API
// keeps the list for digest.
func FallbackTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex }

func set(fields map[string]any, key string, value any, present bool) {
	if present {
		fields[key] = value
	}
}

// encode is for values that always encode.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
