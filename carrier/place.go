package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// MaxManifestSize is how many bytes of a manifest are read.
	MaxManifestSize = 4 << 20
	// MaxManifests is how many manifests an image and its evidence may have.
	MaxManifests = 4096
	// MaxBytes is how many bytes they may have together.
	MaxBytes = 128 << 20
	// MaxDepth is how deep indexes nest, and evidence about evidence.
	MaxDepth = 6

	// maxSmall is how many bytes of a blob are read to see what it is.
	maxSmall = 1 << 20
	// workers is how many requests to one place are under way at once.
	workers = 6
)

// Manifest is one as it was read, or is to be written.
type Manifest struct {
	Data []byte
	// MediaType is what the place says it is; empty when it does not.
	MediaType types.MediaType
}

// Place is where an image is read from: a repository of a registry, or a
// directory. It is not trusted. It is called by several goroutines at once.
//
// An error that matches fs.ErrNotExist says that there is no such thing; one that
// matches fs.ErrPermission that the place does not tell.
type Place interface {
	// Name is what people call it.
	Name() string

	// Manifest returns what reference, a tag or a digest, names: at most
	// MaxManifestSize+1 bytes.
	Manifest(ctx context.Context, reference string) (Manifest, error)

	// Referrers returns what the referrers API lists for digest. The error
	// matches fs.ErrNotExist when there is no such API.
	Referrers(ctx context.Context, digest v1.Hash) ([]v1.Descriptor, error)

	// Blob opens a blob.
	Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error)
}

// Target is where an image is written to.
type Target interface {
	Place

	// HasBlob reports whether the target has a blob.
	HasBlob(ctx context.Context, digest v1.Hash) (bool, error)

	// PutBlob stores the blob that desc describes, which open reads from the
	// place from, hashed as it comes: an error of the reader must lead to no
	// blob. It may call open again after a failure, and not at all when the
	// target can take the blob over from where it is; that it reports.
	PutBlob(ctx context.Context, desc v1.Descriptor, from Place, open func() (io.ReadCloser, error)) (mounted bool, err error)

	// PutManifest stores a manifest under a tag, or its digest. It is tried once.
	// took reports whether the target said that it lists the manifest among the
	// referrers of its subject.
	PutManifest(ctx context.Context, reference string, m Manifest) (took bool, err error)
}

// fetch reads a manifest, and its digest from its bytes.
func fetch(ctx context.Context, place Place, reference string) (Manifest, v1.Hash, error) {
	m, err := place.Manifest(ctx, reference)
	if err != nil {
		return Manifest{}, v1.Hash{}, fmt.Errorf("fetch %s of %s: %w", reference, place.Name(), err)
	}
	if len(m.Data) > MaxManifestSize {
		return Manifest{}, v1.Hash{}, fmt.Errorf("fetch %s of %s: larger than %d bytes", reference, place.Name(), MaxManifestSize)
	}
	digest := digestOf(m.Data)
	if strings.Contains(reference, ":") && reference != digest.String() {
		return Manifest{}, v1.Hash{}, fmt.Errorf("fetch %s of %s: it sent other bytes, whose digest is %s", reference, place.Name(), digest)
	}
	return m, digest, nil
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// ReadBlob returns a whole blob of at most limit bytes, hashed.
func ReadBlob(ctx context.Context, place Place, desc v1.Descriptor, limit int64) ([]byte, error) {
	if desc.Size < 0 || desc.Size > limit {
		return nil, fmt.Errorf("blob %s of %s: declared with %d bytes, at most %d are read", desc.Digest, place.Name(), desc.Size, limit)
	}
	body, err := openBlob(ctx, place, desc)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// openBlob opens a blob as a reader that ends with an error instead of handing out
// the last byte of one that is not what desc says.
func openBlob(ctx context.Context, place Place, desc v1.Descriptor) (io.ReadCloser, error) {
	if desc.Digest.Algorithm != "sha256" {
		return nil, fmt.Errorf("blob %s of %s: only sha256 digests are supported", desc.Digest, place.Name())
	}
	body, err := place.Blob(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("blob %s of %s: %w", desc.Digest, place.Name(), err)
	}
	return &hashed{from: body, hash: sha256.New(), left: desc.Size, want: desc.Digest, name: place.Name()}, nil
}

// hashed reads a blob and hashes it on the way.
type hashed struct {
	from io.ReadCloser
	hash hash.Hash
	left int64
	want v1.Hash
	name string
	err  error
}

// Read implements io.Reader.
func (h *hashed) Read(p []byte) (int, error) {
	if h.err != nil || len(p) == 0 {
		return 0, h.err
	}
	if h.left == 0 {
		h.err = h.end()
		return 0, h.err
	}
	if int64(len(p)) > h.left {
		p = p[:h.left]
	}
	n, err := h.from.Read(p)
	h.hash.Write(p[:n])
	h.left -= int64(n)
	switch {
	case h.left == 0: // the last bytes are handed out only if all are right
		if h.err = h.end(); h.err != io.EOF {
			return 0, h.err
		}
		return n, nil
	case err == io.EOF:
		h.err = fmt.Errorf("blob %s of %s: ends %d bytes too early", h.want, h.name, h.left)
		return n, h.err
	case err != nil:
		h.err = fmt.Errorf("blob %s of %s: %w", h.want, h.name, err)
		return n, h.err
	}
	return n, nil
}

// end returns io.EOF when what was read is what was wanted.
func (h *hashed) end() error {
	if got := hex.EncodeToString(h.hash.Sum(nil)); got != h.want.Hex {
		return fmt.Errorf("blob %s of %s: it sent other bytes, whose digest is sha256:%s", h.want, h.name, got)
	}
	return io.EOF
}

// Close implements io.Closer.
func (h *hashed) Close() error { return h.from.Close() }
