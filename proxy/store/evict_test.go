package store

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestTheLeastRecentlyUsedIsEvicted(t *testing.T) {
	s := mustOpen(t, Config{Directory: t.TempDir(), MaxSize: 1000})
	d := scanned(t, s) // eviction is ours from here on
	a, b, c := sample(1, 400), sample(2, 400), sample(3, 400)
	mustStore(t, s, a)
	mustStore(t, s, b)
	mustHold(t, s, a) // used after b was
	if d.evictOne() {
		t.Fatal("evicted within the bound")
	}
	mustStore(t, s, c)
	if !d.evictOne() || d.evictOne() {
		t.Fatal("not exactly one was evicted")
	}
	mustMiss(t, s, digestOf(b))
	mustHold(t, s, a)
	mustHold(t, s, c)
	if got := s.Stats(); got.Bytes != 800 {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsReadOrArrivesIsNotEvicted(t *testing.T) {
	s := mustOpen(t, Config{Directory: t.TempDir(), MaxSize: 2600 << 10})
	d := scanned(t, s)
	// What arrives is on the medium, and counts, a chunk at a time and late: of the
	// last, four chunks at least when all has been taken from the upstream.
	read, follow, other := sample(1, 1200<<10), sample(2, 1200<<10), sample(3, (8+maxDeferred)*chunkSize+1000)
	mustStore(t, s, read)
	reader, size, err := s.Open(t.Context(), digestOf(read))
	if err != nil {
		t.Fatal(err)
	}
	follower, _, err := s.Fetch(t.Context(), owner, digestOf(follow), -1, 0, -1, (&upstream{data: follow}).from)
	if err != nil {
		t.Fatal(err)
	}
	quiet(s)
	from, body, _ := piped(int64(len(other)))
	arriving, _, err := s.Fetch(t.Context(), owner, digestOf(other), int64(len(other)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	body.Write(other)
	if _, err := io.ReadFull(arriving, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if d.evictOne() {
		t.Error("something in use was evicted")
	}
	mustRead(t, reader, size, read)
	if !d.evictOne() {
		t.Error("nothing was evicted though what is oldest is free")
	}
	mustMiss(t, s, digestOf(read))
	mustHold(t, s, follow)
	mustRead(t, follower, -1, follow)
	body.Close()
	mustRead(t, arriving, -1, other[1:])
	quiet(s)
	mustHold(t, s, other)
}

func TestEvictionRunsByItselfAndSurvivesARestart(t *testing.T) {
	t.Run("in the order of use after an orderly end", func(t *testing.T) {
		evictsAfterRestart(t, func(t *testing.T, s *Store, dir string) {
			for _, i := range []byte{0, 2, 4, 1, 3} {
				mustHold(t, s, sample(i, 100))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("in the order of arrival when the roster is lost", func(t *testing.T) {
		evictsAfterRestart(t, func(t *testing.T, s *Store, dir string) {
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for i := range byte(5) {
				// Stored in the order 0, 2, 4, 1, 3.
				when := at.Add(time.Duration(i*3%5) * time.Hour)
				if err := os.Chtimes(pathOf(dir, digestOf(sample(i, 100))), when, when); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, rosterFile)); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// evictsAfterRestart checks that contents 0, 2 and 4 go, in this order, and 1
// next, when there is room for two after a restart.
func evictsAfterRestart(t *testing.T, end func(t *testing.T, s *Store, dir string)) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	for i := range byte(5) {
		mustStore(t, s, sample(i, 100))
	}
	end(t, s, dir)
	removed := make(chan string, 10)
	s = mustOpen(t, Config{Directory: dir, MaxSize: 200, files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			if op == "remove" && filepath.Dir(name) == tempDir {
				removed <- filepath.Base(name)[:64]
			}
			return true, nil
		}}
	}})
	for _, i := range []byte{0, 2, 4} {
		if got, want := <-removed, digestOf(sample(i, 100)).Hex; got != want {
			t.Errorf("evicted %s, want content %d", got, i)
		}
	}
	mustHold(t, s, sample(1, 100))
	mustHold(t, s, sample(3, 100))
	data := sample(9, 50)
	if err := s.Put(t.Context(), digestOf(data), data); err != nil {
		t.Fatal(err)
	}
	if got, want := <-removed, digestOf(sample(1, 100)).Hex; got != want {
		t.Errorf("evicted %s, want content 1", got)
	}
	mustHold(t, s, data)
}

func TestWhatIsTooLargeForTheDirectoryIsPassedThrough(t *testing.T) {
	s := mustOpen(t, Config{
		Directory: t.TempDir(), MaxSize: 400 << 10,
		limits: smallLimits(func(l *limits) { l.unsized = 200 << 10 }),
	})
	passesThrough(t, s, sample(1, 500<<10), sample(2, 300<<10))
	mustStore(t, s, sample(3, 300<<10))
	if err := s.Put(t.Context(), digestOf(sample(1, 500<<10)), sample(1, 500<<10)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("put: %v", err)
	}
}

// passesThrough checks that content which is too large, and content which is
// too large for not telling its size, are served and not kept.
func passesThrough(t *testing.T, s *Store, large, unsized []byte) {
	t.Helper()
	for _, row := range []struct {
		data       []byte
		told, size int64
	}{
		{large, int64(len(large)), 0}, {large, -1, 0}, {large, -1, -1}, {unsized, -1, -1},
	} {
		for range 2 {
			u := &upstream{data: row.data, size: row.size}
			r, size, err := s.Fetch(t.Context(), owner, digestOf(row.data), row.told, 0, -1, u.from)
			if err != nil {
				t.Fatal(err)
			}
			mustRead(t, r, size, row.data)
			quiet(s)
			mustMiss(t, s, digestOf(row.data))

			wrong := slices.Clone(row.data)
			wrong[len(wrong)-1] ^= 1
			got, err := readFetch(t, s, row.data, row.told, (&upstream{data: wrong, size: row.size}).from)
			if _, ok := errors.AsType[*MismatchError](err); !ok || len(got) >= len(wrong) {
				t.Errorf("wrong content: %d bytes and then %v", len(got), err)
			}
			quiet(s)
		}
	}
	calls := 0
	_, err := readFetch(t, s, large, int64(len(large)), func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
		calls++
		return brokenAfter(large[offset:offset+100], io.ErrUnexpectedEOF), -1, nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) || calls != 1+MaxResumes {
		t.Errorf("broken: %v after %d calls", err, calls)
	}
}
