package carrier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// A Layout is a directory as the OCI image layout has it, with one image and its
// evidence. What cosign save writes is one: it marks what the entries of the index
// are by the annotation "kind" (cosign pkg/oci/layout/index.go). So are ours, and
// they name the tags of evidence besides, by the annotation that the image layout
// has for names.
//
// No name in a layout leads out of its directory, by links neither.
type Layout struct {
	name    string
	root    *os.Root
	entries []v1.Descriptor
	image   v1.Descriptor
	// referrers are the manifests among the blobs that point at a subject: cosign
	// v3 saves them without naming them in the index.
	referrers map[v1.Hash][]v1.Descriptor
}

const (
	kindAnnotation = "kind"
	nameAnnotation = "org.opencontainers.image.ref.name"

	kindImage        = "dev.cosignproject.cosign/image"
	kindIndex        = "dev.cosignproject.cosign/imageIndex"
	kindSignatures   = "dev.cosignproject.cosign/sigs"
	kindAttestations = "dev.cosignproject.cosign/atts"

	layoutFile  = "oci-layout"
	indexFile   = "index.json"
	blobsFolder = "blobs/sha256"

	// maxFiles is how many files of a layout are looked at for referrers.
	maxFiles = 100_000
)

// ErrNotLayout says that a directory is no image layout with one image in it.
var ErrNotLayout = errors.New("not an image layout with one image")

// OpenLayout opens the directory dir, to be read.
func OpenLayout(dir string) (*Layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &Layout{name: dir, root: root, referrers: make(map[v1.Hash][]v1.Descriptor)}
	if err := errors.Join(l.readIndex(), l.findReferrers()); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return l, nil
}

// Close frees the directory.
func (l *Layout) Close() error { return l.root.Close() }

// Image returns the digest of the image that is in the layout.
func (l *Layout) Image() v1.Hash { return l.image.Digest }

func (l *Layout) readIndex() error {
	mark, err := l.read(layoutFile, 4<<10)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	if json.Unmarshal(mark, &version) != nil || version.Version != "1.0.0" {
		return fmt.Errorf("%w: %s says version %q, want 1.0.0", ErrNotLayout, layoutFile, version.Version)
	}
	data, err := l.read(indexFile, MaxManifestSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	var index v1.IndexManifest
	if err := envelope.CheckJSON(data, envelope.MaxDepth); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotLayout, indexFile, err)
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotLayout, indexFile, err)
	}
	l.entries = index.Manifests
	var images, others []v1.Descriptor
	for _, entry := range l.entries {
		switch kind := entry.Annotations[kindAnnotation]; {
		case kind == kindImage || kind == kindIndex:
			images = append(images, entry)
		case kind == "":
			others = append(others, entry)
		}
	}
	if len(images) == 0 {
		images = others // of another tool
	}
	if len(images) != 1 {
		return fmt.Errorf("%w: %s names %d", ErrNotLayout, indexFile, len(images))
	}
	l.image = images[0]
	return nil
}

// read reads a small file.
func (l *Layout) read(name string, limit int64) ([]byte, error) {
	f, err := l.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return data, err
}

// findReferrers looks which blobs are manifests that point at a subject.
func (l *Layout) findReferrers() error {
	folder, err := l.root.Open(blobsFolder)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	defer folder.Close()
	entries, err := folder.ReadDir(maxFiles + 1)
	if err != nil && err != io.EOF {
		return err
	}
	if len(entries) > maxFiles {
		return fmt.Errorf("more than %d blobs", maxFiles)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return bytes.Compare([]byte(a.Name()), []byte(b.Name())) })
	for _, entry := range entries {
		digest, err := v1.NewHash("sha256:" + entry.Name())
		info, statErr := entry.Info()
		if err != nil || statErr != nil || !info.Mode().IsRegular() || info.Size() > MaxManifestSize {
			continue
		}
		data, err := l.read(blobFile(digest), MaxManifestSize)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(data, []byte("{")) {
			continue
		}
		n, err := parse(Manifest{Data: data, MediaType: types.OCIManifestSchema1}, digest, l)
		if err != nil || n.Subject == (v1.Hash{}) {
			continue
		}
		l.referrers[n.Subject] = append(l.referrers[n.Subject], n.Descriptor())
	}
	return nil
}

func blobFile(digest v1.Hash) string { return path.Join(blobsFolder, digest.Hex) }

// Name implements Place.
func (l *Layout) Name() string { return l.name }

// Manifest implements Place. A tag is one of evidence.
func (l *Layout) Manifest(_ context.Context, reference string) (Manifest, error) {
	if digest, err := v1.NewHash(reference); err == nil {
		return l.manifest(digest, l.mediaType(digest))
	}
	for _, entry := range l.entries {
		if entry.Digest != l.image.Digest && l.tagOf(entry) == reference {
			return l.manifest(entry.Digest, entry.MediaType)
		}
	}
	return Manifest{}, &fs.PathError{Op: "open", Path: reference, Err: fs.ErrNotExist}
}

// tagOf returns the tag that an entry of the index is under: what cosign saves are
// the signatures and attestations of the image.
func (l *Layout) tagOf(entry v1.Descriptor) string {
	if tag := entry.Annotations[nameAnnotation]; tag != "" {
		return tag
	}
	switch entry.Annotations[kindAnnotation] {
	case kindSignatures:
		return Tag(l.image.Digest, ".sig")
	case kindAttestations:
		return Tag(l.image.Digest, ".att")
	}
	return ""
}

func (l *Layout) mediaType(digest v1.Hash) types.MediaType {
	for _, entry := range l.entries {
		if entry.Digest == digest {
			return entry.MediaType
		}
	}
	return types.OCIManifestSchema1
}

func (l *Layout) manifest(digest v1.Hash, mediaType types.MediaType) (Manifest, error) {
	if digest.Algorithm != "sha256" {
		return Manifest{}, fmt.Errorf("%s: only sha256 digests are supported", digest)
	}
	data, err := l.read(blobFile(digest), MaxManifestSize)
	if err != nil {
		return Manifest{}, err
	}
	if got := digestOf(data); got != digest {
		return Manifest{}, fmt.Errorf("%s: the file holds other bytes, whose digest is %s", digest, got)
	}
	return Manifest{data, mediaType}, nil
}

// Referrers implements Place.
func (l *Layout) Referrers(_ context.Context, digest v1.Hash) ([]v1.Descriptor, error) {
	return l.referrers[digest], nil
}

// Blob implements Place.
func (l *Layout) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	f, err := l.root.Open(blobFile(digest))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no regular file", blobFile(digest))
	}
	return f, nil
}

// Check hashes every blob of g, so that what is wrong is known before anything is
// written anywhere.
func Check(ctx context.Context, g *Graph) error {
	seen := make(map[v1.Hash]bool)
	for n := range g.All() {
		for _, desc := range n.Blobs {
			if seen[desc.Digest] {
				continue
			}
			seen[desc.Digest] = true
			if err := check(ctx, n.From, desc); err != nil {
				return err
			}
		}
	}
	return nil
}

func check(ctx context.Context, place Place, desc v1.Descriptor) error {
	body, err := openBlob(ctx, place, desc)
	if errors.Is(err, fs.ErrNotExist) && !desc.MediaType.IsDistributable() {
		return nil // of a layer that is fetched from elsewhere
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	return ctx.Err()
}
