package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"
)

func testResume(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	cuts := []int{0, 1, 70000, 200000, len(data)}
	var offsets []int64
	from := func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
		offsets = append(offsets, offset)
		end := cuts[len(offsets)]
		return brokenAfter(data[offset:end], io.ErrUnexpectedEOF), int64(len(data)), nil
	}
	mustFetch(t, s, data, from)
	quiet(s)
	mustHold(t, s, data)
	if want := []int64{0, 1, 70000, 200000}; !slices.Equal(offsets, want) {
		t.Errorf("offsets %v, want %v", offsets, want)
	}
}

func testBroken(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	reset := errors.New("connection reset")
	calls := 0
	from := func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
		calls++
		if calls%2 == 0 {
			return nil, 0, reset // a resumption that does not even begin counts too
		}
		return brokenAfter(data[offset:offset+100000], reset), -1, nil
	}
	if got, err := readFetch(t, s, data, int64(len(data)), from); !errors.Is(err, reset) {
		t.Errorf("read %d bytes and then %v", len(got), err)
	}
	quiet(s)
	if calls != 1+MaxResumes {
		t.Errorf("the upstream was asked %d times", calls)
	}
	mustMiss(t, s, digestOf(data))
	mustStore(t, s, data)
}

func testMismatch(t *testing.T, s *Store) {
	right := sample(1, 300<<10)
	flipped := func(at int) []byte {
		data := slices.Clone(right)
		data[at] ^= 1
		return data
	}
	size := int64(len(right))
	for name, row := range map[string]struct {
		data       []byte
		told, size int64 // by the caller, by the upstream
	}{
		"the first byte differs":        {flipped(0), size, size},
		"a byte in the middle differs":  {flipped(150000), size, -1},
		"the last byte differs":         {flipped(len(right) - 1), size, size},
		"the last differs, size unsaid": {flipped(len(right) - 1), -1, -1},
		"a byte is missing":             {right[:len(right)-1], size, -1},
		"all is missing":                {nil, size, -1},
		"a byte is missing, unsaid":     {right[:len(right)-1], -1, -1},
		"there is a byte more":          {append(slices.Clone(right), 0), size, -1},
		"there is a lot more":           {append(slices.Clone(right), right...), size, size},
		"there is more, unsaid":         {append(slices.Clone(right), 0), -1, -1},
		"another size is announced":     {right, size, size + 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := &upstream{data: row.data, size: row.size}
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					got, err := readFetch(t, s, right, row.told, u.from)
					if _, ok := errors.AsType[*MismatchError](err); !ok {
						t.Errorf("%v, want a mismatch", err)
					}
					if len(got) >= len(right) {
						t.Errorf("%d bytes were handed out", len(got))
					}
				})
			}
			all.Wait()
			quiet(s)
			mustMiss(t, s, digestOf(right))
			if bytes, n := s.shelf.stats(); bytes != 0 || n != 0 {
				t.Errorf("%d bytes of %d contents are held", bytes, n)
			}
		})
	}
	mustStore(t, s, right)
}

func readFetch(t *testing.T, s *Store, data []byte, size int64, from origin) ([]byte, error) {
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func testOriginError(t *testing.T, s *Store) {
	gone := fmt.Errorf("upstream says no: %w", fs.ErrNotExist)
	from := func(context.Context, int64) (io.ReadCloser, int64, error) { return nil, 0, gone }
	for range 3 {
		if _, _, err := s.Fetch(t.Context(), owner, digestOf(nil), 0, 0, -1, from); !errors.Is(err, gone) {
			t.Errorf("fetch: %v", err)
		}
	}
	quiet(s)
	mustMiss(t, s, digestOf(nil))
	mustStore(t, s, nil)
}

func testPanic(t *testing.T, s *Store) {
	from := func(context.Context, int64) (io.ReadCloser, int64, error) { panic("a bug") }
	if _, _, err := s.Fetch(t.Context(), owner, digestOf(nil), 0, 0, -1, from); err == nil {
		t.Error("no error")
	}
	quiet(s)
	mustStore(t, s, nil)
}

func testClosed(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	mustStore(t, s, data)
	r, size, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	mustRead(t, r, size, data) // what is open stays readable
	ctx, digest := t.Context(), digestOf(data)
	_, _, openErr := s.Open(ctx, digest)
	_, _, fetchErr := s.Fetch(ctx, owner, digest, -1, 0, -1, forbidden(t))
	_, _, tagErr := s.Tag(ctx, "a/b", "latest")
	_, _, knownErr := s.Known(ctx, "a/b", digest)
	_, listErr := s.Repositories(ctx, 10, "")
	for i, err := range []error{
		openErr, fetchErr, tagErr, knownErr, listErr,
		s.Put(ctx, digest, data),
		s.SetTag(ctx, "a/b", "latest", digest, time.Now()),
		s.Delivered(ctx, "a/b", digest),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func testCloseEndsTransfers(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go s.Close()
	if got, err := io.ReadAll(r); err == nil {
		t.Errorf("read %d bytes without an error", len(got))
	}
	if _, err := body.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the body was not closed: %v", err)
	}
}

func testOtherSize(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	_, err = readFetch(t, s, data, int64(len(data))-1, (&upstream{data: data}).from)
	if _, ok := errors.AsType[*MismatchError](err); !ok {
		t.Errorf("wrong size: %v", err)
	}
	go func() {
		body.Write(data)
		body.Close()
	}()
	mustRead(t, r, size, data)
	quiet(s)
	mustHold(t, s, data)
}

func testWrongSizeHeld(t *testing.T, s *Store) {
	for _, size := range []int{100, 300 << 10} {
		data := sample(1, size)
		mustStore(t, s, data)
		for _, wrong := range []int{0, size - 1, size + 1} {
			_, err := readFetch(t, s, data, int64(wrong), forbidden(t))
			if _, ok := errors.AsType[*MismatchError](err); !ok {
				t.Errorf("size %d instead of %d: %v", wrong, size, err)
			}
		}
		mustHold(t, s, data)
	}
}

func testLateSize(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(-1)
	r, size, err := s.Fetch(t.Context(), owner, digestOf(data), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []int{100, len(data) + 1} {
		liar, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(wrong), 0, -1, (&upstream{data: data, size: -1}).from)
		if err != nil {
			t.Fatal(err)
		}
		defer liar.Close()
		defer func() {
			got, err := io.ReadAll(liar)
			if _, ok := errors.AsType[*MismatchError](err); !ok || len(got) >= wrong {
				t.Errorf("size %d: %d bytes and then %v", wrong, len(got), err)
			}
		}()
	}
	go func() {
		body.Write(data)
		body.Close()
	}()
	mustRead(t, r, size, data)
}

func testEndless(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	sent := 0
	from := func(context.Context, int64) (io.ReadCloser, int64, error) {
		return io.NopCloser(readerFunc(func(p []byte) (int, error) {
			sent += len(p)
			if sent > 16<<20 {
				return 0, errors.New("nobody stopped reading")
			}
			return len(p), nil
		})), -1, nil
	}
	_, err := readFetch(t, s, data, int64(len(data)), from)
	if _, ok := errors.AsType[*MismatchError](err); !ok {
		t.Errorf("%v, want a mismatch", err)
	}
	quiet(s)
	if sent > 4<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// testRecheck stands for a caller that missed the content just before another
// one's transfer committed it.
func testRecheck(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	mustStore(t, s, data)
	k, err := parseDigest(digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	late, err := s.start(owner, k, int64(len(data)), forbidden(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := late.opened(t.Context()); !errors.Is(err, errHeld) {
		t.Errorf("opened: %v", err)
	}
	late.leave()
	quiet(s)
}

func testSticky(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	wrong := slices.Clone(data)
	wrong[len(wrong)-1] ^= 1
	from, body, _ := piped(-1)
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		body.Write(wrong)
		body.Close()
	}()
	got, first := io.ReadAll(r)
	if first == nil || !bytes.HasPrefix(data, got) {
		t.Fatalf("%d bytes and then %v", len(got), first)
	}
	for range 3 {
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != first {
			t.Errorf("%d, %v after %v", n, err, first)
		}
	}
}
