package carrier

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Save writes g into the directory dir, which is made, or is an image layout
// already: then what it names is replaced, and blobs that are there are kept when
// they are what they should be. name is what the layout calls the image; it may be
// empty. The index, which makes all of it visible, is written last.
func Save(ctx context.Context, g *Graph, dir, name string, progress func(done, of int64)) (Copied, error) {
	root, err := openForSaving(dir)
	if err != nil {
		return Copied{}, err
	}
	defer root.Close()
	target := &saving{dir, root}
	c := &copying{Plan: Plan{Image: target, Evidence: target, Progress: progress}, root: g.Root}
	chosen := make(map[*Node]bool)
	for n := range g.All() {
		chosen[n] = true
	}
	if err := c.blobs(ctx, chosen); err != nil {
		return c.done, err
	}
	var group errgroup.Group
	group.SetLimit(workers)
	for n := range chosen {
		group.Go(func() error { return target.write(blobFile(n.Digest), n.Data) })
	}
	if err := group.Wait(); err != nil {
		return c.done, err
	}
	c.done.Manifests = len(chosen)
	index, err := json.Marshal(indexOf(g, name))
	if err != nil {
		return c.done, err
	}
	if err := target.write(layoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return c.done, err
	}
	return c.done, target.write(indexFile, index)
}

// indexOf returns the index of a layout: the image, what is under tags, and
// referrers.
func indexOf(g *Graph, name string) v1.IndexManifest {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	add := func(n *Node, annotations map[string]string) {
		desc := v1.Descriptor{MediaType: n.MediaType, Size: int64(len(n.Data)), Digest: n.Digest, Annotations: annotations}
		if n.Subject != (v1.Hash{}) {
			desc.ArtifactType = n.ArtifactType
		}
		index.Manifests = append(index.Manifests, desc)
	}
	annotations := map[string]string{kindAnnotation: kindImage}
	if g.Root.IsIndex() {
		annotations[kindAnnotation] = kindIndex
	}
	if name != "" {
		annotations[nameAnnotation] = name
	}
	add(g.Root, annotations)
	for n := range g.All() {
		for _, t := range n.Tagged {
			annotations := map[string]string{nameAnnotation: t.Tag}
			switch t.Tag { // cosign takes the first of a kind as the image's
			case Tag(g.Root.Digest, ".sig"):
				annotations[kindAnnotation] = kindSignatures
			case Tag(g.Root.Digest, ".att"):
				annotations[kindAnnotation] = kindAttestations
			}
			add(t.Node, annotations)
		}
	}
	// Referrers are found by their subjects. They are named so that other tools
	// keep them, as something else than an image.
	for n := range g.All() {
		for _, r := range n.Referrers {
			add(r, map[string]string{kindAnnotation: kindReferrer})
		}
	}
	return index
}

// kindReferrer is a kind of ours: cosign has none for it.
const kindReferrer = "dev.vidimus/referrer"

// openForSaving opens a directory that is new, empty, or an image layout.
func openForSaving(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err == nil && len(entries) > 0 {
		if _, err = root.Stat(layoutFile); err != nil {
			err = fmt.Errorf("%s: neither empty nor %w; name another directory", dir, ErrNotLayout)
		}
	}
	if err == nil {
		err = root.MkdirAll(blobsFolder, 0o777)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// saving is a directory as a Target of blobs; manifests are written by Save.
type saving struct {
	name string
	root *os.Root
}

// Name implements Place.
func (s *saving) Name() string { return s.name }

var errWriteOnly = errors.New("a directory that is being written is not read")

// Manifest implements Place.
func (s *saving) Manifest(context.Context, string) (Manifest, error) { return Manifest{}, errWriteOnly }

// Referrers implements Place.
func (s *saving) Referrers(context.Context, v1.Hash) ([]v1.Descriptor, error) {
	return nil, errWriteOnly
}

// Blob implements Place.
func (s *saving) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	return s.root.Open(blobFile(digest))
}

// HasBlob implements Target. What is there is believed once it was hashed.
func (s *saving) HasBlob(ctx context.Context, digest v1.Hash) (bool, error) {
	if digest.Algorithm != "sha256" {
		return false, fmt.Errorf("%s: only sha256 digests are supported", digest)
	}
	info, err := s.root.Stat(blobFile(digest))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return check(ctx, s, v1.Descriptor{Digest: digest, Size: info.Size()}) == nil, ctx.Err()
}

// PutBlob implements Target.
func (s *saving) PutBlob(_ context.Context, desc v1.Descriptor, _ Place, open func() (io.ReadCloser, error)) (bool, error) {
	body, err := open()
	if err != nil {
		return false, err
	}
	defer body.Close()
	return false, s.store(blobFile(desc.Digest), body)
}

// PutManifest implements Target.
func (s *saving) PutManifest(context.Context, string, Manifest) (bool, error) {
	return false, errWriteOnly
}

func (s *saving) write(name string, data []byte) error { return s.store(name, bytes.NewReader(data)) }

// store writes a file whole, or not at all.
func (s *saving) store(name string, from io.Reader) error {
	temporary := ".vidimus-" + rand.Text()
	f, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.root.Rename(temporary, name)
	}
	if err != nil {
		err = errors.Join(err, s.root.Remove(temporary))
	}
	return err
}
