package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// unseen is a directory that holds contents which no process has hashed yet that
// opens it from now on.
func unseen(t *testing.T, contents ...[]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	for _, data := range contents {
		mustStore(t, s, data)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// spoil changes one byte of what a directory holds.
func spoil(t *testing.T, dir string, data []byte, at int) {
	t.Helper()
	bad := bytes.Clone(data)
	bad[at] ^= 1
	if err := os.WriteFile(pathOf(dir, digestOf(data)), bad, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestALookThatHasNotBegunEndsWithItsLastReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		contents := [][]byte{sample(1, 300<<10), sample(2, 300<<10), sample(3, 300<<10)}
		s := mustOpen(t, Config{Directory: unseen(t, contents...)})
		for range cap(s.looks) { // as many as there may be are under way
			s.looks <- struct{}{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		for _, data := range contents {
			go func() {
				_, _, err := s.Fetch(ctx, owner, digestOf(data), int64(len(data)), 0, -1, forbidden(t))
				left <- err
			}()
		}
		synctest.Wait()
		if n := s.Stats().Transfers; n != len(contents) {
			t.Fatalf("%d looks wait", n)
		}
		cancel()
		for range contents {
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("fetch: %v", err)
			}
		}
		synctest.Wait()
		if n := s.Stats().Transfers; n != 0 {
			t.Errorf("%d looks still wait", n)
		}
		d := s.shelf.(*disk)
		d.mu.Lock()
		if n := len(d.pins); n != 0 {
			t.Errorf("%d contents are still open", n)
		}
		d.mu.Unlock()
		for range cap(s.looks) {
			<-s.looks
		}
		mustHold(t, s, contents[0])
	})
}

func TestAnOwnerWithoutANameIsNoLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := sample(1, 300<<10)
		s := mustOpen(t, Config{Directory: t.TempDir()})
		from, body, _ := piped(int64(len(data)))
		arriving, size, err := s.Fetch(t.Context(), "", digestOf(data), int64(len(data)), 0, -1, from)
		if err != nil {
			t.Fatal(err)
		}
		mustFetch(t, s, data, (&upstream{data: data}).from)
		time.Sleep(time.Second) // by then it is held
		k, _ := parseDigest(digestOf(data))
		s.seals.drop(k) // so that it is looked at
		mustHold(t, s, data)
		go func() {
			body.Write(data)
			body.Close()
		}()
		mustRead(t, arriving, size, data)
	})
}

func TestRotThatIsFoundBeforeItIsHandedOutHealsWithinTheAnswer(t *testing.T) {
	data := sample(1, 5*chunkSize+1000)
	size := int64(len(data))
	for name, row := range map[string]struct {
		at   int
		part span
	}{
		"the first bytes":                {len(data) / 2, span{0, 1000}},
		"the last bytes":                 {0, span{size - 1000, -1}},
		"the rotten byte":                {len(data) / 2, span{size/2 - 5, size/2 + 5}},
		"all of it, rotten near its end": {len(data) - 10, span{0, -1}},
		"all before a rotten end":        {len(data) - 1, span{0, size - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := unseen(t, data)
			spoil(t, dir, data, row.at)
			s := mustOpen(t, Config{Directory: dir})
			u := &upstream{data: data}
			checkPart(t, s, data, row.part, u.from)
			quiet(s)
			if n := u.calls.Load(); n != 1 {
				t.Errorf("the upstream was asked %d times", n)
			}
			mustStore(t, s, data)
		})
	}
}

func TestALookAtAnotherFileIsNotJoined(t *testing.T) {
	data := sample(1, 3*chunkSize)
	dir := unseen(t, data)
	spoil(t, dir, data, 0)
	k, _ := parseDigest(digestOf(data))
	reading, release := make(chan struct{}), make(chan struct{})
	var reads atomic.Int32
	s := mustOpen(t, Config{Directory: dir, files: func(under files) files {
		return &faulty{files: under, fault: func(op, name string) (bool, error) {
			if op == "read" && name == k.path() && reads.Add(1) == 1 {
				close(reading)
				<-release
			}
			return true, nil
		}}
	}})
	rotten, _, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer rotten.Close()
	<-reading
	at := pathOf(dir, digestOf(data))
	if err := os.WriteFile(at+".new", data, 0o600); err != nil { // of the same size
		t.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		t.Fatal(err)
	}
	right, size, err := s.Open(t.Context(), digestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	close(release)
	mustRead(t, right, size, data)
	if _, err := io.ReadAll(rotten); !errors.Is(err, ErrRotten) {
		t.Errorf("the rotten file: %v", err)
	}
	mustHold(t, s, data)
}

func TestWhatRottedInAReadOnlyDirectoryIsPassedThrough(t *testing.T) {
	data := sample(1, 3*chunkSize)
	rot, f := newRotting(), &faults{last: forever, err: syscall.EROFS}
	s := mustOpen(t, Config{Directory: unseen(t, data), files: func(under files) files {
		return readOnly(f)(rot.wrap(under))
	}})
	rot.at.Store(0)
	f.arm(true)
	u := &upstream{data: data}
	checkPart(t, s, data, span{0, 1000}, u.from) // finds it out
	quiet(s)
	before := rot.reads.Load()
	for range 3 {
		mustFetch(t, s, data, u.from)
		quiet(s)
	}
	if n := u.calls.Load(); n < 4 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if n := rot.reads.Load() - before; n != 0 {
		t.Errorf("%d bytes of it were read again", n)
	}
	mustMiss(t, s, digestOf(data))
	f.arm(false)
}

func TestWhatRottedInADirectoryThatWasReadOnlyForAMomentIsReplaced(t *testing.T) {
	for _, size := range []int{1000, 3 * chunkSize} {
		data := sample(1, size)
		for name, replace := range map[string]func(t *testing.T, s *Store, from origin){
			"by a fetch": func(t *testing.T, s *Store, from origin) { mustFetch(t, s, data, from) },
			"by a fetch of a part": func(t *testing.T, s *Store, from origin) {
				checkPart(t, s, data, span{10, 20}, from)
			},
			"by a prefetch": func(t *testing.T, s *Store, from origin) {
				if err := s.Prefetch(t.Context(), owner, digestOf(data), int64(size), from); err != nil {
					t.Error(err)
				}
			},
		} {
			t.Run(fmt.Sprintf("%d bytes, %s", size, name), func(t *testing.T) {
				f := &faults{last: forever, err: syscall.EROFS}
				dir := unseen(t, data)
				spoil(t, dir, data, 0)
				s := mustOpen(t, Config{Directory: dir, files: readOnly(f)})
				f.arm(true)
				u := &upstream{data: data}
				checkPart(t, s, data, span{0, 1000}, u.from) // finds it out, and cannot remove it
				quiet(s)
				if err := s.Prefetch(t.Context(), owner, digestOf(data), int64(size), u.from); !errors.Is(err, syscall.EROFS) {
					t.Errorf("a prefetch of what cannot be kept: %v", err)
				}
				quiet(s)
				f.arm(false)
				replace(t, s, u.from)
				quiet(s)
				mustHold(t, s, data)
				mustFetch(t, s, data, forbidden(t))
			})
		}
	}
}
