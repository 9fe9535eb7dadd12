package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fill gives a store's index 200 deliveries with parents and tags.
func fill(t *testing.T, s *Store) {
	t.Helper()
	for i := range 200 {
		if err := s.Delivered(t.Context(), fmt.Sprintf("a/%d", i%20), numbered(i), numbered(i+1)); err != nil {
			t.Fatal(err)
		}
		if err := s.SetTag(t.Context(), "a/b", fmt.Sprint(i), numbered(i), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// mustKnowNothingElse checks that what was never delivered is not known, and
// that the index works, whatever it has lost.
func mustKnowNothingElse(t *testing.T, s *Store) {
	t.Helper()
	for i := range 200 {
		if delivered, _ := known(t, s, fmt.Sprintf("a/%d", i%20), numbered(i+500)); delivered {
			t.Errorf("%d is known to be delivered", i+500)
		}
		known(t, s, fmt.Sprintf("a/%d", i%20), numbered(i))
		if _, _, err := s.Tag(t.Context(), "a/b", fmt.Sprint(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("tag: %v", err)
		}
	}
	if _, err := s.Repositories(t.Context(), 1000, ""); err != nil {
		t.Error(err)
	}
	if err := s.Delivered(t.Context(), "new/one", numbered(1000)); err != nil {
		t.Error(err)
	}
	if delivered, _ := known(t, s, "new/one", numbered(1000)); !delivered {
		t.Error("the index does not learn any more")
	}
}

func TestADamagedIndexStopsNothingAndInventsNothing(t *testing.T) {
	origin := t.TempDir()
	s := mustOpen(t, Config{Directory: origin})
	fill(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(origin, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]func(data []byte) []byte{
		"gone":             nil,
		"empty":            func([]byte) []byte { return nil },
		"text":             func([]byte) []byte { return []byte("this is no index") },
		"zeros":            func(data []byte) []byte { return make([]byte, len(data)) },
		"noise":            func(data []byte) []byte { return sample(1, len(data)) },
		"cut to half":      func(data []byte) []byte { return data[:len(data)/2] },
		"cut to one page":  func(data []byte) []byte { return data[:4096] },
		"cut to two pages": func(data []byte) []byte { return data[:8192] },
		"noise after the first two pages": func(data []byte) []byte {
			copy(data[8192:], sample(1, len(data)))
			return data
		},
		"zeros after the first two pages": func(data []byte) []byte {
			clear(data[8192:])
			return data
		},
	}
	for seed := range byte(12) {
		rows[fmt.Sprintf("some bytes changed, %d", seed)] = func(data []byte) []byte {
			random := rand.New(rand.NewChaCha8([32]byte{seed}))
			for range 1 + int(seed)*10 {
				data[random.IntN(len(data))] = byte(random.Uint32())
			}
			return data
		}
	}
	for name, damage := range rows {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if damage != nil {
				if err := os.WriteFile(filepath.Join(dir, indexFile), damage(bytes.Clone(whole)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(Config{Directory: dir})
			if err != nil {
				t.Fatal(err)
			}
			mustKnowNothingElse(t, s)
			fill(t, s)
			s.Close() // may be the one to find the damage
			s = mustOpen(t, Config{Directory: dir})
			mustKnowNothingElse(t, s)
		})
	}
}

// Which page lies where is not the same each time, so that each is changed.
func TestAPageOfTheIndexThatClaimsWhatCannotBeIsSeenBeforeItIsBelieved(t *testing.T) {
	origin := t.TempDir()
	s := mustOpen(t, Config{Directory: origin})
	fill(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(origin, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	aside := 0
	for at := 2 * os.Getpagesize(); at < len(whole); at += os.Getpagesize() {
		for _, claim := range []struct{ at, value int }{
			{at + 12, 1 << 22},                                                      // its length
			{at, 1 << 22},                                                           // its number
			{at + 16 + 4, 1 << 30}, {at + 16 + 8, 1 << 30}, {at + 16 + 12, 1 << 30}, // a key's or a value's length, or position
			{at + 16 + 8, at / os.Getpagesize()}, {at + 16 + 8, 2 * os.Getpagesize()}, // what it refers to
		} {
			dir := t.TempDir()
			damaged := bytes.Clone(whole)
			binary.NativeEndian.PutUint32(damaged[claim.at:], uint32(claim.value))
			if err := os.WriteFile(filepath.Join(dir, indexFile), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, Config{Directory: dir})
			mustKnowNothingElse(t, s)
			if err := s.index.hints.(*hintFile).flush(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, asideFile)); err == nil {
				aside++
			} else if info, err := os.Stat(filepath.Join(dir, indexFile)); err != nil || info.Size() > 1<<20 {
				t.Errorf("page at %d: the index is %v, %v", at, info, err)
			}
			mustKnowNothingElse(t, s)
		}
	}
	if aside < 100 {
		t.Errorf("%d were put aside", aside) // all but those of pages that are free
	}
}

func TestWhatIsNoFileInThePlaceOfTheIndexIsPutAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, indexFile, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Directory: dir})
	mustKnowNothingElse(t, s)
	if info, err := os.Stat(filepath.Join(dir, indexFile)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
}

func TestADamagedIndexIsPutAsideAndLogged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, indexFile), sample(1, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	mustOpen(t, Config{Directory: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if aside, err := os.ReadFile(filepath.Join(dir, asideFile)); err != nil || !bytes.Equal(aside, sample(1, 1<<16)) {
		t.Errorf("put aside: %d bytes, %v", len(aside), err)
	}
	if !strings.Contains(log.String(), "index is damaged") {
		t.Errorf("the log says %q", log.String())
	}
}

func TestAnIndexFileThatIsCutUnderUsIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	if err := s.index.hints.(*hintFile).flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, indexFile), 0); err != nil {
		t.Fatal(err)
	}
	mustKnowNothingElse(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = mustOpen(t, Config{Directory: dir})
	if delivered, _ := known(t, s, "new/one", numbered(1000)); !delivered {
		t.Error("what was learned after the damage did not last")
	}
}

func TestHintsAreWrittenSoonAndWithoutBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Config{Directory: t.TempDir()})
		h := s.index.hints.(*hintFile)
		fill(t, s)
		if got, _ := h.db.get(tableDelivered, "a/0\x00"+hashBytes(0)); got != nil {
			t.Error("a request waited for the index file")
		}
		time.Sleep(flushDelay)
		synctest.Wait()
		if got, err := h.db.get(tableDelivered, "a/0\x00"+hashBytes(0)); got == nil {
			t.Errorf("not written: %v", err)
		}
		if len(h.pending)+len(h.writing) != 0 {
			t.Error("hints still wait")
		}
	})
}

func hashBytes(n int) string {
	k, _ := parseDigest(numbered(n))
	return string(k[:])
}

func TestAnIndexThatCannotBeWrittenWorksFromMemoryWithinBounds(t *testing.T) {
	s, err := Open(Config{Directory: t.TempDir(), limits: smallLimits(func(l *limits) { l.pending = 2000 })})
	if err != nil {
		t.Fatal(err)
	}
	h := s.index.hints.(*hintFile)
	h.db.file.Close() // so that nothing can be written any more
	fill(t, s)
	for range 3 {
		if err := h.flush(); err == nil {
			t.Fatal("it was written")
		}
	}
	if delivered, parents := known(t, s, "a/0", numbered(0)); !delivered {
		t.Errorf("forgotten: %v", parents)
	}
	for i := range 3000 {
		h.set(tableTags, fmt.Sprint(i), []byte{})
	}
	if len(h.pending) != 2000 {
		t.Errorf("%d hints wait", len(h.pending))
	}
	if err := s.Close(); err == nil {
		t.Error("closed without an error, though hints were lost")
	}
}

func TestAnIndexFileThatOutgrowsItsLimitBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir, limits: smallLimits(func(l *limits) { l.indexFile = 256 << 10 })})
	h := s.index.hints.(*hintFile)
	for i := range 10000 {
		if err := s.Delivered(t.Context(), "a/b", numbered(i), numbered(i+20000)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			if err := h.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if delivered, _ := known(t, s, "a/b", numbered(0)); delivered {
		t.Error("nothing was forgotten")
	}
	mustKnowNothingElse(t, s)
	info, err := os.Stat(filepath.Join(dir, indexFile))
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("%v, %v", info, err)
	}
}
