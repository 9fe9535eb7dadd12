package proxy

import (
	"context"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Pushable is an upstream registry that content is pushed to.
type Pushable interface {
	Uploads
	Writer
}

// Uploads takes blobs. A location is where an upload goes on, an opaque text of the
// upstream's that is kept from clients. Only StartUpload and UploadStatus may be
// repeated by an implementation.
type Uploads interface {
	// StartUpload begins an upload; or, with a digest to mount, takes that blob over
	// from the repository from, when mounted is true.
	StartUpload(ctx context.Context, repository string, mount v1.Hash, from string) (location string, mounted bool, err error)

	// AppendUpload sends a piece of size bytes (-1: not known), of which the upload
	// holds offset already. ranged has the upstream refuse it when it holds
	// something else. held is how much the upload holds then, -1 when the upstream
	// does not say. body is read once, and not after the return. It takes as long
	// as body does, but not as long as an upstream that takes nothing.
	AppendUpload(ctx context.Context, repository, location string, offset, size int64, ranged bool, body io.Reader) (next string, held int64, err error)

	// CommitUpload makes a blob of an upload. It returns nil when the repository
	// holds the blob then.
	CommitUpload(ctx context.Context, repository, location string, digest v1.Hash) error

	// UploadStatus asks how much an upload holds. It matches fs.ErrNotExist when
	// there is none.
	UploadStatus(ctx context.Context, repository, location string) (next string, held int64, err error)

	// CancelUpload gives an upload up.
	CancelUpload(ctx context.Context, repository, location string) error
}

// Writer takes manifests.
type Writer interface {
	// PutManifest stores content under reference, a tag or its digest; by tag it is
	// tried once. subject tells that the upstream answered with OCI-Subject. What
	// failed may have happened.
	PutManifest(ctx context.Context, repository, reference, mediaType string, content []byte) (subject bool, err error)

	// ReadTag returns the bytes that a tag names and their Content-Type, to be replaced.
	// version is the upstream's name for what it answered, with an error that matches
	// fs.ErrNotExist as well; empty when it gave none.
	ReadTag(ctx context.Context, repository, tag string) (body []byte, contentType, version string, err error)

	// PutManifestOver is PutManifest to a tag that must still be what ReadTag found. Its
	// error is a Refusal with status 412 when the upstream looked, and it is not.
	PutManifestOver(ctx context.Context, repository, tag, mediaType string, content []byte, version string) (subject bool, err error)

	// DeleteManifest removes a tag, or a manifest with all its tags. It matches
	// fs.ErrNotExist when there is no such thing.
	DeleteManifest(ctx context.Context, repository, reference string) error
}

// Refusal is what a Fault may be besides: it tells how the upstream answered.
type Refusal interface {
	Fault
	Status() int  // 0 when there was no answer
	Code() string // of the distribution specification, or empty
}

// Signer signs with the key of one authority what is pushed to one upstream.
type Signer interface {
	// Sign attaches a signature to each of the manifests and returns nil when all
	// of them were seen to have stayed. A signature by the same key over the same
	// claims, Passing annotations left aside, is kept, and none is added. Nothing
	// of what others attached is lost. On an error some may be attached, and all
	// may be asked for again.
	Sign(ctx context.Context, request SignRequest) error
}

// Blocked is what a Signer's error may be: a tag of the repository holds what no
// signature can be added to, and will until somebody removes it.
type Blocked interface {
	error
	BlockedBy() string // the tag
}

// SignRequest is what a Signer signs.
type SignRequest struct {
	Repository  string // canonical
	Subjects    []SignSubject
	Annotations map[string]string
	// Passing are the annotations that say when and by whom: another value of
	// theirs makes no other claim.
	Passing []string
	Formats []string // how the signature is written: tag, bundle
}

// SignSubject is one manifest, and the name that its signature claims for it.
type SignSubject struct {
	Digest    v1.Hash
	Reference string
}

// Merge returns the union of two signature artifacts, that which is pushed to a tag
// and that which the tag holds: manifest, and its config, nil when that is one of
// the two that the upstream has. What is held stays first; when the pushed one begins with
// all of it, it is returned as it is. An error says that they cannot be joined.
type Merge func(pushed, held []byte) (manifest, config []byte, err error)

// Limits of what is pushed, beside those of manifests.
const (
	maxUploadSize = 64 << 30         // bytes of one blob
	maxUploads    = 256              // uploads that are begun, or pieces of them on their way, at once
	maxPushing    = 64               // manifests that are read, signed and put at once
	pushPatience  = 30 * time.Second // how long one waits to be among them, and for what it sends
	uploadKept    = 24 * time.Hour   // how long an upload may take
	readPatience  = writePatience    // how long a client may send nothing of a blob
	slowestPush   = 8 << 10          // bytes a second that a client sends at least, on average
	signTime      = 2 * time.Minute
	pushTime      = 10 * time.Minute // how long one manifest may take, or one deletion, with all that is read and written for it
	maxMerges     = 50               // how often one signature artifact is merged
)
