package signer

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
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

	// Blob returns the blob of a digest. An error that matches fs.ErrNotExist
	// says that there is none, and one that matches ErrTooLarge that it is
	// larger than limit. Whoever calls it hashes it.
	Blob(ctx context.Context, repository string, digest v1.Hash, limit int64) ([]byte, error)

	// Referrers returns what the registry lists as referring to digest, or
	// where it keeps no such list, what the index under the fallback tag does.
	// The list may be cut short: it serves to recognise our own.
	Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error)

	// PutBlob stores data under digest, which is that of data. On return
	// manifests may reference it.
	PutBlob(ctx context.Context, repository string, digest v1.Hash, data []byte) error

	// PutManifest stores data as mediaType and makes reference, a tag or the
	// digest of data, name it. listed says that the registry answered that it
	// lists the manifest as a referrer of its subject (OCI-Subject): where it
	// does not, its client must. An error that matches ErrChanged says that
	// the registry did not store it, since the tag was written meanwhile.
	PutManifest(ctx context.Context, repository, reference string, mediaType types.MediaType, data []byte) (listed bool, err error)
}

// ErrChanged says that a tag names something else than when it was last read.
var ErrChanged = errors.New("the tag was changed meanwhile")

// ErrTooLarge says that a blob is larger than was asked for.
var ErrTooLarge = errors.New("the blob is too large")

// Format is a form in which a signature or an attestation is stored.
type Format int

const (
	// FormatTag is a layer of an image under a tag, which every cosign and
	// podman read: simple signing under .sig, or an envelope under .att.
	FormatTag Format = iota
	// FormatBundle is a sigstore bundle that refers to its subject, which is
	// what cosign v3 looks for first.
	FormatBundle
)

// String returns the format's name on a command line.
func (f Format) String() string {
	switch f {
	case FormatTag:
		return "tag"
	case FormatBundle:
		return "bundle"
	}
	return fmt.Sprintf("Format(%d)", int(f))
}

// Config is what a Signer works with.
type Config struct {
	Registry Registry
	Key      crypto.Signer // ECDSA P-256, P-384 or P-521, Ed25519, or RSA

	// Formats are what is written for each request; nil for both.
	Formats []Format

	// Chain certifies Key: the certificate first, then those of the
	// authorities between it and the root, each in DER. nil says that the key
	// is known by itself.
	Chain [][]byte

	// Prover gets proof from others for each signature; nil for none.
	Prover Prover

	// Locker lets writers on this host take turns; nil for none.
	Locker Locker

	// DockerMediaTypes makes a new signature image one of Docker's media types
	// instead of OCI's, for registries that take nothing else. An image that
	// exists keeps its own.
	DockerMediaTypes bool

	// RecordTime has the config of a signature image say when it was last written, as
	// cosign does when it is asked to; without it, and by whoever adds to it later
	// without it, it says no time.
	RecordTime bool

	// Settle is the shortest time after which a write is looked at again; zero
	// is SettleFloor. Less is for who knows that nobody else writes.
	Settle time.Duration
}

// A Signer signs manifests with one key and attaches the signatures. It is
// safe for concurrent use.
type Signer struct {
	registry         Registry
	key              crypto.Signer
	formats          []Format
	chain            [][]byte
	prover           Prover
	locker           Locker
	dockerMediaTypes bool
	recordTime       bool
	settle           time.Duration
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
	formats := slices.Clone(c.Formats)
	if formats == nil {
		formats = []Format{FormatTag, FormatBundle}
	}
	for i, format := range formats {
		if format != FormatTag && format != FormatBundle || slices.Contains(formats[:i], format) {
			return nil, fmt.Errorf("signer: formats %v: want each of tag and bundle once at most", formats)
		}
	}
	return &Signer{c.Registry, c.Key, formats, c.Chain, c.Prover, c.Locker, c.DockerMediaTypes, c.RecordTime, cmp.Or(c.Settle, SettleFloor)}, nil
}

// Request asks for one signature, or one attestation.
type Request struct {
	// Subject is the digest of the manifest to sign.
	Subject v1.Hash
	// MediaType and Size are the subject's. A bundle names them; when they are
	// zero, they are taken from the subject in Repository.
	MediaType types.MediaType
	Size      int64
	// Repository is where the signature is stored, as the Registry takes it.
	Repository string
	// Reference is the name that the signature claims for the manifest.
	Reference string
	// Annotations are signed along; nil for none. An attestation has none.
	Annotations map[string]string

	// PredicateType makes it an attestation, and Predicate, a JSON object, is
	// what is attested.
	PredicateType string
	Predicate     json.RawMessage

	// Replace takes away, once the attestation is in place, what was there before of
	// the same PredicateType about Subject: layers under the tag and referrers, in
	// whichever format, whoever signed them. The Registry is to be a Deleter. What
	// others attach meanwhile stays, and so do two that replace at the same moment.
	Replace bool
}

// Result says what became of a Request in one format.
type Result struct {
	Request
	Format Format

	// Tag is where in Repository the signature is, or which lists it. It is
	// empty for a bundle that the registry lists itself.
	Tag string
	// Digest is of the manifest of the bundle; zero for a tag.
	Digest v1.Hash
	// Bundle is the bundle itself; nil for a tag.
	Bundle []byte

	// Kept is set when this key had already signed the same; nothing was
	// written then.
	Kept bool

	// Replaced is how many earlier attestations the Request took away, in all formats
	// together.
	Replaced int

	// Signatures is how many signatures, or referrers, were under Tag, ours
	// among them, when it was last read.
	Signatures int
}

// maxPayloadSize is the size of the largest payload, envelope or bundle that
// is made; verifiers read no larger one.
const maxPayloadSize = 1 << 20

// workers is how many signatures of one call are under way at once.
const workers = 4

// Tag returns the tag under which the signatures of subject are stored.
func Tag(subject v1.Hash) string { return FallbackTag(subject) + ".sig" }

// AttestationTag returns the tag under which the attestations about subject
// are stored.
func AttestationTag(subject v1.Hash) string { return FallbackTag(subject) + ".att" }

// FallbackTag returns the tag of the index that lists what refers to subject,
// where a registry does not list it itself. Source: distribution-spec.
func FallbackTag(subject v1.Hash) string { return subject.Algorithm + "-" + subject.Hex }

// Sign makes all that is requested, in every format, attaches it, and returns
// when each of it was found to have stayed, as the package comment says: the
// results of the first request first. On an error some may have been attached,
// and all may be asked for again: a signature that is there already is kept.
func (s *Signer) Sign(ctx context.Context, requests ...Request) ([]Result, error) {
	var pending []*pendingResult
	for _, request := range requests {
		for _, format := range s.formats {
			p := &pendingResult{Result: Result{Request: request, Format: format}}
			if err := s.check(request); err != nil {
				return nil, fmt.Errorf("sign %s@%s: %w", request.Repository, request.Subject, err)
			}
			pending = append(pending, p)
		}
	}
	before, err := s.earlierOf(ctx, requests)
	if err != nil {
		return nil, err
	}
	// Bundles first: what may be wrong with them shows before a tag is written.
	slices.SortStableFunc(pending, func(a, b *pendingResult) int { return int(b.Format) - int(a.Format) })
	if err := each(ctx, pending, s.begin); err != nil {
		return nil, err
	}
	var jobs []*job
	for _, p := range pending {
		if p.job != nil {
			jobs = append(jobs, p.job)
		}
	}
	if err := s.attachAll(ctx, jobs); err != nil {
		return nil, err
	}
	results := inOrder(pending, len(requests), len(s.formats))
	return results, s.replaceAll(ctx, before, pending, results)
}

// pendingResult is a result on its way, by a job unless it is there already.
type pendingResult struct {
	Result
	job  *job
	kept string // the layer's digest, when the attestation was there already
}

// ours is the digest of what says it: of an attestation's layer, or a bundle's manifest.
func (p *pendingResult) ours() string {
	switch {
	case p.Format == FormatBundle:
		return p.Digest.String()
	case p.job == nil:
		return p.kept
	}
	return p.job.addition.(*layerAddition).layer.Digest.String()
}

func (p *pendingResult) result() Result {
	if p.job != nil {
		return p.job.result
	}
	return p.Result
}

// inOrder returns results, which are sorted by format, by request.
func inOrder(pending []*pendingResult, requests, formats int) []Result {
	results := make([]Result, 0, len(pending))
	for request := range requests {
		for format := formats - 1; format >= 0; format-- {
			results = append(results, pending[format*requests+request].result())
		}
	}
	return results
}

// check finds what is wrong with a request before anything is written.
func (s *Signer) check(request Request) error {
	if _, err := v1.NewHash(request.Subject.String()); err != nil {
		return err
	}
	if request.Replace && request.PredicateType == "" {
		return errors.New("only an attestation replaces others, and this is a signature")
	}
	for _, format := range s.formats {
		if _, err := said(format, request); err != nil {
			return err
		}
	}
	return nil
}

// begin makes the job of a result, or finds that there is none to do.
func (s *Signer) begin(ctx context.Context, p *pendingResult) error {
	if p.Format == FormatBundle {
		return s.beginBundle(ctx, p)
	}
	document, err := said(p.Format, p.Request)
	if err != nil {
		return err
	}
	layer := &layerAddition{signer: s, repository: p.Repository, subject: p.Subject}
	if p.PredicateType == "" {
		p.Tag, layer.payload = Tag(p.Subject), document
	} else {
		p.Tag, layer.statement, layer.predicateType = AttestationTag(p.Subject), document, p.PredicateType
		if p.kept, err = s.findAttestation(ctx, p.Repository, p.Tag, document); err != nil || p.kept != "" {
			p.Kept = p.kept != ""
			return err
		}
	}
	p.job = newJob(p.Result, layer)
	return nil
}

func (p *pendingResult) about() Result { return p.Result }
func (j *job) about() Result           { return j.result }

// each runs do for every item, a few at once, and returns the first error.
func each[T interface{ about() Result }](ctx context.Context, items []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, item := range items {
		g.Go(func() error {
			if err := do(ctx, item); err != nil {
				about := item.about()
				return fmt.Errorf("attach the signature of %s to %s: %w", about.Subject, about.Repository, err)
			}
			return nil
		})
	}
	return g.Wait()
}
