package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pathOf is where a directory keeps content. Operators and tools look there.
func pathOf(dir string, digest v1.Hash) string {
	return filepath.Join(dir, "blobs", "sha256", digest.Hex[:2], digest.Hex)
}

// scanned waits until the start-up scan has ended.
func scanned(t *testing.T, s *Store) *disk {
	t.Helper()
	d := s.shelf.(*disk)
	d.stop()
	d.workers.Wait()
	return d
}

func mustList(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestWhatIsInADirectoryOutlivesTheStore(t *testing.T) {
	dir := t.TempDir()
	small, large := sample(1, 100), sample(2, 300<<10)
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ctx := t.Context()

	s := mustOpen(t, Config{Directory: dir})
	mustStore(t, s, large)
	for _, err := range []error{
		s.Put(ctx, digestOf(small), small),
		s.SetTag(ctx, "a/b", "v1", digestOf(small), noon),
		s.SetTag(ctx, "a/b", "v2", digestOf(small), noon),
		s.SetTag(ctx, "a/b", "v2", v1.Hash{}, noon),
		s.Delivered(ctx, "a/b", digestOf(small), digestOf(large)),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	s = mustOpen(t, Config{Directory: dir})
	mustHold(t, s, small)
	mustHold(t, s, large)
	mustFetch(t, s, large, forbidden(t))
	if digest, confirmed, err := s.Tag(ctx, "a/b", "v1"); err != nil || digest != digestOf(small) || !confirmed.Equal(noon) {
		t.Errorf("tag: %v, %v, %v", digest, confirmed, err)
	}
	if _, _, err := s.Tag(ctx, "a/b", "v2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten tag: %v", err)
	}
	if delivered, _ := known(t, s, "a/b", digestOf(small)); !delivered {
		t.Error("the delivery was forgotten")
	}
	if _, parents := known(t, s, "a/b", digestOf(large)); !slices.Equal(parents, []v1.Hash{digestOf(small)}) {
		t.Errorf("parents: %v", parents)
	}
	if names, err := s.Repositories(ctx, 10, ""); err != nil || !slices.Equal(names, []string{"a/b"}) {
		t.Errorf("repositories: %v, %v", names, err)
	}
	scanned(t, s)
	if got, want := s.Stats(), (Stats{Bytes: 300<<10 + 100, Contents: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
}

func TestContentThatChangedOnDiskIsNotServedAndHeals(t *testing.T) {
	changes := map[string]func(data []byte) []byte{
		"the first bit":    func(data []byte) []byte { data[0] ^= 1; return data },
		"a bit in between": func(data []byte) []byte { data[len(data)/2] ^= 0x80; return data },
		"the last bit":     func(data []byte) []byte { data[len(data)-1] ^= 1; return data },
		"a byte less":      func(data []byte) []byte { return data[:len(data)-1] },
		"half of it":       func(data []byte) []byte { return data[:len(data)/2] },
		"nothing left":     func([]byte) []byte { return nil },
		"a byte more":      func(data []byte) []byte { return append(data, 0) },
		"twice":            func(data []byte) []byte { return append(data, data...) },
		"zeros":            func(data []byte) []byte { return make([]byte, len(data)) },
	}
	for name, change := range changes {
		for _, size := range []int{1000, holdBack, holdBack + 1, 300 << 10} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				s := mustOpen(t, Config{Directory: dir})
				data := sample(1, size)
				rot := func() {
					mustStore(t, s, data)
					if err := os.WriteFile(pathOf(dir, digestOf(data)), change(slices.Clone(data)), 0o600); err != nil {
						t.Fatal(err)
					}
				}

				rot()
				r, told, err := s.Open(t.Context(), digestOf(data))
				if err == nil {
					got, err := io.ReadAll(r)
					if !errors.Is(err, ErrRotten) || int64(len(got)) >= told {
						t.Errorf("%d of %d bytes and then %v", len(got), told, err)
					}
					r.Close()
				} else if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("open: %v", err)
				}
				if _, err := os.Stat(pathOf(dir, digestOf(data))); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the rotten file is still there: %v", err)
				}
				mustMiss(t, s, digestOf(data))

				rot()
				u := &upstream{data: data}
				got, err := readFetch(t, s, data, int64(size), u.from)
				if err == nil && (!bytes.Equal(got, data) || u.calls.Load() != 1) {
					t.Errorf("%d bytes were served after %d calls", len(got), u.calls.Load())
				}
				if err != nil && len(got) >= size {
					t.Errorf("%d of %d bytes and then %v", len(got), size, err)
				}
				mustFetch(t, s, data, u.from)
				quiet(s)
				mustHold(t, s, data)

				rot()
				if err := s.Put(t.Context(), digestOf(data), data); err != nil {
					t.Fatal(err)
				}
				mustHold(t, s, data)
			})
		}
	}
}

func TestAFileThatIsCutWhileItIsReadIsCompletedFromTheUpstream(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 3<<20)
	mustStore(t, s, data)
	u := &upstream{data: data, offsets: make(chan int64, 10)}
	r, size, err := s.Fetch(t.Context(), digestOf(data), int64(len(data)), u.from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(pathOf(dir, digestOf(data)), 1<<20); err != nil {
		t.Fatal(err)
	}
	mustRead(t, r, size, data)
	if offset := <-u.offsets; offset != 1<<20 {
		t.Errorf("taken up at %d", offset)
	}
	mustMiss(t, s, digestOf(data))
}

func TestARottenFileThatWasReplacedMeanwhileStays(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 300<<10)
	mustStore(t, s, data)
	if err := os.WriteFile(pathOf(dir, digestOf(data)), sample(2, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	late, _, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := readFetch(t, s, data, -1, forbidden(t)); !errors.Is(err, ErrRotten) {
		t.Fatal(err)
	}
	mustStore(t, s, data)
	if _, err := io.ReadAll(late); !errors.Is(err, ErrRotten) {
		t.Errorf("the reader of the rotten file: %v", err)
	}
	mustHold(t, s, data)
}

func TestWhatIsNoFileInThePlaceOfContentIsRemoved(t *testing.T) {
	data := sample(1, 100)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(at string) error{
		"a directory":                           func(at string) error { return os.MkdirAll(filepath.Join(at, "below", "it"), 0o700) },
		"a symbolic link to a file elsewhere":   func(at string) error { return os.Symlink(outside, at) },
		"a symbolic link to nothing":            func(at string) error { return os.Symlink("nothing", at) },
		"a symbolic link to nothing, elsewhere": func(at string) error { return os.Symlink("/nonexistent", at) },
		"a symbolic link to itself":             func(at string) error { return os.Symlink(filepath.Base(at), at) },
		"a symbolic link to the lock":           func(at string) error { return os.Symlink("../../../lock", at) },
		"a named pipe":                          func(at string) error { return syscall.Mkfifo(at, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, Config{Directory: dir})
			at := pathOf(dir, digestOf(data))
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := plant(at); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, s, digestOf(data))
			mustStore(t, s, data)
			if info, err := os.Lstat(at); err != nil || !info.Mode().IsRegular() {
				t.Errorf("in its place lies %v, %v", info, err)
			}
			if secret, err := os.ReadFile(outside); err != nil || string(secret) != "a secret" {
				t.Errorf("the file elsewhere was changed: %q, %v", secret, err)
			}
		})
	}
}

func TestTemporaryFilesOfADeadProcessAreSwept(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, tempDir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tempDir, "left"), sample(1, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Config{Directory: dir})
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("still there: %v", names)
	}
}

func TestAFailedTransferLeavesNoFileEvenWhileItIsRead(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	from, body, _ := piped(-1)
	r, _, err := s.Fetch(t.Context(), numbered(1), -1, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body.Write(sample(1, 1000))
	body.Close()
	quiet(s)
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
}

func TestADirectoryBelongsToOneStore(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	from, body, _ := piped(-1)
	r, _, err := s.Fetch(t.Context(), digestOf(nil), -1, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if second, err := Open(Config{Directory: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("second store: %v, %v", second, err)
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 1 {
		t.Errorf("the second store swept the first one's files: %v", names)
	}
	body.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Config{Directory: dir})
}

func TestADirectoryThatCannotBeOneIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(Config{Directory: dir}); err == nil {
			t.Errorf("%s was opened", dir)
		}
	}
}

func TestAbsentContentLeavesNoTraceInTheLedger(t *testing.T) {
	s := mustOpen(t, Config{Directory: t.TempDir()})
	for i := range 100 {
		mustMiss(t, s, digestOf([]byte{byte(i)}))
	}
	mustStore(t, s, sample(1, 100))
	if err := os.Remove(pathOf(s.shelf.(*disk).root.Name(), digestOf(sample(1, 100)))); err != nil {
		t.Fatal(err)
	}
	mustMiss(t, s, digestOf(sample(1, 100)))
	d := scanned(t, s)
	if len(d.ledger.lines) != 0 || d.ledger.order.Len() != 0 || d.ledger.bytes != 0 || d.ledger.count != 0 {
		t.Errorf("%d lines, %d bytes", len(d.ledger.lines), d.ledger.bytes)
	}
}

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
	s := mustOpen(t, Config{Directory: t.TempDir(), MaxSize: 500 << 10})
	d := scanned(t, s)
	read, follow, other := sample(1, 200<<10), sample(2, 200<<10), sample(3, 200<<10)
	mustStore(t, s, read)
	reader, size, err := s.Open(t.Context(), digestOf(read))
	if err != nil {
		t.Fatal(err)
	}
	follower, _, err := s.Fetch(t.Context(), digestOf(follow), -1, (&upstream{data: follow}).from)
	if err != nil {
		t.Fatal(err)
	}
	quiet(s)
	from, body, _ := piped(int64(len(other)))
	arriving, _, err := s.Fetch(t.Context(), digestOf(other), int64(len(other)), from)
	if err != nil {
		t.Fatal(err)
	}
	go body.Write(other)
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
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range byte(5) {
		mustStore(t, s, sample(i, 100))
		// Stored in the order 0, 2, 4, 1, 3.
		when := at.Add(time.Duration(i*3%5) * time.Hour)
		if err := os.Chtimes(pathOf(dir, digestOf(sample(i, 100))), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
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
			r, size, err := s.Fetch(t.Context(), digestOf(row.data), row.told, u.from)
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
