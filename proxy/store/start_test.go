package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// poses reports whether the roster may still be one that was closed in order, on the
// medium.
func poses(s *Store) bool {
	r := s.shelf.(*disk).roster
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.posing
}

func TestAStartWaitsForNoMediumThatSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, other := sample(1, 300<<10), sample(2, 300<<10)
		dir := unseen(t, held)
		release := make(chan struct{})
		var waiting atomic.Int32
		s := mustOpen(t, Config{Directory: dir, files: func(under files) files {
			return &faulty{files: under, fault: func(op, _ string) (bool, error) {
				if op == "sync" || op == "syncDir" {
					waiting.Add(1)
					<-release
				}
				return true, nil
			}}
		}})
		mustHold(t, s, held)
		mustStore(t, s, other)
		if !poses(s) {
			t.Error("the start waited for the roster")
		}
		roster, err := os.ReadFile(filepath.Join(dir, rosterFile))
		if err != nil || roster[headerSize-1] != 0 {
			t.Errorf("a process that is killed leaves a roster that was closed in order: %v", err)
		}
		time.Sleep(syncDelay)
		synctest.Wait()
		if waiting.Load() == 0 || poses(s) {
			t.Error("nothing is made durable a second later")
		}
		mustHold(t, s, other)
		close(release)
	})
}

func TestNothingIsMadeDurableThatTheRosterMayNotKnow(t *testing.T) {
	var opened atomic.Pointer[Store]
	var synced atomic.Int32
	s := mustOpen(t, Config{Directory: unseen(t, sample(1, 300<<10)), files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			s := opened.Load()
			if s != nil && (op == "sync" || op == "syncDir") {
				synced.Add(1)
				if poses(s) {
					t.Errorf("%s %s while it counts as closed in order", op, name)
				}
			}
			return true, nil
		}}
	}})
	opened.Store(s)
	mustStore(t, s, sample(2, 300<<10))
	s.shelf.(*disk).syncer.flush()
	if synced.Load() < 5 {
		t.Errorf("%d were made durable", synced.Load())
	}
}

func TestADoubtIsForgottenOnlyWhenTheRosterIsKnownToBeOpen(t *testing.T) {
	data := sample(1, 300<<10)
	dir := unseen(t, data)
	if _, err := mustOpenDirectory(t, dir).Remove(digestOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, doubtFile)); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Directory: dir})
	if _, err := os.Lstat(filepath.Join(dir, doubtFile)); !errors.Is(err, fs.ErrNotExist) || poses(s) {
		t.Errorf("it poses: %v; %v", poses(s), err)
	}
}

func TestALayoutThatCouldNotBeMadeDurableIsTriedAgain(t *testing.T) {
	f := &faults{op: "syncDir", last: forever, err: errors.New("not now")}
	seen := make(map[string]int)
	s := mustOpen(t, Config{Directory: t.TempDir(), files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			if op == "syncDir" {
				seen[name]++
			}
			return f.fault(op, name)
		}}
	}})
	f.arm(true)
	d := scanned(t, s)
	before := seen["."]
	for _, more := range []int{1, 2, 2} {
		d.syncer.flush()
		want := before + more
		if seen["."] != want || seen["blobs"] != want {
			t.Errorf("%v, want %d of each", seen, want)
		}
		f.arm(false)
	}
}
