package main

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/signer"
)

// upstreamName is how Vidimus's configuration calls the origin, and the first
// component of the name that signatures claim.
const upstreamName = "origin"

// spec says what image is wanted.
type spec struct {
	Repository string  `json:"repository"`
	Layers     []int64 `json:"layers"` // sizes
	Signed     bool    `json:"signed"`
}

// tag is the tag of every image. Each has a repository of its own.
const tag = "v1"

// image says what an image consists of, so that a client knows what to expect.
type image struct {
	Repository string `json:"repository"`
	Manifest   part   `json:"manifest"`
	Config     part   `json:"config"`
	Layers     []part `json:"layers"`
}

// part is one thing that is pulled.
type part struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// fill makes the images and their signatures, all of which are new. They are
// signed together, for the signer waits to see that a signature has stayed.
func (o *origin) fill(ctx context.Context, key crypto.Signer, specs []spec) ([]image, error) {
	images := make([]image, len(specs))
	var requests []signer.Request
	for i, s := range specs {
		made, err := o.add(s)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", s.Repository, err)
		}
		images[i] = made
		if !s.Signed {
			continue
		}
		subject, err := v1.NewHash(made.Manifest.Digest)
		if err != nil {
			return nil, err
		}
		requests = append(requests, signer.Request{
			Subject: subject, Repository: s.Repository, Reference: upstreamName + "/" + s.Repository,
		})
	}
	if len(requests) == 0 {
		return images, nil
	}
	by, err := signer.New(signer.Config{Registry: o, Key: key, Formats: []signer.Format{signer.FormatTag}})
	if err != nil {
		return nil, err
	}
	_, err = by.Sign(ctx, requests...)
	return images, err
}

// add makes one image.
func (o *origin) add(s spec) (image, error) {
	made := image{Repository: s.Repository}
	blobs := make([]blob, 0, len(s.Layers)+1)
	diffs := []string{}
	var layers []v1.Descriptor
	for i, size := range s.Layers {
		if size < ownSize || size > int64(len(o.bytes.base))+ownSize {
			return image{}, fmt.Errorf("a layer of %d bytes is not between %d and the largest that was announced", size, ownSize)
		}
		b := o.bytes.blob(fmt.Sprintf("%s %d", s.Repository, i), size)
		blobs, diffs = append(blobs, b), append(diffs, b.digest)
		desc, err := descriptor(types.OCILayer, b)
		if err != nil {
			return image{}, err
		}
		layers = append(layers, desc)
		made.Layers = append(made.Layers, part{b.digest, b.size()})
	}
	raw, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config":  map[string]any{"Labels": map[string]string{"bench": s.Repository}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffs},
		"history": []any{},
	})
	if err != nil {
		return image{}, err
	}
	config := blobOf(raw)
	made.Config = part{config.digest, config.size()}
	configDescriptor, err := descriptor(types.OCIConfigJSON, config)
	if err != nil {
		return image{}, err
	}
	body, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: configDescriptor, Layers: layers})
	if err != nil {
		return image{}, err
	}
	manifest := blobOf(body)
	made.Manifest = part{manifest.digest, manifest.size()}

	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.of(s.Repository)
	for _, b := range append(blobs, config) {
		r.blobs[b.digest] = b
	}
	r.manifests[manifest.digest] = stored{string(types.OCIManifestSchema1), body}
	r.tags[tag] = manifest.digest
	return made, nil
}

func descriptor(mediaType types.MediaType, b blob) (v1.Descriptor, error) {
	digest, err := v1.NewHash(b.digest)
	return v1.Descriptor{MediaType: mediaType, Size: b.size(), Digest: digest}, err
}
