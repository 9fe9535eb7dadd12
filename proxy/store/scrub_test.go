package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// odd is a medium that does as it is told with what it yields.
type odd struct {
	raw
	read func(p []byte, next func([]byte) (int, error)) (int, error)
}

func (o odd) next(p []byte) (int, error) { return o.read(p, o.raw.next) }

// tampering makes the files of some contents be read through next.
func tampering(d *Directory, of []v1.Hash, next func(p []byte, next func([]byte) (int, error)) (int, error)) {
	open := d.open
	d.open = func(name string) (raw, error) {
		file, err := open(name)
		if err != nil || !slices.ContainsFunc(of, func(h v1.Hash) bool { return h.Hex == path.Base(name) }) {
			return file, err
		}
		return odd{file, next}, nil
	}
}

// flipped is a medium on which a bit has changed.
func flipped(p []byte, next func([]byte) (int, error)) (int, error) {
	n, err := next(p)
	if n > 0 {
		p[n/2] ^= 1
	}
	return n, err
}

// mustScrub returns what a scrub of dir has seen and found.
func mustScrub(t *testing.T, d *Directory, how Scrub) (seen Scrubbed, found []Finding) {
	t.Helper()
	how.Found = func(f Finding) { found = append(found, f) }
	seen, err := d.Scrub(t.Context(), how)
	if err != nil {
		t.Errorf("scrub: %v", err)
	}
	if seen.Direct+seen.Dropped+seen.Cached != seen.Contents {
		t.Errorf("not each content was read in some way: %+v", seen)
	}
	return seen, found
}

func TestContentOfEverySizeThatIsRightStaysAndIsUntouched(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	total := 0
	var all []v1.Hash
	for i, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 100000, rawSize - 1, rawSize, rawSize + 1, 2*rawSize + 4096, 2*rawSize + 4096 + 3} {
		mustStore(t, s, sample(byte(i), size))
		all = append(all, digestOf(sample(byte(i), size)))
		total += size
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	state := func() (states []any) {
		roster, err := os.ReadFile(filepath.Join(dir, rosterFile))
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, string(roster))
		for _, digest := range all {
			info, err := os.Stat(pathOf(dir, digest))
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, identify(info))
		}
		return states
	}
	before := state()
	last := 0.0
	seen, found := mustScrub(t, mustOpenDirectory(t, dir), Scrub{Progress: func(soFar Scrubbed, part float64) {
		if part < last || part > 1 {
			t.Errorf("progress from %v to %v", last, part)
		}
		last = part
	}})
	if seen.Contents != len(all) || seen.Bytes != int64(total) || seen.Rotten+seen.Removed+seen.Unreadable+len(found) != 0 {
		t.Errorf("%+v and %+v", seen, found)
	}
	if last != 1 {
		t.Errorf("it ended at %v", last)
	}
	if after := state(); !slices.Equal(before, after) {
		t.Error("something was touched")
	}
	if names := mustList(t, dir); slices.Contains(names, doubtFile) {
		t.Error("the roster is in doubt though nothing was removed")
	}
}

func TestRotIsFoundByAScrubAndHealsWhenAServerMissesIt(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	scanned(t, s)
	var all [][]byte
	for i, size := range []int{100, 5000, 3*chunkSize + 1000} {
		mustStore(t, s, sample(byte(i), size))
		all = append(all, sample(byte(i), size))
	}
	d := mustOpenDirectory(t, dir)
	for name, change := range map[string]func(data []byte) []byte{
		"the first bit": func(data []byte) []byte { data[0] ^= 1; return data },
		"the last bit":  func(data []byte) []byte { data[len(data)-1] ^= 1; return data },
		"a byte less":   func(data []byte) []byte { return data[:len(data)-1] },
		"nothing left":  func([]byte) []byte { return nil },
		"a byte more":   func(data []byte) []byte { return append(data, 0) },
		"zeros":         func(data []byte) []byte { return make([]byte, len(data)) },
	} {
		for i, data := range all {
			wrong := change(slices.Clone(data))
			if err := os.WriteFile(pathOf(dir, digestOf(data)), wrong, 0o600); err != nil {
				t.Fatal(err)
			}
			want := Finding{Digest: digestOf(data), Size: int64(len(wrong)), Rotten: true}
			seen, found := mustScrub(t, d, Scrub{Keep: true})
			if seen.Contents != 3 || seen.Rotten != 1 || seen.Removed != 0 || !slices.Equal(found, []Finding{want}) {
				t.Errorf("%s of %d, kept: %+v, %+v", name, i, seen, found)
			}
			want.Gone = true
			seen, found = mustScrub(t, d, Scrub{})
			if seen.Contents != 3 || seen.Rotten != 1 || seen.Removed != 1 || !slices.Equal(found, []Finding{want}) {
				t.Errorf("%s of %d: %+v, %+v", name, i, seen, found)
			}
			mustMiss(t, s, digestOf(data))
			mustStore(t, s, data)
		}
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
}

func TestAReaderOfWhatAScrubRemovesReadsOn(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 8*chunkSize+1000)
	mustStore(t, s, data)
	r, size, err := s.Open(t.Context(), digestOf(data)) // by its seal
	if err != nil {
		t.Fatal(err)
	}
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(r, begin); err != nil || !bytes.Equal(begin, data[:1000]) {
		t.Fatal(err)
	}
	d := mustOpenDirectory(t, dir)
	tampering(d, []v1.Hash{digestOf(data)}, flipped)
	if seen, _ := mustScrub(t, d, Scrub{}); seen.Removed != 1 {
		t.Fatalf("%+v", seen)
	}
	mustRead(t, r, -1, data[1000:])
	if size != int64(len(data)) {
		t.Errorf("size %d", size)
	}
	mustMiss(t, s, digestOf(data))
	u := &upstream{data: data}
	mustFetch(t, s, data, u.from)
	quiet(s)
	mustHold(t, s, data)
	mustFetch(t, s, data, forbidden(t))
	if seen, _ := mustScrub(t, mustOpenDirectory(t, dir), Scrub{}); seen.Contents != 1 || seen.Rotten != 0 {
		t.Errorf("after it has healed: %+v", seen)
	}
}

func TestWhatAServerReplacesOrEvictsDuringAScrubIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	data := sample(1, 300<<10)
	rotten := slices.Clone(data)
	rotten[7] ^= 1
	at := pathOf(dir, digestOf(data))
	mustStore(t, s, data)
	if err := os.WriteFile(at, rotten, 0o600); err != nil {
		t.Fatal(err)
	}
	d := mustOpenDirectory(t, dir)
	tampering(d, []v1.Hash{digestOf(data)}, func(p []byte, next func([]byte) (int, error)) (int, error) {
		n, err := next(p)
		if err == io.EOF { // all is read, and nothing judged yet: a client makes the server heal
			if got, err := readFetch(t, s, data, -1, (&upstream{data: data}).from); err == nil && !bytes.Equal(got, data) || err != nil && !errors.Is(err, ErrRotten) {
				t.Errorf("the server: %d bytes and then %v", len(got), err)
			}
			mustStore(t, s, data)
		}
		return n, err
	})
	seen, found := mustScrub(t, d, Scrub{})
	if seen.Rotten != 1 || len(found) != 1 || !found[0].Rotten || !found[0].Gone {
		t.Errorf("%+v, %+v", seen, found)
	}
	mustFetch(t, s, data, forbidden(t))

	d = mustOpenDirectory(t, dir)
	open := d.open
	d.open = func(name string) (raw, error) {
		if err := os.Remove(at); err != nil {
			t.Error(err)
		}
		return open(name)
	}
	if seen, found := mustScrub(t, d, Scrub{}); seen != (Scrubbed{}) || len(found) != 0 {
		t.Errorf("evicted meanwhile: %+v, %+v", seen, found)
	}
}

func TestWhatCannotBeReadIsSaidAndStays(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	var all []v1.Hash
	for i := range byte(4) {
		mustStore(t, s, sample(i, 2*rawSize+int(i)))
		all = append(all, digestOf(sample(i, 2*rawSize+int(i))))
	}
	d := mustOpenDirectory(t, dir)
	reads := 0
	tampering(d, all[:1], func(p []byte, next func([]byte) (int, error)) (int, error) {
		if reads++; reads > 1 {
			return 0, syscall.EIO
		}
		return next(p)
	})
	open := d.open
	d.open = func(name string) (raw, error) {
		if path.Base(name) == all[1].Hex {
			return nil, syscall.EACCES
		}
		return open(name)
	}
	seen, found := mustScrub(t, d, Scrub{})
	if seen.Contents != 2 || seen.Unreadable != 2 || seen.Rotten != 0 || len(found) != 2 {
		t.Errorf("%+v, %+v", seen, found)
	}
	for _, f := range found {
		switch {
		case f.Digest == all[0] && errors.Is(f.Err, syscall.EIO) && f.Size == 2*rawSize && !f.Rotten && !f.Gone:
		case f.Digest == all[1] && errors.Is(f.Err, syscall.EACCES) && !f.Rotten && !f.Gone:
		default:
			t.Errorf("%+v", f)
		}
	}
	for i := range byte(4) {
		mustHold(t, s, sample(i, 2*rawSize+int(i)))
	}

	// A file that is shown to be rotten and cannot be removed is said to be there.
	d = mustOpenDirectory(t, dir)
	tampering(d, all[:1], flipped)
	d.files = &faulty{files: d.files, fault: func(op, _ string) (bool, error) {
		return op != "rename", map[bool]error{true: syscall.EROFS}[op == "rename"]
	}}
	seen, found = mustScrub(t, d, Scrub{})
	if seen.Rotten != 1 || seen.Removed != 0 || len(found) != 1 || !errors.Is(found[0].Err, syscall.EROFS) || found[0].Gone {
		t.Errorf("%+v, %+v", seen, found)
	}
	mustHold(t, s, sample(0, 2*rawSize))
}

func TestAScrubEndsWhenItIsToldToWithWhatItHasSeen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	for i := range byte(4) {
		mustStore(t, s, sample(i, 3*rawSize))
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	seen, err := mustOpenDirectory(t, dir).Scrub(ctx, Scrub{
		Found: func(f Finding) { t.Errorf("%+v", f) },
		Progress: func(soFar Scrubbed, _ float64) {
			if soFar.Contents == 1 && soFar.Bytes > 3*rawSize {
				cancel(enough)
			}
		},
	})
	if !errors.Is(err, enough) || seen.Contents != 1 || seen.Bytes != 4*rawSize {
		t.Errorf("%+v, %v", seen, err)
	}
}

func TestAScrubKeepsToItsRate(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	for i := range byte(4) {
		mustStore(t, s, sample(i, 3*rawSize))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		mustScrub(t, mustOpenDirectory(t, dir), Scrub{Rate: rawSize / 2})
		if took := time.Since(begin); took != 24*time.Second {
			t.Errorf("12 MiB at 512 KiB/s took %v", took)
		}
		begin = time.Now()
		mustScrub(t, mustOpenDirectory(t, dir), Scrub{})
		if took := time.Since(begin); took != 0 {
			t.Errorf("without a rate it waited %v", took)
		}

		// The time that reading takes counts; time that was not used is not made up for.
		var p pace
		read := func(took, pause, want time.Duration) {
			t.Helper()
			begin := time.Now()
			if !p.wait(t.Context()) {
				t.Error("it did not wait")
			}
			if waited := time.Since(begin); waited != want {
				t.Errorf("it waited %v, want %v", waited, want)
			}
			time.Sleep(took)
			p.spend(1000, 1000)
			time.Sleep(pause)
		}
		read(0, 0, 0)
		read(300*time.Millisecond, 0, time.Second)
		read(2*time.Second, 0, 700*time.Millisecond)
		read(0, time.Hour, 0)
		read(0, 0, 0)
		read(0, 0, time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if p.wait(ctx) {
			t.Error("it waited on though it was told to end")
		}
	})
}
