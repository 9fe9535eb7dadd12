package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func mustOpenDirectory(t *testing.T, name string) *Directory {
	t.Helper()
	d, err := OpenDirectory(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// listed returns what a directory lists, in its own order or that of use.
func listed(t *testing.T, dir string, list func(*Directory, context.Context, func(Content) error, func(string)) error) (all []Content, strays []string) {
	t.Helper()
	err := list(mustOpenDirectory(t, dir), t.Context(),
		func(c Content) error { all = append(all, c); return nil },
		func(name string) { strays = append(strays, name) })
	if err != nil {
		t.Error(err)
	}
	return all, strays
}

func digestsOf(all []Content) (digests []v1.Hash) {
	for _, c := range all {
		digests = append(digests, c.Digest)
	}
	return digests
}

func TestADirectoryTellsWhatItHoldsWhileAStoreIsOpenAndAfterwards(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	d := scanned(t, s)
	var byDigest, byUse []v1.Hash
	for i := range byte(5) {
		mustStore(t, s, sample(i, 100+int(i)))
	}
	for _, i := range []byte{3, 1, 4, 0, 2} {
		mustHold(t, s, sample(i, 100+int(i)))
		byUse = append(byUse, digestOf(sample(i, 100+int(i))))
	}
	slices.Reverse(byUse)
	byDigest = slices.SortedFunc(slices.Values(byUse), func(a, b v1.Hash) int { return slices.Compare([]byte(a.Hex), []byte(b.Hex)) })
	d.roster.totals() // writes what news there is
	check := func() {
		t.Helper()
		all, strays := listed(t, dir, (*Directory).Contents)
		if got := digestsOf(all); !slices.Equal(got, byDigest) || len(strays) > 0 {
			t.Errorf("contents %v and strays %q, want %v", got, strays, byDigest)
		}
		latest, _ := listed(t, dir, (*Directory).ContentsByUse)
		if got := digestsOf(latest); !slices.Equal(got, byUse) {
			t.Errorf("by use %v, want %v", got, byUse)
		}
		if c := latest[0]; c.Size != 102 || time.Since(c.Used) > time.Hour || time.Since(c.Used) < 0 {
			t.Errorf("%+v", c)
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check()

	// Without a roster it is the time of storing that counts.
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, digest := range byUse {
		if err := os.Chtimes(pathOf(dir, digest), at, at.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(roster string) error{
		"nonsense":  func(roster string) error { return os.WriteFile(roster, sample(1, 100), 0o600) },
		"missing":   func(string) error { return nil },
		"a pipe":    func(roster string) error { return syscall.Mkfifo(roster, 0o600) },
		"elsewhere": func(roster string) error { return os.Symlink("lock", roster) },
	} {
		if err := os.RemoveAll(filepath.Join(dir, rosterFile)); err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(dir, rosterFile)); err != nil {
			t.Fatal(err)
		}
		if mustOpenDirectory(t, dir).KnowsUse() {
			t.Errorf("%s: a roster was read", name)
		}
		latest, _ := listed(t, dir, (*Directory).ContentsByUse)
		slices.Reverse(latest)
		if got := digestsOf(latest); !slices.Equal(got, byUse) {
			t.Errorf("%s: by time %v, want %v", name, got, byUse)
		}
	}
}

func TestWhatIsNoContentIsNamedAndStays(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	kept := sample(1, 100)
	mustStore(t, s, kept)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	blobs := filepath.Join(dir, blobsDir)
	place := func(i byte) string {
		at := pathOf(dir, digestOf([]byte{i}))
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		return at
	}
	var want []string
	for name, plant := range map[string]func(at string) error{
		place(1):                          func(at string) error { return os.MkdirAll(filepath.Join(at, "below"), 0o700) },
		place(2):                          func(at string) error { return os.Symlink(outside, at) },
		place(3):                          func(at string) error { return syscall.Mkfifo(at, 0o600) },
		place(4) + ".tmp":                 func(at string) error { return os.WriteFile(at, nil, 0o600) },
		filepath.Join(blobs, "AB"):        func(at string) error { return os.Mkdir(at, 0o700) },
		filepath.Join(blobs, "abc"):       func(at string) error { return os.Mkdir(at, 0o700) },
		filepath.Join(blobs, "file"):      func(at string) error { return os.WriteFile(at, nil, 0o600) },
		filepath.Join(blobs, "elsewhere"): func(at string) error { return os.Symlink("../..", at) },
		filepath.Join(filepath.Dir(place(5)), digestOf([]byte{1}).Hex): func(at string) error { return os.WriteFile(at, nil, 0o600) },
	} {
		if err := plant(name); err != nil {
			t.Fatal(err)
		}
		below, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, filepath.ToSlash(below))
	}
	all, strays := listed(t, dir, (*Directory).Contents)
	if got := digestsOf(all); !slices.Equal(got, []v1.Hash{digestOf(kept)}) {
		t.Errorf("contents %v", got)
	}
	slices.Sort(strays)
	slices.Sort(want)
	if !slices.Equal(strays, want) {
		t.Errorf("strays\n%q, want\n%q", strays, want)
	}

	d := mustOpenDirectory(t, dir)
	for i := range byte(7) {
		if _, err := d.Remove(digestOf([]byte{i})); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove %d: %v", i, err)
		}
	}
	if _, err := d.Remove(v1.Hash{Algorithm: "sha256", Hex: "../../lock"}); err == nil {
		t.Error("no digest was removed")
	}
	if seen, err := d.Scrub(t.Context(), Scrub{}); err != nil || seen.Contents != 1 || seen.Rotten+seen.Unreadable != 0 {
		t.Errorf("scrub: %+v, %v", seen, err)
	}
	if _, strays := listed(t, dir, (*Directory).Contents); len(strays) != len(want) {
		t.Errorf("of %d strays %d are left", len(want), len(strays))
	}
}

func TestWhatIsRemovedBesideAStoreIsReadOnAndThenMissing(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	scanned(t, s)
	small, large := sample(1, 100), sample(2, 3*chunkSize+100)
	mustStore(t, s, small)
	mustStore(t, s, large)
	r, size, err := s.Open(t.Context(), digestOf(large)) // by its seal
	if err != nil {
		t.Fatal(err)
	}
	d := mustOpenDirectory(t, dir)
	for _, data := range [][]byte{small, large} {
		if n, err := d.Remove(digestOf(data)); err != nil || n != int64(len(data)) {
			t.Errorf("removed %d bytes, %v", n, err)
		}
		if _, err := d.Remove(digestOf(data)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed twice: %v", err)
		}
	}
	mustRead(t, r, size, large)
	for _, data := range [][]byte{small, large} {
		mustMiss(t, s, digestOf(data))
	}
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("%+v after it was missed", got)
	}
	for _, data := range [][]byte{small, large} {
		mustStore(t, s, data)
	}
	if got, want := s.Stats(), (Stats{Bytes: int64(len(small) + len(large)), Contents: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// listing counts how often the directory of content is looked through.
type listing struct {
	files
	count *int
}

func (l listing) list(name string, yield func(fs.DirEntry) bool) error {
	if name == blobsDir {
		*l.count++
	}
	return l.files.list(name, yield)
}

func TestARemovalBesideTheStoreIsNoticedAtTheNextStartAndOnlyThen(t *testing.T) {
	dir := t.TempDir()
	data, other := sample(1, 100), sample(2, 200)
	// restarted opens the store, stores what is given and closes it. It returns how
	// often the directory was looked through for that, and what was held then.
	restarted := func(store ...[]byte) (int, Stats) {
		looked := 0
		s := mustOpen(t, Config{Directory: dir, files: func(under files) files { return listing{under, &looked} }})
		d := scanned(t, s)
		before := looked
		if before > 0 { // the end of the background cut it short
			if err := d.survey(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, data := range store {
			mustStore(t, s, data)
		}
		held := s.Stats()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return before, held
	}
	restarted(data, other)
	if looked, held := restarted(); looked != 0 || held != (Stats{Bytes: 300, Contents: 2}) {
		t.Fatalf("looked through %d times without need, %+v", looked, held)
	}
	if _, err := mustOpenDirectory(t, dir).Remove(digestOf(data)); err != nil {
		t.Fatal(err)
	}
	if looked, held := restarted(); looked != 1 || held != (Stats{Bytes: 200, Contents: 1}) {
		t.Errorf("after a removal looked through %d times, %+v", looked, held)
	}
	if looked, held := restarted(); looked != 0 || held != (Stats{Bytes: 200, Contents: 1}) {
		t.Errorf("after that looked through %d times, %+v", looked, held)
	}
}

func TestOnlyTheFileThatWasReadIsRemoved(t *testing.T) {
	data := sample(1, 100)
	replace := func(t *testing.T, dir string) {
		at := pathOf(dir, digestOf(data))
		if err := errors.Join(os.WriteFile(at+".new", data, 0o600), os.Rename(at+".new", at)); err != nil {
			t.Error(err)
		}
	}
	for name, row := range map[string]struct {
		before, between func(t *testing.T, dir string)
		stays           bool
	}{
		"nothing happens":                       {},
		"replaced before":                       {before: replace, stays: true},
		"replaced at the last moment":           {between: replace, stays: true},
		"removed before":                        {before: func(t *testing.T, dir string) { os.Remove(pathOf(dir, digestOf(data))) }},
		"removed at the last moment":            {between: func(t *testing.T, dir string) { os.Remove(pathOf(dir, digestOf(data))) }},
		"temporary files are swept just before": {between: func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, tempDir)) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, Config{Directory: dir})
			mustStore(t, s, data)
			d := mustOpenDirectory(t, dir)
			once := false
			d.files = &faulty{files: d.files, fault: func(op, _ string) (bool, error) {
				if op == "rename" && row.between != nil && !once {
					once = true
					row.between(t, dir)
				}
				return true, nil
			}}
			read, err := os.Stat(pathOf(dir, digestOf(data)))
			if err != nil {
				t.Fatal(err)
			}
			if row.before != nil {
				row.before(t, dir)
			}
			k, err := parseDigest(digestOf(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.removeRead(k, read); err != nil {
				t.Fatal(err)
			}
			if row.stays {
				mustHold(t, s, data)
			} else {
				mustMiss(t, s, digestOf(data))
			}
			if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
				t.Errorf("temporary files: %v", names)
			}
		})
	}
}

func TestWhatIsNoStoreIsNotTakenForOne(t *testing.T) {
	empty, image := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(image, "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(image, blobsDir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{empty, image, filepath.Join(empty, "missing")} {
		if _, err := OpenDirectory(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Collect(t.Context(), Config{Directory: name}, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("collect %s: %v", name, err)
		}
	}
	if names := mustList(t, empty); len(names) != 0 {
		t.Errorf("something was made: %v", names)
	}
}

func TestADirectoryThatCannotBeListedIsAnErrorAfterAllElseWasShown(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	var all []v1.Hash
	for i := range byte(5) {
		mustStore(t, s, sample(i, 100))
		all = append(all, digestOf(sample(i, 100)))
	}
	d := mustOpenDirectory(t, dir)
	d.files = unlisted{d.files, "blobs/sha256/" + all[2].Hex[:2]}
	shown := 0
	err := d.Contents(t.Context(), func(c Content) error {
		shown++
		if c.Digest == all[2] {
			t.Error("it was listed all the same")
		}
		return nil
	}, nil)
	if !errors.Is(err, syscall.EIO) || shown != 4 {
		t.Errorf("%d were shown, and then %v", shown, err)
	}
	if seen, err := d.Scrub(t.Context(), Scrub{}); !errors.Is(err, syscall.EIO) || seen.Contents != 4 {
		t.Errorf("scrub: %+v, %v", seen, err)
	}
	enough := errors.New("enough")
	if err := d.Contents(t.Context(), func(Content) error { return enough }, nil); !errors.Is(err, enough) {
		t.Errorf("%v, want the error that ended it", err)
	}
}

// unlisted is a file system one directory of which cannot be listed.
type unlisted struct {
	files
	name string
}

func (u unlisted) list(name string, yield func(fs.DirEntry) bool) error {
	if name == u.name {
		return syscall.EIO
	}
	return u.files.list(name, yield)
}
