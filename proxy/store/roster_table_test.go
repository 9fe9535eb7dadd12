package store

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// mustRoster opens the roster of a directory of its own.
func mustRoster(t *testing.T) (*roster, *os.Root) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if err := root.Mkdir(tempDir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, survey := reopenRoster(t, root)
	if !survey {
		t.Error("a roster that begins empty wants no survey")
	}
	return r, root
}

// reopenRoster opens a roster that nobody has open.
func reopenRoster(t *testing.T, root *os.Root) (r *roster, survey bool) {
	t.Helper()
	r, survey = openRoster(root, slog.New(slog.DiscardHandler))
	if r.slots == nil {
		t.Fatal("the roster cannot be opened")
	}
	t.Cleanup(func() { r.close() })
	return r, survey
}

// numberedKey is a key whose first and last bytes are the same for all numbers,
// as those of digests are that somebody looked for.
func numberedKey(n int) (k key) {
	binary.BigEndian.PutUint64(k[12:], uint64(n))
	return k
}

// noteMany notes the keys of so many numbers, each used a second after the one
// before.
func noteMany(r *roster, from, to int) {
	for n := from; n < to; n++ {
		r.note(numberedKey(n), int64(n), usedAt(n))
	}
}

func usedAt(n int) time.Time { return time.Unix(int64(n), 0) }

func TestARosterThatGrowsKeepsWhatItKnows(t *testing.T) {
	r, root := mustRoster(t)
	const n = 3 * minPages * fullAt
	noteMany(r, 0, n)
	if bytes, count := r.totals(); count != n || bytes != n*(n-1)/2 {
		t.Errorf("%d bytes of %d contents", bytes, count)
	}
	if r.slots.pages != 4*minPages {
		t.Errorf("%d pages", r.slots.pages)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r, survey := reopenRoster(t, root)
	if survey {
		t.Error("after an orderly end it wants a survey")
	}
	for i := range n {
		at, _, got, err := r.slots.find(numberedKey(i))
		if want := (record{key: numberedKey(i), size: int64(i), used: usedAt(i).UnixNano()}); at < 0 || err != nil || got != want {
			t.Fatalf("%+v, want %+v (%v)", got, want, err)
		}
	}
	inUse := func(k key) bool { return k == numberedKey(0) }
	if oldest, ok := r.oldest(inUse); !ok || oldest.key != numberedKey(1) {
		t.Errorf("the oldest that is free is %v, %v", oldest.key, ok)
	}
}

func TestWhoChoosesDigestsChoosesNoPageOfTheRoster(t *testing.T) {
	r, _ := mustRoster(t)
	const n = 3 * slotsPerPage
	noteMany(r, 0, n)
	if _, count := r.totals(); count != n || r.slots.pages != minPages {
		t.Errorf("%d of %d contents in %d pages", count, n, r.slots.pages)
	}
	other, _ := mustRoster(t)
	same := 0
	for i := range n {
		if r.slots.home(numberedKey(i)) == other.slots.home(numberedKey(i)) {
			same++
		}
	}
	if same == n {
		t.Error("who knows one roster knows all")
	}
}

func TestOneFullPageDoesNotMakeTheRosterGrow(t *testing.T) {
	r, root := mustRoster(t)
	for i, n := 0, 0; n < slotsPerPage+5; i++ {
		if k := numberedKey(i); r.slots.home(k) == 0 {
			r.note(k, 1, usedAt(i))
			n++
		}
	}
	if _, count := r.totals(); count != slotsPerPage || r.slots.pages != minPages {
		t.Errorf("%d contents in %d pages", count, r.slots.pages)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if _, survey := reopenRoster(t, root); !survey {
		t.Error("nobody looks for what had no room")
	}
}

func TestARosterThatCannotGrowIsTriedAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, root := mustRoster(t)
		if err := root.Remove(tempDir); err != nil { // where it grows
			t.Fatal(err)
		}
		const full = minPages*fullAt + 1
		noteMany(r, 0, full)
		if _, count := r.totals(); count != full || r.slots.pages != minPages {
			t.Fatalf("%d contents in %d pages", count, r.slots.pages)
		}
		if err := root.Mkdir(tempDir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(growthPause - time.Nanosecond)
		noteMany(r, full, full+1)
		if _, count := r.totals(); count != full+1 || r.slots.pages != minPages {
			t.Errorf("%d contents in %d pages: growing was tried at once", count, r.slots.pages)
		}
		time.Sleep(time.Nanosecond)
		noteMany(r, full+1, full+2)
		if _, count := r.totals(); count != full+2 || r.slots.pages != 2*minPages {
			t.Errorf("%d contents in %d pages after the pause", count, r.slots.pages)
		}
	})
}

func TestASurveyAfterACrashBelievesNoneBefore(t *testing.T) {
	r, root := mustRoster(t)
	r.beginSurvey()
	r.recall([]record{{key: key{1}, size: 1000}})
	r.endSurvey(0)
	if bytes, count := r.totals(); bytes != 1000 || count != 1 {
		t.Fatalf("%d bytes of %d contents", bytes, count)
	}
	r.slots.file.Close() // as a process that is killed does
	r, survey := reopenRoster(t, root)
	if !survey {
		t.Fatal("it wants no survey")
	}
	r.beginSurvey() // which does not find it any more
	r.endSurvey(0)
	if bytes, count := r.totals(); bytes != 0 || count != 0 {
		t.Errorf("%d bytes of %d contents that are gone", bytes, count)
	}
}

func TestAMissDoesNotForgetWhatWasCommittedMeanwhile(t *testing.T) {
	for name, between := range map[string]func(s *Store){
		"while both are news":       func(*Store) {},
		"that is in the roster yet": func(s *Store) { s.Stats() }, // writes the news
	} {
		t.Run(name, func(t *testing.T) {
			data := sample(1, 1000)
			k, _ := parseDigest(digestOf(data))
			var commit atomic.Pointer[func()]
			s := mustOpen(t, Config{Directory: t.TempDir(), files: func(under files) files {
				return &faulty{files: under, fault: func(op, name string) (bool, error) {
					// Who has not found it makes sure of that.
					if op == "stat" && name == k.path() {
						if f := commit.Swap(nil); f != nil {
							(*f)()
						}
					}
					return true, nil
				}}
			}})
			f := func() {
				if err := s.Put(t.Context(), digestOf(data), data); err != nil {
					t.Error(err)
				}
				between(s)
			}
			commit.Store(&f)
			mustMiss(t, s, digestOf(data))
			if got, want := s.Stats(), (Stats{Bytes: 1000, Contents: 1}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestOneContentThatCannotBeMovedDoesNotStopEviction(t *testing.T) {
	first := sample(1, 400)
	k, _ := parseDigest(digestOf(first))
	s := mustOpen(t, Config{Directory: t.TempDir(), MaxSize: 1000, files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			if op == "rename" && name == k.path() {
				return false, syscall.EPERM
			}
			return true, nil
		}}
	}})
	d := scanned(t, s) // eviction is ours from here on
	mustStore(t, s, first)
	for i := range byte(5) {
		mustStore(t, s, sample(i+2, 400))
		for range 2 { // in the first place it may be the turn of what stays
			d.evictOne()
		}
	}
	if got := s.Stats(); got.Bytes > 1000 {
		t.Errorf("%d bytes are held, and 1000 may be", got.Bytes)
	}
	if _, err := os.Stat(filepath.Join(d.root.Name(), k.path())); err != nil {
		t.Error(err)
	}
}
