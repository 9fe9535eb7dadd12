package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
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
	quiet(s) // what was read first was looked at meanwhile
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
	r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, u.from)
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
	read := make(chan struct{})
	var block atomic.Bool
	s := mustOpen(t, Config{Directory: dir, files: func(under files) files {
		return &faulty{files: under, fault: func(op, _ string) (bool, error) {
			if op == "read" && block.Load() {
				<-read
			}
			return true, nil
		}}
	}})
	data := sample(1, 300<<10)
	mustStore(t, s, data)
	at := pathOf(dir, digestOf(data))
	if err := os.WriteFile(at, sample(2, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	block.Store(true)
	late, _, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := os.WriteFile(at+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		t.Fatal(err)
	}
	close(read)
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
	r, _, err := s.Fetch(t.Context(), owner, numbered(1), -1, 0, -1, from)
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
	underWay(t, s)
	if second, err := Open(Config{Directory: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("second store: %v, %v", second, err)
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 1 {
		t.Errorf("the second store swept the first one's files: %v", names)
	}
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

func TestAbsentContentLeavesNoTrace(t *testing.T) {
	s := mustOpen(t, Config{Directory: t.TempDir()})
	for i := range 100 {
		mustMiss(t, s, digestOf([]byte{byte(i)}))
	}
	mustStore(t, s, sample(1, 100))
	if err := os.Remove(pathOf(s.shelf.(*disk).root.Name(), digestOf(sample(1, 100)))); err != nil {
		t.Fatal(err)
	}
	mustMiss(t, s, digestOf(sample(1, 100)))
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("%+v", got)
	}
	if d := scanned(t, s); len(d.pins) != 0 {
		t.Errorf("%d are pinned", len(d.pins))
	}
}
