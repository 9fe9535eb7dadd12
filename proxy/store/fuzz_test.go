package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// FuzzFetch checks, for content of any size that comes in any pieces, breaks
// anywhere, and is read in any pieces: a reader gets all of it when it is
// right, and otherwise an error and never as many bytes as there should be.
func FuzzFetch(f *testing.F) {
	for _, size := range []uint32{0, 1, holdBack - 1, holdBack, holdBack + 1, 2 * holdBack, 300 << 10} {
		f.Add(size, uint64(size), int32(-1), int32(0), byte(0))
		f.Add(size, uint64(size)+1, int32(size/2), int32(0), byte(1))
		f.Add(size, uint64(size)+2, int32(size)-1, int32(0), byte(2))
		f.Add(size, uint64(size)+3, int32(-1), int32(-1), byte(3))
		f.Add(size, uint64(size)+4, int32(-1), int32(1), byte(3))
	}
	f.Fuzz(func(t *testing.T, size uint32, seed uint64, flip, extra int32, mode byte) {
		right := sample(byte(seed), int(size%(400<<10)))
		sent := slices.Clone(right)
		if extra > 0 {
			sent = append(sent, make([]byte, extra%1000)...)
		} else if cut := int(-int64(extra) % 1000); cut < len(sent) {
			sent = sent[:len(sent)-cut]
		}
		if flip >= 0 && int(flip) < len(sent) {
			sent[flip] ^= 1
		}
		want, told := int64(len(right)), int64(-1)
		if mode&1 != 0 {
			want = -1
		}
		if mode&2 != 0 && len(sent) == len(right) {
			told = int64(len(sent))
		}
		random := rand.New(rand.NewPCG(seed, seed))
		s := mustOpen(t, Config{MaxMemory: int64(1+random.IntN(8)) << 18}) // sometimes too small
		from := func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
			rest := sent[offset:]
			if at := random.IntN(4 * (len(rest) + 1)); at < len(rest) {
				return brokenAfter(rest[:at], io.ErrUnexpectedEOF), told, nil
			}
			if random.IntN(2) == 0 {
				return io.NopCloser(iotest.DataErrReader(bytes.NewReader(rest))), told, nil
			}
			return io.NopCloser(iotest.HalfReader(bytes.NewReader(rest))), told, nil
		}
		got, err := fetchInPieces(t, s, right, want, from, random.IntN(100<<10)+1)
		switch {
		case err == nil && !bytes.Equal(got, right):
			t.Fatalf("%d bytes that are not the %d asked for were read to their end", len(got), len(right))
		case err != nil && len(got) >= len(right) && len(right) > 0:
			t.Fatalf("%d of %d bytes were handed out before %v", len(got), len(right), err)
		case err != nil && bytes.Equal(sent, right) && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Fatalf("right content was refused: %v", err)
		}
		quiet(s)
		if r, _, err := s.Open(t.Context(), digestOf(right)); err == nil {
			mustRead(t, r, -1, right)
		}
	})
}

func fetchInPieces(t *testing.T, s *Store, data []byte, size int64, from origin, piece int) ([]byte, error) {
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var got bytes.Buffer
	_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, piece))
	return got.Bytes(), err
}
