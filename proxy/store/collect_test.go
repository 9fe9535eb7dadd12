package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// left makes a store of contents of 100 bytes, used in the order of their
// numbers, with two temporary files, as a process leaves it that was killed.
func left(t *testing.T, contents int) string {
	t.Helper()
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	at := time.Now().Add(-time.Hour)
	for i := range contents {
		data := sample(byte(i), 100)
		mustStore(t, s, data)
		when := at.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(pathOf(dir, digestOf(data)), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Remove(filepath.Join(dir, rosterFile)),
		os.WriteFile(filepath.Join(dir, tempDir, "a"), sample(1, 1000), 0o600),
		os.MkdirAll(filepath.Join(dir, tempDir, "b", "c"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCollectDoesWhatAStoreDoesByItself(t *testing.T) {
	dir := left(t, 5)
	var gone []v1.Hash
	did, err := Collect(t.Context(), Config{Directory: dir, MaxSize: 250}, func(c Content) {
		if c.Size != 100 || time.Since(c.Used) < 55*time.Minute {
			t.Errorf("%+v", c)
		}
		gone = append(gone, c.Digest)
	})
	want := Collected{Swept: 2, SweptBytes: 1000, Evicted: 3, EvictedBytes: 300, Held: Stats{Bytes: 200, Contents: 2}}
	if err != nil || did != want {
		t.Errorf("%+v, %v, want %+v", did, err, want)
	}
	if want := []v1.Hash{digestOf(sample(0, 100)), digestOf(sample(1, 100)), digestOf(sample(2, 100))}; !slices.Equal(gone, want) {
		t.Errorf("evicted %v, want %v", gone, want)
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}

	// It left everything in order, and has nothing more to do.
	did, err = Collect(t.Context(), Config{Directory: dir}, nil)
	if want := (Collected{Held: Stats{Bytes: 200, Contents: 2}}); err != nil || did != want {
		t.Errorf("again: %+v, %v", did, err)
	}
	looked := 0
	s := mustOpen(t, Config{Directory: dir, files: func(under files) files { return listing{under, &looked} }})
	scanned(t, s)
	if looked != 0 || s.Stats() != (Stats{Bytes: 200, Contents: 2}) {
		t.Errorf("the next store looked %d times and holds %+v", looked, s.Stats())
	}
	mustHold(t, s, sample(3, 100))
	mustHold(t, s, sample(4, 100))
}

func TestCollectLeavesADirectoryInUseAlone(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	underWay(t, s)
	if did, err := Collect(t.Context(), Config{Directory: dir, MaxSize: 1}, nil); !errors.Is(err, ErrInUse) || did != (Collected{}) {
		t.Errorf("%+v, %v", did, err)
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 1 {
		t.Errorf("a file that is arriving was swept: %v", names)
	}
}

func TestCollectSaysWhatItCouldNotDo(t *testing.T) {
	dir := left(t, 3)
	failing := func(op string) func(files) files {
		return func(under files) files {
			return &faulty{files: under, fault: func(it, _ string) (bool, error) {
				if it == op {
					return false, syscall.EROFS
				}
				return true, nil
			}}
		}
	}
	if _, err := Collect(t.Context(), Config{Directory: dir, files: failing("mkdir")}, nil); !errors.Is(err, syscall.EROFS) {
		t.Errorf("sweeping: %v", err)
	}
	did, err := Collect(t.Context(), Config{Directory: dir, MaxSize: 250, files: failing("rename")}, nil)
	if err == nil || did.Evicted != 0 || did.Held.Bytes != 300 {
		t.Errorf("evicting: %+v, %v", did, err)
	}
	unlistable := func(under files) files { return unlisted{under, "blobs/sha256/" + digestOf(sample(1, 100)).Hex[:2]} }
	if did, err := Collect(t.Context(), Config{Directory: dir, MaxSize: 50, files: unlistable}, nil); !errors.Is(err, syscall.EIO) || did.Evicted != 0 {
		t.Errorf("listing: %+v, %v", did, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, rosterFile)), os.MkdirAll(filepath.Join(dir, rosterFile, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	did, err = Collect(ctx, Config{Directory: dir, MaxSize: 50}, func(Content) { cancel() })
	if !errors.Is(err, context.Canceled) || did.Evicted != 1 {
		t.Errorf("ended: %+v, %v", did, err)
	}
	did, err = Collect(t.Context(), Config{Directory: dir, MaxSize: 50}, nil)
	if err != nil || did.Evicted != 2 || did.Held != (Stats{}) {
		t.Errorf("at last: %+v, %v", did, err)
	}
}

func TestWhatRootMakesBelongsToTheUserOfTheStore(t *testing.T) {
	if os.Geteuid() != 0 {
		lacks(t, "needs root")
	}
	dir := left(t, 1)
	const user = 65532
	if err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, user, user))
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(t.Context(), Config{Directory: dir}, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{lockFile, rosterFile, tempDir} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != user || owner.Gid != user {
			t.Errorf("%s belongs to %d:%d", name, owner.Uid, owner.Gid)
		}
	}
}
