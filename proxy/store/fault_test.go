package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// faulty is a file system in which things go wrong. fault is asked before each
// operation whether to do it, and what to answer when it was.
type faulty struct {
	files
	fault func(op, name string) (apply bool, err error)
}

// do runs one operation, or not, and says that it failed, or not.
func (f *faulty) do(op, name string, run func() error) error {
	apply, fault := f.fault(op, name)
	if apply {
		if err := run(); err != nil {
			return err
		}
	}
	return fault
}

func (f *faulty) create(name string) (made file, err error) {
	err = f.do("create", name, func() (err error) { made, err = f.files.create(name); return err })
	return f.wrap(made, name, err)
}

func (f *faulty) open(name string) (opened file, err error) {
	err = f.do("open", name, func() (err error) { opened, err = f.files.open(name); return err })
	return f.wrap(opened, name, err)
}

func (f *faulty) wrap(under file, name string, err error) (file, error) {
	if err != nil {
		if under != nil {
			under.Close()
		}
		return nil, err
	}
	return &faultyFile{file: under, faulty: f, name: name}, nil
}

func (f *faulty) stat(name string) (info fs.FileInfo, err error) {
	err = f.do("stat", name, func() (err error) { info, err = f.files.stat(name); return err })
	return info, err
}

func (f *faulty) rename(old, to string) error {
	return f.do("rename", old, func() error { return f.files.rename(old, to) })
}

func (f *faulty) remove(name string) error {
	return f.do("remove", name, func() error { return f.files.remove(name) })
}

func (f *faulty) mkdir(name string) error {
	return f.do("mkdir", name, func() error { return f.files.mkdir(name) })
}

func (f *faulty) syncDir(name string) error {
	return f.do("syncDir", name, func() error { return f.files.syncDir(name) })
}

type faultyFile struct {
	file
	faulty *faulty
	name   string
}

func (f *faultyFile) Write(p []byte) (n int, err error) {
	err = f.faulty.do("write", f.name, func() (err error) { n, err = f.file.Write(p); return err })
	return n, err
}

func (f *faultyFile) ReadAt(p []byte, offset int64) (n int, err error) {
	apply, fault := f.faulty.fault("read", f.name)
	if apply {
		n, err = f.file.ReadAt(p, offset)
	}
	if fault != nil {
		return n, fault
	}
	return n, err
}

func (f *faultyFile) Stat() (info fs.FileInfo, err error) {
	err = f.faulty.do("fstat", f.name, func() (err error) { info, err = f.file.Stat(); return err })
	return info, err
}

func (f *faultyFile) Sync() error {
	return f.faulty.do("sync", f.name, f.file.Sync)
}

// faults makes the operations of one kind fail, those numbered from first to
// last.
type faults struct {
	op          string // empty: of any kind
	first, last int
	apply       bool
	err         error

	mu    sync.Mutex
	armed bool
	count map[string]int
}

func (f *faults) fault(op, _ string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return true, nil
	}
	if f.count == nil {
		f.count = make(map[string]int)
	}
	n := f.count[op]
	f.count[op]++
	if (f.op == op || f.op == "") && n >= f.first && n <= f.last {
		return f.apply, f.err
	}
	return true, nil
}

func (f *faults) arm(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = on
}

// lifeOfContent does everything that a store does with content, while faults
// happen. No client may notice any of them, but for an error of Put.
func lifeOfContent(t *testing.T, f *faults) {
	t.Helper()
	dir := t.TempDir()
	config := Config{Directory: dir, MaxSize: 4 << 20, files: func(under files) files {
		return &faulty{files: under, fault: f.fault}
	}}
	large, small, put := sample(1, chunkSize+1), sample(2, 1000), sample(3, 1000)
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	scanned(t, s) // so that the operations come in a fixed order
	f.arm(true)
	for range 2 {
		for _, data := range [][]byte{large, small} {
			mustFetch(t, s, data, (&upstream{data: data}).from)
			quiet(s)
		}
		if err := s.Put(t.Context(), digestOf(put), put); err == nil {
			mustFetch(t, s, put, (&upstream{data: put}).from)
			quiet(s)
		}
		s.shelf.(*disk).syncer.flush()
	}
	f.arm(false)
	for _, data := range [][]byte{large, small, put} {
		mustFetch(t, s, data, (&upstream{data: data}).from)
		quiet(s)
		mustHold(t, s, data)
	}
	if got := s.Stats().Bytes; got != int64(len(large)+len(small)+len(put)) {
		t.Errorf("%d bytes are counted as held", got)
	}
	if n := s.shelf.(*disk).arriving.Load(); n != 0 {
		t.Errorf("%d bytes still arrive", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = mustOpen(t, Config{Directory: dir})
	for _, data := range [][]byte{large, small, put} {
		mustFetch(t, s, data, forbidden(t))
	}
	if names := mustList(t, filepath.Join(dir, tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
}

func TestNoClientNoticesAFaultOfTheDisk(t *testing.T) {
	count := &faults{first: 1, last: -1}
	lifeOfContent(t, count)
	for _, op := range []string{"create", "open", "stat", "fstat", "read", "write", "sync", "mkdir", "rename", "syncDir"} {
		if count.count[op] == 0 {
			t.Errorf("%s is not among the operations of a store", op)
		}
		for _, apply := range []bool{false, true} {
			for first := range min(count.count[op], 4) {
				for _, last := range []int{first, forever} {
					t.Run(fmt.Sprintf("%s fails from %d to %d, happened %v", op, first, last, apply), func(t *testing.T) {
						lifeOfContent(t, &faults{op: op, first: first, last: last, apply: apply, err: syscall.EIO})
					})
				}
			}
		}
	}
	for _, apply := range []bool{false, true} {
		t.Run(fmt.Sprintf("everything fails, happened %v", apply), func(t *testing.T) {
			lifeOfContent(t, &faults{last: forever, apply: apply, err: syscall.EIO})
		})
	}
}

const forever = 1 << 30

// readOnly has f fail what changes something.
func readOnly(f *faults) func(files) files {
	return func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			switch op {
			case "create", "write", "rename", "remove", "mkdir", "sync", "syncDir":
				return f.fault(op, name)
			}
			return true, nil
		}}
	}
}

func TestAReadOnlyDirectoryServesWhatItHoldsAndPassesTheRestThrough(t *testing.T) {
	f := &faults{last: forever}
	s := mustOpen(t, Config{Directory: t.TempDir(), files: readOnly(f)})
	held, other := sample(1, 300<<10), sample(2, 300<<10)
	mustStore(t, s, held)
	f.err = syscall.EROFS
	f.arm(true)
	mustFetch(t, s, held, forbidden(t))
	u := &upstream{data: other}
	for range 2 {
		mustFetch(t, s, other, u.from)
		quiet(s)
	}
	if n := u.calls.Load(); n != 2 {
		t.Errorf("the upstream was asked %d times", n)
	}
	mustMiss(t, s, digestOf(other))
	if err := s.Put(t.Context(), digestOf(other), other); !errors.Is(err, syscall.EROFS) {
		t.Errorf("put: %v", err)
	}
	f.arm(false)
	mustStore(t, s, other)
}

func TestAHerdOnAFullDiskIsServed(t *testing.T) {
	data := sample(1, 1<<20)
	s := mustOpen(t, Config{Directory: t.TempDir(), files: func(under files) files {
		return &faulty{files: under, fault: func(op, _ string) (bool, error) {
			if op == "write" {
				return false, syscall.ENOSPC
			}
			return true, nil
		}}
	}})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			got, err := readFetch(t, s, data, int64(len(data)), (&upstream{data: data}).from)
			if err != nil || digestOf(got) != digestOf(data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	quiet(s)
	if names := mustList(t, filepath.Join(s.shelf.(*disk).root.Name(), tempDir)); len(names) != 0 {
		t.Errorf("temporary files: %v", names)
	}
}

// fillsUp is a store whose disk takes two chunks and no more.
func fillsUp(t *testing.T) *Store {
	writes := 0
	return mustOpen(t, Config{
		Directory: t.TempDir(),
		limits:    smallLimits(func(l *limits) { l.patience = time.Millisecond }),
		files: func(under files) files {
			return &faulty{files: under, fault: func(op, _ string) (bool, error) {
				if op != "write" {
					return true, nil
				}
				writes++
				if writes > 2 {
					return false, syscall.ENOSPC
				}
				return true, nil
			}}
		},
	})
}

func TestADiskThatFillsUpHalfWayCostsNoOtherTransfer(t *testing.T) {
	s := fillsUp(t)
	data := sample(1, 8*chunkSize+1000)
	u := &upstream{data: data}
	mustFetch(t, s, data, u.from)
	quiet(s)
	if n := u.calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	mustMiss(t, s, digestOf(data))
}

func TestWhoIsLeftBehindOnAFullDiskGoesOnAlone(t *testing.T) {
	data := sample(1, 8*chunkSize+1000)
	size := int64(len(data))
	for name, row := range map[string]struct {
		first, end int64
		before     int // bytes that are read before the others are
	}{
		"from the beginning":               {0, -1, 0},
		"within what can be read back":     {0, -1, 100},
		"at the end of a chunk":            {0, -1, 2 * chunkSize},
		"beyond what can be read back":     {0, -1, 2*chunkSize + 100},
		"with a part that is there":        {1000, 2000, 0},
		"with a part that was memory only": {3*chunkSize - 10, 5*chunkSize + 10, 20},
	} {
		t.Run(name, func(t *testing.T) {
			s := fillsUp(t)
			u := &upstream{data: data}
			slow, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, row.first, row.end, u.from)
			if err != nil {
				t.Fatal(err)
			}
			begin := make([]byte, row.before)
			if _, err := io.ReadFull(slow, begin); err != nil {
				t.Fatal(err)
			}
			quiet(s) // the transfer has not waited longer than its patience
			want := data[row.first:]
			if row.end >= 0 {
				want = data[row.first:row.end]
			}
			if !bytes.Equal(begin, want[:row.before]) {
				t.Error("it began with other bytes")
			}
			mustRead(t, slow, -1, want[row.before:])
			if n := u.calls.Load(); n > 2 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
}

func TestWhoGoesOnAloneNeedsTheSameContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// So much that some of it is written, and the disk seen to be full, before all
		// has come: it begins with other content, which its hash would tell at the end.
		const come = (maxDeferred + 6) * chunkSize
		data := sample(1, 2*come)
		lie := append(sample(2, chunkSize), data[chunkSize:]...)
		s := fillsUp(t)
		asked := 0
		r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			asked++
			if asked == 1 {
				return stalling(lie, come)(ctx, offset)
			}
			return (&upstream{data: data}).from(ctx, offset)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		begin := make([]byte, chunkSize+100)
		if _, err := io.ReadFull(r, begin); err != nil || !bytes.Equal(begin, lie[:len(begin)]) {
			t.Fatalf("the beginning: %v", err)
		}
		time.Sleep(s.limits.patience + 1) // by then it is left behind
		got, err := io.ReadAll(r)
		if _, ok := errors.AsType[*MismatchError](err); !ok || len(begin)+len(got) > 2*chunkSize {
			t.Errorf("%d bytes more, and then %v", len(got), err)
		}
		if asked != 2 {
			t.Errorf("the upstream was asked %d times", asked)
		}
	})
}

func TestWhatCannotBeSyncedIsNotHeld(t *testing.T) {
	f := &faults{op: "sync", last: forever, err: syscall.EIO}
	s := mustOpen(t, Config{Directory: t.TempDir(), files: func(under files) files {
		return &faulty{files: under, fault: f.fault}
	}})
	f.arm(true)
	data := sample(1, 300<<10)
	mustFetch(t, s, data, (&upstream{data: data}).from)
	quiet(s)
	s.shelf.(*disk).syncer.flush()
	mustMiss(t, s, digestOf(data))
	f.arm(false)
	mustStore(t, s, data)
}

func TestADirectoryThatCannotBePreparedIsAnError(t *testing.T) {
	for _, op := range []string{"remove", "mkdir"} {
		dir := t.TempDir()
		_, err := Open(Config{Directory: dir, files: func(under files) files {
			return &faulty{files: under, fault: func(it, _ string) (bool, error) {
				if it == op {
					return false, os.ErrPermission
				}
				return true, nil
			}}
		}})
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", op, err)
		}
		mustOpen(t, Config{Directory: dir}) // the lock was given back
	}
}
