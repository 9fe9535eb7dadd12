package store

import (
	"context"
	"errors"
	"io"
)

// errLost is why a transfer of held content ends that cannot be read. It has
// been removed.
var errLost = errors.New("store: held content cannot be read")

// look hashes what lies on the shelf. It returns nil when that is right.
func (t *transfer) look(ctx context.Context) error {
	select {
	case t.store.looks <- struct{}{}:
		defer func() { <-t.store.looks }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.update(func() { t.phase = arriving })
	err := t.pass(ctx, &shelfFeed{content: t.held}, func(got key) error {
		if got != t.key {
			t.store.rotten(t.key, t.held)
			return ErrRotten
		}
		t.update(func() { t.phase = complete })
		return nil
	})
	if err != nil {
		switch {
		case errors.Is(err, ErrRotten):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return t.unreadable(err)
	}
	if after, err := t.held.identity(); err == nil && after == t.held.found() {
		t.seal(after)
	}
	return nil
}

// unreadable removes what cannot be read.
func (t *transfer) unreadable(why error) error {
	t.store.log.Warn("held content cannot be read and is removed", "digest", t.key.String(), "error", why)
	t.store.drop(t.key, t.held)
	return errLost
}

// shelfFeed reads held content in order.
type shelfFeed struct {
	content content
	offset  int64
}

func (f *shelfFeed) size() int64 { return f.content.size() }

func (f *shelfFeed) read(ctx context.Context, p []byte) (int, error) {
	rest := f.content.size() - f.offset
	if rest <= 0 {
		return 0, io.EOF
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	n, err := f.content.ReadAt(p[:min(int64(len(p)), rest)], f.offset)
	f.offset += int64(n)
	if n > 0 {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}
