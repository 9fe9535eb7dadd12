package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"vidimus/verifier/envelope"
)

// Registry is what signatures are read from and written to.
//
// Reads may be repeated by an implementation as it sees fit, and should show
// the last completed write. A write of a manifest should be tried once: one
// that is repeated late overwrites what was written in between.
type Registry interface {
	// Manifest returns the manifest that reference, a tag or a digest, names
	// in repository, at most 4 MiB. An error that matches fs.ErrNotExist says
	// that there is none, and that the registry could be trusted to tell.
	Manifest(ctx context.Context, repository, reference string) ([]byte, error)

	// PutBlob stores data under digest, which is that of data. On return
	// manifests may reference it.
	PutBlob(ctx context.Context, repository string, digest v1.Hash, data []byte) error

	// PutManifest stores data as mediaType and makes tag name it.
	PutManifest(ctx context.Context, repository, tag string, mediaType types.MediaType, data []byte) error
}

// Config is what a Signer works with.
type Config struct {
	Registry Registry
	Key      crypto.Signer // ECDSA P-256, P-384 or P-521, Ed25519, or RSA

	// Locker lets writers on this host take turns; nil for none.
	Locker Locker

	// DockerMediaTypes makes a new signature image one of Docker's media types
	// instead of OCI's, for registries that take nothing else. An image that
	// exists keeps its own.
	DockerMediaTypes bool
}

// A Signer signs manifests with one key and attaches the signatures. It is
// safe for concurrent use.
type Signer struct {
	registry         Registry
	key              crypto.Signer
	locker           Locker
	dockerMediaTypes bool
}

// New returns a Signer, or an error when the configuration has no registry or
// no key that can sign images.
func New(c Config) (*Signer, error) {
	if c.Registry == nil {
		return nil, errors.New("signer: no registry")
	}
	if c.Key == nil {
		return nil, errors.New("signer: no key")
	}
	if err := checkPublicKey(c.Key.Public()); err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &Signer{c.Registry, c.Key, c.Locker, c.DockerMediaTypes}, nil
}

// Request asks for one signature.
type Request struct {
	// Subject is the digest of the manifest to sign.
	Subject v1.Hash
	// Repository is where the signature is stored, as the Registry takes it.
	Repository string
	// Reference is the name that the signature claims for the manifest.
	Reference string
	// Annotations are signed along; nil for none.
	Annotations map[string]string
}

// Result says what became of a Request.
type Result struct {
	Request
	Tag string // where in Repository the signature is

	// Kept is set when this key had already signed the same payload; nothing
	// was written then.
	Kept bool

	// Signatures is how many signatures were under Tag, ours among them, when
	// it was last read.
	Signatures int
}

// maxPayloadSize is the size of the largest payload that is made; verifiers
// read no larger one.
const maxPayloadSize = 1 << 20

// workers is how many signatures of one call are under way at once.
const workers = 4

// Tag returns the tag under which the signatures of subject are stored.
func Tag(subject v1.Hash) string {
	return subject.Algorithm + "-" + subject.Hex + ".sig"
}

// Sign makes all requested signatures, attaches them, and returns when each of
// them was found to have stayed, as the package comment says. On an error some
// may have been attached, and all may be asked for again: a signature that is
// there already is kept.
func (s *Signer) Sign(ctx context.Context, requests ...Request) ([]Result, error) {
	jobs := make([]*job, len(requests))
	for i, request := range requests {
		j, err := s.newJob(request)
		if err != nil {
			return nil, fmt.Errorf("sign %s@%s: %w", request.Repository, request.Subject, err)
		}
		jobs[i] = j
	}
	if err := s.attachAll(ctx, jobs); err != nil {
		return nil, err
	}
	results := make([]Result, len(jobs))
	for i, j := range jobs {
		results[i] = j.result
	}
	return results, nil
}

// newJob makes the payload and the signature of a request.
func (s *Signer) newJob(request Request) (*job, error) {
	if _, err := v1.NewHash(request.Subject.String()); err != nil {
		return nil, err
	}
	payload := envelope.Payload{
		Form:      envelope.Modern,
		Reference: request.Reference,
		Digest:    request.Subject.String(),
	}
	if len(request.Annotations) > 0 {
		payload.Annotations = make(map[string]any, len(request.Annotations))
		for k, v := range request.Annotations {
			payload.Annotations[k] = v
		}
	}
	data, err := envelope.EncodePayload(payload)
	if err != nil {
		return nil, err
	}
	if len(data) > maxPayloadSize {
		return nil, fmt.Errorf("the payload would be larger than %d bytes", maxPayloadSize)
	}
	signature, err := signPayload(s.key, data)
	if err != nil {
		return nil, err
	}
	return s.signatureJob(request, data, signature)
}

// each runs do for every job, a few at once, and returns the first error.
func each(ctx context.Context, jobs []*job, do func(context.Context, *job) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, j := range jobs {
		g.Go(func() error {
			if err := do(ctx, j); err != nil {
				return fmt.Errorf("attach %s to %s: %w", j.what, j.result.Repository, err)
			}
			return nil
		})
	}
	return g.Wait()
}
