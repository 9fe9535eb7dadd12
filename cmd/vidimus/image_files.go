package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Reading a file out of an image is the one thing here that decompresses, for a person
// on a command line; nothing that decides about serving does. These are its bounds.
const (
	maxFileInImage  = 8 << 20 // bytes of the file
	maxFileLayers   = 128     // of one image
	maxLayerBytes   = 2 << 30 // of all layers, as they are sent
	maxLayerContent = 8 << 30 // of the layers of one image, unpacked
	maxTreeEntries  = 1 << 20 // of the layers of one image
	maxLinks        = 40      // followed for one path
)

// readFile returns what the file at path of an image holds; of an index, of its image
// for platform. The error matches fs.ErrNotExist when there is no such file.
func (f foundImage) readFile(ctx context.Context, layers *layerFiles, platform, path string) ([]byte, error) {
	image, err := f.imageFor(ctx, platform)
	if err != nil {
		return nil, err
	}
	if len(image.Layers) > maxFileLayers {
		return nil, fmt.Errorf("it has %d layers, of which at most %d are read", len(image.Layers), maxFileLayers)
	}
	tree := newImageTree()
	var files []string
	for _, layer := range image.Layers {
		file, err := layers.fetch(ctx, f.image, layer)
		if err != nil {
			return nil, err
		}
		if err := tree.add(ctx, file); err != nil {
			return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
		files = append(files, file)
	}
	entry, err := tree.find(path)
	if err != nil {
		return nil, err
	}
	return entry.read(ctx, files[entry.layer])
}

// imageFor returns the image's manifest: its own, or of an index the one for platform.
func (f foundImage) imageFor(ctx context.Context, platform string) (m anyManifest, err error) {
	if err := json.Unmarshal(f.manifest, &m); err != nil {
		return m, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	if m.Manifests == nil {
		return m, nil
	}
	wanted, err := v1.ParsePlatform(platform)
	if err != nil {
		return m, fmt.Errorf("--platform: %w", err)
	}
	var there []string
	for _, child := range m.Manifests {
		if child.Platform == nil {
			continue
		}
		there = append(there, child.Platform.String())
		if child.Platform.Satisfies(*wanted) {
			data, err := f.Manifest(ctx, "", child.Digest.String())
			if err != nil {
				return m, opaque(err)
			}
			var image anyManifest
			if err := json.Unmarshal(data, &image); err != nil || image.Manifests != nil {
				return m, errors.New("the manifest for the platform is no image's")
			}
			return image, nil
		}
	}
	slices.Sort(there)
	return m, fmt.Errorf("there is no image for the platform %s among %s", platform, strings.Join(slices.Compact(there), ", "))
}

// layerFiles are layers that were fetched, in files of their own.
type layerFiles struct {
	directory string
	fetched   map[v1.Hash]string
	left      int64 // bytes that may still be fetched
}

func (l *layerFiles) close() {
	if l.directory != "" {
		os.RemoveAll(l.directory)
	}
}

// fetch returns a file with the bytes of a layer, which hash to its digest.
func (l *layerFiles) fetch(ctx context.Context, from registryRepository, layer v1.Descriptor) (file string, err error) {
	if file, ok := l.fetched[layer.Digest]; ok {
		return file, nil
	}
	if l.directory == "" {
		if l.directory, err = os.MkdirTemp("", "vidimus-layers-"); err != nil {
			return "", err
		}
		l.fetched, l.left = make(map[v1.Hash]string), maxLayerBytes
	}
	if layer.Digest.Algorithm != "sha256" || layer.Size < 0 || layer.Size > l.left {
		return "", fmt.Errorf("layer %s has %d bytes: at most %d MiB of layers are read, by sha256 digests", layer.Digest, layer.Size, maxLayerBytes>>20)
	}
	l.left -= layer.Size
	body, _, err := from.client.Blob(ctx, from.repository, layer.Digest, 0)
	if err != nil {
		return "", opaque(fmt.Errorf("layer %s: %w", layer.Digest, err))
	}
	defer body.Close()
	out, err := os.CreateTemp(l.directory, "layer-")
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), io.LimitReader(body, layer.Size+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); n != layer.Size || got != layer.Digest.Hex {
		return "", fmt.Errorf("layer %s: the registry sent bytes that hash to sha256:%s", layer.Digest, got)
	}
	l.fetched[layer.Digest] = out.Name()
	return out.Name(), nil
}

// errNoFile says that an image has no such file.
var errNoFile = fmt.Errorf("there is no such file in the image: %w", fs.ErrNotExist)
