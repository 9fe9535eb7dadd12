package policy

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// errBudget says that a decision has read as much as one may. What was read
// before counts; the rest is as if it were not there, which is a denial and not
// a doubt, for asking again would end in the same place.
var errBudget = errors.New("a decision reads no more than this")

// budget is a Registry that stops answering when one decision has made
// verifier.DecisionRequests reads or read verifier.DecisionBytes. It is safe
// for concurrent use.
type budget struct {
	registry verifier.Registry

	mu       sync.Mutex
	requests int   // left
	bytes    int64 // left
	failed   bool  // the registry could not tell something that was asked
}

func newBudget(registry verifier.Registry) *budget {
	return &budget{registry: registry, requests: verifier.DecisionRequests, bytes: verifier.DecisionBytes}
}

// Manifest reads a manifest. Its size is known afterwards, so the last one may
// go over the limit by its own size.
func (b *budget) Manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	if err := b.spend(1, 0); err != nil {
		return nil, err
	}
	data, err := b.registry.Manifest(ctx, repository, reference)
	b.account(int64(len(data)), err)
	return data, err
}

// Referrers reads a list of referrers, as if it had the size that it may have at
// most. It is one read, however many pages it has; the registry bounds these.
func (b *budget) Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	if err := b.spend(1, verifier.MaxListSize); err != nil {
		return nil, err
	}
	listed, err := b.registry.Referrers(ctx, repository, digest)
	if !errors.Is(err, verifier.ErrMore) {
		b.account(0, err)
	}
	return listed, err
}

// Blob reads a blob, unless it is larger than what is left.
func (b *budget) Blob(ctx context.Context, repository string, desc v1.Descriptor) ([]byte, error) {
	if err := b.spend(1, max(desc.Size, 0)); err != nil {
		return nil, err
	}
	data, err := b.registry.Blob(ctx, repository, desc)
	b.account(0, err)
	return data, err
}

// CandidateFound implements verifier.Expectant for a registry that does.
func (b *budget) CandidateFound() {
	if expectant, ok := b.registry.(verifier.Expectant); ok {
		expectant.CandidateFound()
	}
}

func (b *budget) spend(requests int, bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests < requests || b.bytes <= 0 || b.bytes < bytes {
		return errBudget
	}
	b.requests -= requests
	b.bytes -= bytes
	return nil
}

// account books what a read has come to.
func (b *budget) account(bytes int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= bytes
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.failed = true
	}
}

// caused reports whether failure is the budget's own doing and nothing else: an
// error may join several, one of which is a doubt.
func (b *budget) caused(failure verifier.SourceFailure) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.failed && errors.Is(failure.Err, errBudget)
}
