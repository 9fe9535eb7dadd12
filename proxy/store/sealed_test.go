package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// rotting is a medium that can be told to rot: bytes change as they are read,
// and nothing else does, least of all the file's identity.
type rotting struct {
	at    atomic.Int64 // the byte that changes; negative: none
	reads atomic.Int64 // bytes read of files that are no temporary ones
}

func (r *rotting) wrap(under files) files { return rottingFiles{under, r} }

type rottingFiles struct {
	files
	rotting *rotting
}

func (f rottingFiles) open(name string) (file, error) {
	under, err := f.files.open(name)
	if err != nil {
		return nil, err
	}
	return rottingFile{under, f.rotting}, nil
}

type rottingFile struct {
	file
	rotting *rotting
}

func (f rottingFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.file.ReadAt(p, offset)
	f.rotting.reads.Add(int64(n))
	if at := f.rotting.at.Load(); at >= offset && at < offset+int64(n) {
		p[at-offset] ^= 1
	}
	return n, err
}

func newRotting() *rotting {
	r := new(rotting)
	r.at.Store(-1)
	return r
}

func TestRotOnTheMediumIsSeenInEachBlockThoughTheFileLooksTheSame(t *testing.T) {
	data := sample(1, 3*chunkSize+1000)
	for _, at := range []int64{0, chunkSize - 1, chunkSize, 2*chunkSize + 5, int64(len(data)) - 1} {
		rot := newRotting()
		s := mustOpen(t, Config{Directory: t.TempDir(), files: rot.wrap})
		mustStore(t, s, data)
		mustHold(t, s, data)
		rot.at.Store(at)

		// Without an origin it ends before the chunk, and the content is gone.
		r, _, err := s.Open(t.Context(), digestOf(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if !errors.Is(err, ErrRotten) || !bytes.HasPrefix(data, got) || int64(len(got)) > at {
			t.Errorf("rot at %d: %d bytes and then %v", at, len(got), err)
		}
		r.Close()
		mustMiss(t, s, digestOf(data))

		// With one it goes on from there, within the answer.
		rot.at.Store(-1)
		mustStore(t, s, data)
		rot.at.Store(at)
		u := &upstream{data: data, offsets: make(chan int64, 10)}
		mustFetch(t, s, data, u.from)
		if offset := <-u.offsets; offset != at/blockSize*blockSize {
			t.Errorf("rot at %d: taken up at %d", at, offset)
		}
		mustMiss(t, s, digestOf(data))
	}
}

func TestWhatAnUpstreamDeliversInsteadOfRotIsCheckedToo(t *testing.T) {
	data := sample(1, 3*chunkSize)
	for name, lie := range map[string][]byte{
		"other bytes":  sample(2, len(data)),
		"too little":   data[:2*chunkSize+7],
		"another byte": append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1),
	} {
		t.Run(name, func(t *testing.T) {
			rot := newRotting()
			s := mustOpen(t, Config{Directory: t.TempDir(), files: rot.wrap})
			mustStore(t, s, data)
			rot.at.Store(chunkSize + 1)
			got, err := readFetch(t, s, data, int64(len(data)), (&upstream{data: lie, size: int64(len(data))}).from)
			if _, ok := errors.AsType[*MismatchError](err); !ok || !bytes.HasPrefix(data, got) || len(got) == len(data) {
				t.Errorf("%d bytes and then %v", len(got), err)
			}
		})
	}
}

func TestContentIsHashedOnceByAProcessAndAgainWhenTheFileChanges(t *testing.T) {
	rot := newRotting()
	dir := t.TempDir()
	data := sample(1, 3*chunkSize+1)
	at := pathOf(dir, digestOf(data))
	s := mustOpen(t, Config{Directory: dir, files: rot.wrap})
	mustStore(t, s, data) // which reads it once, by its tags
	read := func() int64 {
		t.Helper()
		before := rot.reads.Load()
		mustHold(t, s, data)
		quiet(s)
		return rot.reads.Load() - before
	}
	size := int64(len(data))
	if got := read(); got != size {
		t.Errorf("known content was read %d times", got/size)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(at, later, later); err != nil {
		t.Fatal(err)
	}
	if sealOf(s, data) == nil {
		t.Fatal("there is no seal to begin with")
	}
	// It is looked at: read to be hashed, and read back where the reader is slow.
	if read(); sealOf(s, data) == nil {
		t.Error("content that was hashed again has no seal")
	}
	if got := read(); got != size {
		t.Errorf("content that was hashed again was read %d times", got/size)
	}
	if err := os.WriteFile(at, sample(2, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []byte
	r, _, err := s.Open(t.Context(), digestOf(data))
	if err == nil { // else it was found out at once
		got, err = io.ReadAll(r)
		r.Close()
	}
	if !errors.Is(err, ErrRotten) || len(got) >= len(data) {
		t.Errorf("%d bytes and then %v", len(got), err)
	}
}

// sealOf returns the seal of data, whatever its file looks like by now.
func sealOf(s *Store, data []byte) *seal {
	k, _ := parseDigest(digestOf(data))
	s.seals.mu.Lock()
	defer s.seals.mu.Unlock()
	found, _ := s.seals.lru.Get(k)
	return found
}

func TestAFileThatChangesWhileItIsReadIsHashedAgain(t *testing.T) {
	dir := t.TempDir()
	data := sample(1, 3*chunkSize)
	s := mustOpen(t, Config{Directory: dir})
	mustStore(t, s, data)
	r, size, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(pathOf(dir, digestOf(data)), later, later); err != nil {
		t.Fatal(err)
	}
	mustRead(t, r, size, data) // each chunk matched its tag
	if sealOf(s, data) != nil {
		t.Error("the seal of another state of the file is kept")
	}
	mustHold(t, s, data)
}

func TestReadersOfContentThatIsNotKnownYetShareOneLook(t *testing.T) {
	dir := t.TempDir()
	data := sample(1, 4*chunkSize+3)
	first := mustOpen(t, Config{Directory: dir})
	mustStore(t, first, data)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	s := mustOpen(t, Config{Directory: dir, files: func(under files) files {
		return &faulty{files: under, fault: func(op, _ string) (bool, error) {
			if op == "read" {
				<-release
			}
			return true, nil
		}}
	}})
	var all sync.WaitGroup
	for i := range 10 {
		r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, forbidden(t))
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Stats().Transfers; n != 1 {
			t.Errorf("reader %d: %d looks", i, n)
		}
		all.Go(func() { mustRead(t, r, size, data) })
	}
	close(release)
	all.Wait()
	quiet(s)
	if sealOf(s, data) == nil {
		t.Error("what was looked at has no seal")
	}
	for _, part := range []span{{0, 10}, {chunkSize - 1, chunkSize + 1}, {int64(len(data)) - 5, -1}, {7, -1}, {0, int64(len(data))}} {
		checkPart(t, s, data, part, forbidden(t))
	}
}

// checkPart fetches a part of data.
func checkPart(t *testing.T, s *Store, data []byte, part span, from origin) {
	t.Helper()
	r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), part.first, part.end, from)
	if err != nil {
		t.Fatal(err)
	}
	if size != int64(len(data)) {
		t.Errorf("size %d", size)
	}
	mustRead(t, r, -1, data[part.first:part.stop(int64(len(data)))])
}

func TestAPartOfKnownContentIsReadByItsChunksAlone(t *testing.T) {
	rot := newRotting()
	s := mustOpen(t, Config{Directory: t.TempDir(), files: rot.wrap})
	data := sample(1, 20*chunkSize)
	mustStore(t, s, data)
	before := rot.reads.Load()
	checkPart(t, s, data, span{5*chunkSize + 10, 5*chunkSize + 20}, forbidden(t))
	checkPart(t, s, data, span{7*chunkSize - 1, 7*chunkSize + 1}, forbidden(t))
	if n := rot.reads.Load() - before; n > 3*chunkSize {
		t.Errorf("%d bytes were read for two short parts", n)
	}
}

func testParts(t *testing.T, s *Store) {
	data := sample(1, 3*chunkSize+5000)
	size := int64(len(data))
	parts := []span{
		{0, -1}, {0, size}, {0, 1}, {0, 0}, {size - 1, size}, {size, size}, {10, 20}, {1, -1},
		{chunkSize - 1, chunkSize + 1}, {chunkSize, 2 * chunkSize}, {1000, size - 1000}, {2*chunkSize + 77, size + 5},
	}
	var readers sync.WaitGroup
	from, body, calls := piped(size)
	for _, part := range parts { // while it arrives
		r, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, part.first, part.end, from)
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() { mustRead(t, r, -1, data[part.first:part.stop(size)]) })
	}
	body.Write(data)
	body.Close()
	readers.Wait()
	quiet(s)
	if n := calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	for _, part := range parts { // held
		checkPart(t, s, data, part, forbidden(t))
	}
	small := sample(2, 1000)
	mustStore(t, s, small)
	for _, part := range []span{{0, -1}, {0, 10}, {999, 1000}, {5, 5}, {5, 2000}} {
		checkPart(t, s, small, part, forbidden(t))
	}
}

func testPartStarts(t *testing.T, s *Store) {
	data := sample(1, 8*chunkSize)
	from, body, _ := piped(int64(len(data)))
	const first, end = chunkSize + 10, 3 * chunkSize
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), first, end, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go body.Write(data[:end])
	got := make([]byte, end-first-holdBack)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[first:end-holdBack]) {
		t.Fatalf("the part does not begin while the rest is on its way: %v", err)
	}
	rest := make(chan []byte)
	go func() {
		left, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		rest <- left
	}()
	body.Write(data[end:])
	select {
	case <-rest:
		t.Error("the part ended before the digest of the whole held")
	default:
	}
	body.Close()
	if left := <-rest; !bytes.Equal(left, data[end-holdBack:end]) {
		t.Errorf("the part ended with %d other bytes", len(left))
	}
}

func testPartOfALie(t *testing.T, s *Store) {
	data := sample(1, 4*chunkSize)
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	for _, part := range []span{{0, 10}, {0, 2 * chunkSize}, {chunkSize, -1}, {0, -1}} {
		r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), part.first, part.end, (&upstream{data: wrong}).from)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if _, ok := errors.AsType[*MismatchError](err); !ok || int64(len(got)) >= part.stop(int64(len(data)))-part.first {
			t.Errorf("%v: %d bytes and then %v", part, len(got), err)
		}
		quiet(s)
	}
	mustMiss(t, s, digestOf(data))
}

func testPrefetch(t *testing.T, s *Store) {
	for _, size := range []int{0, 100, 3*chunkSize + 1} {
		data := sample(byte(size), size)
		u := &upstream{data: data}
		for range 2 {
			if err := s.Prefetch(t.Context(), owner, digestOf(data), int64(size), u.from); err != nil {
				t.Fatal(err)
			}
		}
		if n := u.calls.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
		mustFetch(t, s, data, forbidden(t))
	}
	data := sample(9, 300<<10)
	wrong := bytes.Clone(data)
	wrong[0] ^= 1
	err := s.Prefetch(t.Context(), owner, digestOf(data), int64(len(data)), (&upstream{data: wrong}).from)
	if _, ok := errors.AsType[*MismatchError](err); !ok {
		t.Errorf("wrong content: %v", err)
	}
	mustMiss(t, s, digestOf(data))
	if err := s.Prefetch(t.Context(), owner, v1.Hash{}, 0, forbidden(t)); err == nil {
		t.Error("no digest, and no error")
	}
}

func TestAPrefetchEndsWithItsContextUnlessSomebodyReads(t *testing.T) {
	for _, read := range []bool{false, true} {
		s := mustOpen(t, Config{})
		data := sample(1, 2*chunkSize)
		from, body, _ := piped(int64(len(data)))
		ctx, cancel := context.WithCancel(t.Context())
		fetched := make(chan error)
		go func() { fetched <- s.Prefetch(ctx, owner, digestOf(data), int64(len(data)), from) }()
		body.Write(data[:10])
		var r io.ReadCloser
		if read {
			var err error
			if r, _, err = s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, forbidden(t)); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if err := <-fetched; err == nil {
			t.Error("a prefetch that was dropped has no error")
		}
		_, err := body.Write(data[10:])
		if read {
			body.Close()
			mustRead(t, r, -1, data)
		} else if err == nil {
			t.Error("the transfer goes on though nobody wants it")
		}
		quiet(s)
	}
}

func TestSealsAreBoundedByTheirSize(t *testing.T) {
	all := newSeals(1 << 20)
	tags := make([]tag, 1000)
	for i := range 1000 {
		all.set(key{byte(i), byte(i >> 8)}, identity{}, 1000*chunkSize, tags)
	}
	if all.bytes > 1<<20 || all.lru.Len() < 50 {
		t.Errorf("%d seals in %d bytes", all.lru.Len(), all.bytes)
	}
	for i := range 1000 {
		all.drop(key{byte(i), byte(i >> 8)})
	}
	if all.bytes != 0 || all.lru.Len() != 0 {
		t.Errorf("%d seals in %d bytes are left", all.lru.Len(), all.bytes)
	}
}

func TestCommittedContentIsMadeDurableSoonFilesFirst(t *testing.T) {
	var mu sync.Mutex
	var order []string
	s := mustOpen(t, Config{Directory: t.TempDir(), files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if op == "sync" || op == "syncDir" || op == "rename" {
				order = append(order, op+" "+filepath.Dir(name))
			}
			return true, nil
		}}
	}})
	data := sample(1, 300<<10)
	mustStore(t, s, data)
	mu.Lock()
	order = nil
	mu.Unlock()
	s.shelf.(*disk).syncer.flush()
	k, _ := parseDigest(digestOf(data))
	mu.Lock()
	defer mu.Unlock()
	if len(order) < 3 || order[0] != "sync "+k.dir() || order[1][:7] != "syncDir" || order[2][:7] != "syncDir" {
		t.Errorf("%q", order)
	}
}
