package store

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// inMemory returns how many pages of a file the system holds in memory.
func inMemory(t *testing.T, name string) uint64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stat unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0); err != nil {
		lacks(t, "the system does not say what it holds in memory: %v", err)
	}
	return stat.Cache
}

// mustForget makes the system hold nothing of a file.
func mustForget(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if way := forget(f); way != dropped || inMemory(t, name) != 0 {
		lacks(t, "the file system does not forget: it may be in memory itself")
	}
}

// openDropped opens files as they are opened where there are no direct reads.
func openDropped(root *os.Root) func(name string) (raw, error) {
	return func(name string) (raw, error) {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		return &rawFile{File: f, way: forget(f)}, nil
	}
}

func TestAScrubNeitherReadsFromTheSystemsMemoryNorFillsIt(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 3*rawSize+1000)
	at := pathOf(dir, digestOf(data))
	mustStore(t, s, data)
	mustForget(t, at)
	before, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	d := mustOpenDirectory(t, dir)
	seen, _ := mustScrub(t, d, Scrub{})
	if seen.Direct != 1 {
		lacks(t, "the file system of %s has no direct reads", dir)
	}
	if seen.Contents != 1 || seen.Bytes != int64(len(data)) || seen.Rotten != 0 {
		t.Errorf("%+v", seen)
	}
	if n := inMemory(t, at); n != 0 {
		t.Errorf("%d pages came by the system's memory", n)
	}
	after, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := before.Sys().(*syscall.Stat_t).Atim, after.Sys().(*syscall.Stat_t).Atim; a != b {
		t.Errorf("the time of access went from %v to %v", a, b)
	}

	d.open = openDropped(d.root)
	if seen, _ := mustScrub(t, d, Scrub{}); seen.Dropped != 1 || seen.Bytes != int64(len(data)) || seen.Rotten != 0 {
		t.Errorf("without direct reads: %+v", seen)
	}
	if n := inMemory(t, at); n != 0 {
		t.Errorf("without direct reads %d pages were left in memory", n)
	}
	mustHold(t, s, data)
	if inMemory(t, at) == 0 {
		t.Error("a common read does not fill the system's memory either: this test shows nothing")
	}
}

func TestWhatWasNotWrittenYetIsReadRight(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	scanned(t, s) // and with it what syncs
	data := sample(1, 3*rawSize+1000)
	for range 3 {
		mustStore(t, s, data) // so that it is dirty
		d := mustOpenDirectory(t, dir)
		for _, open := range []func(string) (raw, error){d.open, openDropped(d.root)} {
			d.open = open
			if seen, found := mustScrub(t, d, Scrub{}); seen.Contents != 1 || len(found) != 0 {
				t.Errorf("%+v, %+v", seen, found)
			}
			if _, err := d.Remove(digestOf(data)); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, s, digestOf(data))
			mustStore(t, s, data)
		}
	}
}

func TestAFileSystemThatRefusesDirectReadsAfterAllIsReadTheOtherWay(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 3*rawSize+1000)
	mustStore(t, s, data)
	d := mustOpenDirectory(t, dir)
	tampering(d, []v1.Hash{digestOf(data)}, func(p []byte, next func([]byte) (int, error)) (int, error) {
		n, err := next(p[1:]) // which is not aligned
		copy(p, p[1:1+n])
		return n, err
	})
	open := d.open
	var last raw
	d.open = func(name string) (raw, error) {
		file, err := open(name)
		last = file
		return file, err
	}
	seen, found := mustScrub(t, d, Scrub{})
	if last.how() == direct {
		lacks(t, "the file system refuses nothing")
	}
	if seen.Dropped != 1 || seen.Bytes != int64(len(data)) || len(found) != 0 {
		t.Errorf("%+v, %+v", seen, found)
	}
}

// mustMount mounts a new file system in a file, and returns where, and the file.
func mustMount(t *testing.T) (dir, image string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "mounting a file system needs root")
	}
	dir, image = t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			lacks(t, "%v: %v %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir, image
}

func TestAScrubSeesRotOnTheMediumBelowWhatTheSystemHoldsInMemory(t *testing.T) {
	dir, image := mustMount(t)
	data := sample(1, 300<<10+1000)
	at := pathOf(dir, digestOf(data))
	s, err := Open(Config{Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, data)
	if err := s.Close(); err != nil { // and so it is on the medium
		t.Fatal(err)
	}
	medium, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer medium.Close()
	all, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.Index(all, data[len(data)-1000:]) // which is less than a block
	if end < 0 {
		t.Fatal("the content is not on the medium")
	}
	if _, err := medium.WriteAt([]byte{data[len(data)-1] ^ 1}, int64(end+999)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(at); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("what is held in memory has changed, too: %v", err)
	}
	d, err := OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	seen, _ := mustScrub(t, d, Scrub{Keep: true})
	if seen.Direct != 1 || seen.Rotten != 1 {
		t.Errorf("by direct reads: %+v", seen)
	}
	if got, err := os.ReadFile(at); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the scrub has changed what is held in memory: %v", err)
	}
	d.open = openDropped(d.root)
	seen, _ = mustScrub(t, d, Scrub{})
	if seen.Dropped != 1 || seen.Rotten != 1 || seen.Removed != 1 {
		t.Errorf("without direct reads: %+v", seen)
	}
}
