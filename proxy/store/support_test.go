package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample returns size bytes that are the same for the same seed.
func sample(seed byte, size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func digestOf(data []byte) v1.Hash { return key(sha256.Sum256(data)).digest() }

// upstream is an origin that says what was asked of it.
type upstream struct {
	data    []byte
	size    int64 // what it tells; 0: the length of data
	calls   atomic.Int64
	offsets chan int64 // if set, the offset of each call
}

func (u *upstream) from(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
	u.calls.Add(1)
	if u.offsets != nil {
		u.offsets <- offset
	}
	size := u.size
	if size == 0 {
		size = int64(len(u.data))
	}
	return io.NopCloser(bytes.NewReader(u.data[min(offset, int64(len(u.data))):])), size, nil
}

// forbidden is the origin of what must not be fetched.
func forbidden(t *testing.T) origin {
	return func(context.Context, int64) (io.ReadCloser, int64, error) {
		t.Error("the upstream was asked")
		return nil, 0, errors.New("forbidden")
	}
}

// piped is an origin whose body the test writes, and which does not care about
// contexts.
func piped(size int64) (origin, *io.PipeWriter, *atomic.Int64) {
	r, w := io.Pipe()
	calls := new(atomic.Int64)
	return func(context.Context, int64) (io.ReadCloser, int64, error) {
		calls.Add(1)
		return r, size, nil
	}, w, calls
}

// brokenAfter yields data and then err.
func brokenAfter(data []byte, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(data), &failing{err}))
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// quiet waits until no transfer and no Put is under way.
func quiet(s *Store) { s.running.Wait() }

// owner is whom the tests fetch for, unless they are about several.
const owner = "ghcr.io/acme/web"

func mustFetch(t *testing.T, s *Store, data []byte, from origin) {
	t.Helper()
	r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	mustRead(t, r, size, data)
}

func mustRead(t *testing.T, r io.ReadCloser, size int64, want []byte) {
	t.Helper()
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v after %d bytes", err, len(got))
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes that are not the %d that were stored", len(got), len(want))
	}
	if size >= 0 && size != int64(len(want)) {
		t.Fatalf("size was told as %d, is %d", size, len(want))
	}
}

// store puts data, through a transfer, and waits until it is held.
func mustStore(t *testing.T, s *Store, data []byte) {
	t.Helper()
	mustFetch(t, s, data, (&upstream{data: data}).from)
	quiet(s)
	mustHold(t, s, data)
}

func mustHold(t *testing.T, s *Store, data []byte) {
	t.Helper()
	r, size, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	mustRead(t, r, size, data)
}

func mustMiss(t *testing.T, s *Store, digest v1.Hash) {
	t.Helper()
	r, _, err := s.Open(t.Context(), digest)
	if err == nil {
		r.Close()
		t.Fatal("content is held that should not be")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open: %v, want fs.ErrNotExist", err)
	}
}

// mustOpen opens a store that the test closes.
func mustOpen(t *testing.T, config Config) *Store {
	t.Helper()
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// smallLimits lets tests reach the limits.
func smallLimits(change func(*limits)) limits {
	l := defaultLimits()
	change(&l)
	return l
}

// underWay has something under way of which a part has been written to a
// temporary file.
func underWay(t *testing.T, s *Store) {
	t.Helper()
	from, body, _ := piped(-1)
	r, _, err := s.Fetch(t.Context(), owner, digestOf(nil), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		body.Close()
		r.Close()
	})
	// When the last of so many has been taken, the first has been written.
	body.Write(make([]byte, (maxDeferred+5)*chunkSize))
}

// lacks skips a test for which the system lacks something, and fails it where
// VIDIMUS_E2E=require says that nothing may be missing.
func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("VIDIMUS_E2E") == "require" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
