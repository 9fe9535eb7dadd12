package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// journal records what is done to a file system, so that what a loss of power
// may leave of it can be made up.
type journal struct {
	files

	mu     sync.Mutex
	log    []step
	inodes map[string]int // of the files there are
	dirs   map[string]bool
	last   int // the latest inode
}

// step is one change, or one promise that earlier ones will last.
type step struct {
	op    string // create, write, sync, rename, remove, mkdir, syncDir
	name  string
	to    string // of a rename
	inode int    // of create, write, sync, rename
	data  []byte // of write
}

func newJournal(under files) *journal {
	return &journal{files: under, inodes: make(map[string]int), dirs: map[string]bool{".": true}}
}

// do does something and records it when it was done.
func (j *journal) do(do func() error, then func()) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := do()
	if err == nil {
		then()
	}
	return err
}

func (j *journal) add(s step) { j.log = append(j.log, s) }

func (j *journal) create(name string) (file, error) {
	var made file
	err := j.do(func() (err error) { made, err = j.files.create(name); return err }, func() {
		j.last++
		j.inodes[name] = j.last
		made = &journalFile{made, j, j.last}
		j.add(step{op: "create", name: name, inode: j.last})
	})
	return made, err
}

func (j *journal) open(name string) (file, error) {
	var opened file
	err := j.do(func() (err error) { opened, err = j.files.open(name); return err }, func() {
		opened = &journalFile{opened, j, j.inodes[name]}
	})
	return opened, err
}

func (j *journal) rename(old, to string) error {
	return j.do(func() error { return j.files.rename(old, to) }, func() {
		j.add(step{op: "rename", name: old, to: to, inode: j.inodes[old]})
		j.inodes[to] = j.inodes[old]
		delete(j.inodes, old)
	})
}

func (j *journal) remove(name string) error {
	return j.do(func() error { return j.files.remove(name) }, func() {
		j.add(step{op: "remove", name: name})
		maps.DeleteFunc(j.inodes, func(at string, _ int) bool { return within(name, at) })
		maps.DeleteFunc(j.dirs, func(at string, _ bool) bool { return within(name, at) })
	})
}

// within reports whether at is dir or below it.
func within(dir, at string) bool { return at == dir || strings.HasPrefix(at, dir+"/") }

func (j *journal) mkdir(name string) error {
	return j.do(func() error { return j.files.mkdir(name) }, func() { j.mkdirs(name) })
}

func (j *journal) mkdirs(name string) {
	if j.dirs[name] {
		return
	}
	j.mkdirs(path.Dir(name))
	j.dirs[name] = true
	j.add(step{op: "mkdir", name: name})
}

func (j *journal) syncDir(name string) error {
	return j.do(func() error { return j.files.syncDir(name) }, func() { j.add(step{op: "syncDir", name: name}) })
}

type journalFile struct {
	file
	journal *journal
	inode   int
}

func (f *journalFile) Write(p []byte) (n int, err error) {
	err = f.journal.do(func() (err error) { n, err = f.file.Write(p); return err }, func() {
		f.journal.add(step{op: "write", inode: f.inode, data: bytes.Clone(p)})
	})
	return n, err
}

func (f *journalFile) Sync() error {
	return f.journal.do(f.file.Sync, func() { f.journal.add(step{op: "sync", inode: f.inode}) })
}

// loss is what a loss of power does to what was not promised to last.
type loss struct {
	name string
	// stays says whether a change of a directory has come about.
	stays func(s step) bool
	// rest is what there is of a file's bytes that were not synced.
	rest func(written []byte) []byte
}

// losses are those that there are: directories forget everything, nothing
// or something, and files likewise. Zeros are what a file has whose new length came
// to the medium before its bytes did.
func losses(random *rand.Rand) (all []loss) {
	stays := map[string]func(step) bool{
		"no change of a directory":    func(step) bool { return false },
		"every change of a directory": func(step) bool { return true },
		"some changes of directories": func(step) bool { return random.IntN(2) == 0 },
		"renames only":                func(s step) bool { return s.op == "rename" || s.op == "mkdir" },
	}
	rests := map[string]func([]byte) []byte{
		"all bytes":       func(w []byte) []byte { return w },
		"no bytes":        func([]byte) []byte { return nil },
		"zeros":           func(w []byte) []byte { return make([]byte, len(w)) },
		"half":            func(w []byte) []byte { return w[:len(w)/2] },
		"half, and zeros": func(w []byte) []byte { return append(bytes.Clone(w[:len(w)/2]), make([]byte, len(w)-len(w)/2)...) },
		"zeros, and half": func(w []byte) []byte { return append(make([]byte, len(w)/2), w[len(w)/2:]...) },
	}
	for _, dir := range slices.Sorted(maps.Keys(stays)) {
		for _, rest := range slices.Sorted(maps.Keys(rests)) {
			all = append(all, loss{dir + ", " + rest, stays[dir], rests[rest]})
		}
	}
	return all
}

// after returns the files there are when the power is lost after so many steps, by
// name, and the directories.
func (l loss) after(log []step) (held map[string][]byte, dirs map[string]bool) {
	names := make(map[string]int)
	dirs = map[string]bool{".": true}
	synced, written := make(map[int][]byte), make(map[int][]byte)
	for i, s := range log {
		switch s.op {
		case "write":
			written[s.inode] = append(written[s.inode], s.data...)
		case "sync":
			synced[s.inode] = bytes.Clone(written[s.inode])
		case "create", "rename", "remove", "mkdir":
			if !promised(s, log[i+1:]) && !l.stays(s) {
				continue
			}
			switch s.op {
			case "create":
				names[s.name] = s.inode
			case "rename":
				delete(names, s.name)
				names[s.to] = s.inode
			case "remove":
				maps.DeleteFunc(names, func(at string, _ int) bool { return within(s.name, at) })
				maps.DeleteFunc(dirs, func(at string, _ bool) bool { return within(s.name, at) })
			case "mkdir":
				dirs[s.name] = true
			}
		}
	}
	held = make(map[string][]byte)
	for name, inode := range names {
		lost := false
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			lost = lost || !dirs[dir]
		}
		if !lost {
			held[name] = append(bytes.Clone(synced[inode]), l.rest(written[inode][len(synced[inode]):])...)
		}
	}
	maps.DeleteFunc(dirs, func(dir string, _ bool) bool { return dir != "." && !dirs[path.Dir(dir)] })
	return held, dirs
}

// promised reports whether a later sync of its directory makes a change last. A
// rename comes about as one, in both of its directories.
func promised(s step, later []step) bool {
	return slices.ContainsFunc(later, func(l step) bool {
		return l.op == "syncDir" && (l.name == path.Dir(s.name) || s.to != "" && l.name == path.Dir(s.to))
	})
}

// lossesTried is how many of them are tried after each step.
const lossesTried = 8

// history is what a store has done, and what it had made durable by when.
type history struct {
	log     []step
	kept    map[int][][]byte // what a sync has just made durable, by the length of the log
	content [][]byte
	roster  []byte // as it was before, closed in order and knowing nothing
}

// live lets a store do everything that it does with files.
func live(t *testing.T, dir string) history {
	t.Helper()
	if err := mustOpen(t, Config{Directory: dir}).Close(); err != nil {
		t.Fatal(err)
	}
	roster, err := os.ReadFile(filepath.Join(dir, rosterFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{blobsDir, "blobs"} { // it makes them itself
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var j *journal
	s := mustOpen(t, Config{Directory: dir, MaxSize: 700 << 10, files: func(under files) files {
		j = newJournal(under)
		return j
	}})
	d := scanned(t, s)       // eviction and syncing are ours from here on
	d.syncer.founded = false // as when content comes within the first second
	j.log = slices.DeleteFunc(j.log, func(s step) bool { return s.op == "syncDir" })
	large, small, put, odd, other := sample(1, 300<<10), sample(2, 1000), sample(3, 2000), sample(4, holdBack+1), sample(5, 400<<10)
	h := history{kept: make(map[int][][]byte), content: [][]byte{large, small, put, odd, other}, roster: roster}
	sync := func(kept ...[]byte) {
		d.syncer.flush()
		h.kept[len(j.log)] = kept
	}
	mustStore(t, s, large)
	mustStore(t, s, small)
	sync(large, small)
	if err := s.Put(t.Context(), digestOf(put), put); err != nil {
		t.Fatal(err)
	}
	if _, err := readFetch(t, s, odd, int64(len(odd)), (&upstream{data: sample(9, len(odd))}).from); err == nil {
		t.Fatal("wrong content was taken")
	}
	mustStore(t, s, odd)
	sync(put, odd)
	mustStore(t, s, other) // and one too many
	for d.evictOne() {
	}
	mustMiss(t, s, digestOf(large))
	mustStore(t, s, large)
	sync(large, other)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h.log = j.log
	return h
}

// durable returns what must be held after n steps: what was made durable, and not
// moved away since.
func (h history) durable(n int) (held [][]byte) {
	for _, data := range h.content {
		k, _ := parseDigest(digestOf(data))
		since := -1
		for at, kept := range h.kept {
			if at <= n && at > since && slices.ContainsFunc(kept, func(is []byte) bool { return bytes.Equal(is, data) }) {
				since = at
			}
		}
		if since >= 0 && !slices.ContainsFunc(h.log[since:n], func(s step) bool { return s.op == "rename" && s.name == k.path() }) {
			held = append(held, data)
		}
	}
	return held
}

// Content is visible before it is synced, so that a loss of power may leave
// anything under its digest: too little, zeros, nothing. Whatever it is, it is no
// more than a miss; and what was synced is there. The same holds when the roster is
// the one from before the start, which says that it was closed in order.
func TestALossOfPowerAtAnyStepLeavesNothingWrong(t *testing.T) {
	h := live(t, t.TempDir())
	random := rand.New(rand.NewPCG(1, 2))
	seen := make(map[string]bool)
	all := losses(random)
	for n := range len(h.log) + 1 {
		for _, i := range random.Perm(len(all))[:lossesTried] {
			l := all[i]
			held, dirs := l.after(h.log[:n])
			state := fmt.Sprint(slices.Sorted(maps.Keys(dirs)), len(h.durable(n)))
			for _, name := range slices.Sorted(maps.Keys(held)) {
				state += fmt.Sprintf(" %s:%s", name, digestOf(held[name]).Hex)
			}
			if seen[state] {
				continue
			}
			seen[state] = true
			t.Run(fmt.Sprintf("after %d steps, %s", n, l.name), func(t *testing.T) {
				t.Parallel()
				recovers(t, h, n, held, dirs, n%2 == 0)
			})
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d states are different", len(seen))
	}
}

// recovers opens a store on what was left after n steps.
func recovers(t *testing.T, h history, n int, held map[string][]byte, dirs map[string]bool, stale bool) {
	dir := t.TempDir()
	if stale {
		if err := os.WriteFile(filepath.Join(dir, rosterFile), h.roster, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name := range dirs {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range held {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, Config{Directory: dir})
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
	for _, data := range h.durable(n) {
		mustHold(t, s, data)
	}
	for i, data := range h.content {
		u := &upstream{data: data}
		r, size, err := s.Open(t.Context(), digestOf(data))
		if i%2 == n%2 {
			if err == nil {
				r.Close()
			}
			r, size, err = s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, u.from)
		}
		if err == nil {
			got, err := io.ReadAll(r)
			r.Close()
			switch {
			case err == nil && !bytes.Equal(got, data):
				t.Errorf("%d bytes that are not the %d that were stored were read to their end", len(got), len(data))
			case err != nil && len(got) > 0 && int64(len(got)) >= size:
				t.Errorf("%d of %d bytes, and then %v", len(got), size, err)
			}
			if _, ok := errors.AsType[*MismatchError](err); err != nil && !ok && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		} else if _, ok := errors.AsType[*MismatchError](err); !ok && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		mustFetch(t, s, data, (&upstream{data: data}).from)
		quiet(s)
		mustHold(t, s, data)
	}
	mustCount(t, s)
}

// mustCount checks that a store counts what is in its directory, once that has been
// looked through.
func mustCount(t *testing.T, s *Store) {
	t.Helper()
	d := scanned(t, s)
	if err := d.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Stats(), whatLies(t, d.root.Name()); got != want {
		t.Errorf("%+v is counted, %+v is there", got, want)
	}
}

// whatLies counts the content in a directory.
func whatLies(t *testing.T, dir string) (there Stats) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, blobsDir), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		there.Bytes += info.Size()
		there.Contents++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}
