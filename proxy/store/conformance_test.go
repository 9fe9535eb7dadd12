package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestAStoreInMemory(t *testing.T) {
	conformance(t, func(t *testing.T) *Store { return mustOpen(t, Config{}) })
}

func TestAStoreInADirectory(t *testing.T) {
	conformance(t, func(t *testing.T) *Store { return mustOpen(t, Config{Directory: t.TempDir()}) })
}

// conformance is what every Store must do, wherever it keeps its content.
func conformance(t *testing.T, open func(t *testing.T) *Store) {
	for name, test := range map[string]func(t *testing.T, s *Store){
		"content that was never stored is not found":           testMissing,
		"what was fetched is held, whatever its size":          testSizes,
		"what was put is held":                                 testPut,
		"a digest is checked before it is used":                testDigests,
		"thirty readers share one transfer":                    testHerd,
		"a client that leaves stops nobody":                    testLeave,
		"a client that leaves alone still fills the store":     testLeaveAlone,
		"a reader that waits ends with its context":            testContext,
		"a reader that waits ends when it is closed":           testCloseReader,
		"who waits for the upstream ends with its context":     testContextOpening,
		"a transfer that breaks is taken up where it broke":    testResume,
		"a transfer that keeps breaking fails for all":         testBroken,
		"what is not what it should be reaches nobody's end":   testMismatch,
		"the end is held back until the digest holds":          testHoldBack,
		"a reader that does not read delays nobody":            testSlowReader,
		"an upstream's answer reaches every caller":            testOriginError,
		"a panic of the origin is an error":                    testPanic,
		"a closed store answers with an error":                 testClosed,
		"closing the store ends transfers":                     testCloseEndsTransfers,
		"who was told a wrong size fails alone":                testOtherSize,
		"a wrong size does not remove what is held":            testWrongSizeHeld,
		"a reader that learns the size late compares it":       testLateSize,
		"one owner's transfer holds up no other":               testOwners,
		"an endless transfer is cut at its size":               testEndless,
		"what came to be held meanwhile is not fetched":        testRecheck,
		"a reader's error is final":                            testSticky,
		"a part is what it is of the whole":                    testParts,
		"a part begins while the rest is on its way":           testPartStarts,
		"a part of a lie does not end":                         testPartOfALie,
		"what was prefetched is held":                          testPrefetch,
		"statistics count what is held":                        testStats,
		"the index remembers tags":                             testTags,
		"the index remembers what was delivered where":         testDelivered,
		"the index remembers parents, the latest first":        testParents,
		"the index lists repositories with admitted manifests": testRepositories,
		"the index refuses names that could be mistaken":       testNames,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func testMissing(t *testing.T, s *Store) {
	mustMiss(t, s, digestOf([]byte("never stored")))
}

func testSizes(t *testing.T, s *Store) {
	sizes := []int{0, 1, holdBack - 1, holdBack, holdBack + 1, 2 * holdBack, 2*holdBack + 1,
		3*holdBack - 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3<<20 + 7}
	for i, size := range sizes {
		for told, tell := range map[string]int64{"told by both": 0, "told by the caller": -1} {
			data := sample(byte(2*i), size)
			if tell != 0 {
				data = sample(byte(2*i+1), size)
			}
			t.Run(fmt.Sprintf("%d bytes, %s", size, told), func(t *testing.T) {
				mustFetch(t, s, data, (&upstream{data: data, size: tell}).from)
				quiet(s)
				mustHold(t, s, data)
				mustFetch(t, s, data, forbidden(t))
			})
		}
		t.Run(fmt.Sprintf("%d bytes, told by nobody", size), func(t *testing.T) {
			data := sample(byte(100+i), size)
			for _, from := range []origin{(&upstream{data: data, size: -1}).from, forbidden(t)} {
				r, size, err := s.Fetch(t.Context(), owner, digestOf(data), -1, 0, -1, from)
				if err != nil {
					t.Fatal(err)
				}
				mustRead(t, r, size, data)
				quiet(s)
			}
		})
	}
}

func testPut(t *testing.T, s *Store) {
	for _, size := range []int{0, 1, holdBack, holdBack + 1, 4 << 20} {
		data := sample(1, size)
		for range 2 {
			if err := s.Put(t.Context(), digestOf(data), data); err != nil {
				t.Fatal(err)
			}
			mustHold(t, s, data)
		}
		mustFetch(t, s, data, forbidden(t))
	}
	data := []byte("right")
	err := s.Put(t.Context(), digestOf(data), []byte("wrong"))
	if _, ok := errors.AsType[*MismatchError](err); !ok {
		t.Errorf("put of other content: %v", err)
	}
	mustMiss(t, s, digestOf(data))
	mustMiss(t, s, digestOf([]byte("wrong")))
}

func testDigests(t *testing.T, s *Store) {
	good := digestOf(nil)
	for _, digest := range []v1.Hash{
		{},
		{Algorithm: "sha256"},
		{Algorithm: "sha512", Hex: good.Hex},
		{Algorithm: "SHA256", Hex: good.Hex},
		{Algorithm: "sha256", Hex: strings.ToUpper(good.Hex)},
		{Algorithm: "sha256", Hex: good.Hex[1:]},
		{Algorithm: "sha256", Hex: good.Hex + "0"},
		{Algorithm: "sha256", Hex: "../" + good.Hex[3:]},
		{Algorithm: "sha256", Hex: strings.Repeat("g", 64)},
		{Algorithm: "../sha256", Hex: good.Hex},
	} {
		_, _, openErr := s.Open(t.Context(), digest)
		_, _, fetchErr := s.Fetch(t.Context(), owner, digest, 0, 0, -1, forbidden(t))
		_, _, knownErr := s.Known(t.Context(), "a/b", digest)
		for _, err := range []error{
			openErr, fetchErr, knownErr,
			s.Put(t.Context(), digest, nil),
			s.Delivered(t.Context(), "a/b", digest),
			s.Delivered(t.Context(), "a/b", good, digest),
		} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v: %v, want a refusal", digest, err)
			}
		}
	}
}

func testHerd(t *testing.T, s *Store) {
	const readers = 30
	data := sample(1, 1<<20)
	from, body, calls := piped(int64(len(data)))
	var first, all sync.WaitGroup
	first.Add(readers)
	for range readers {
		all.Go(func() {
			once := sync.OnceFunc(first.Done)
			defer once()
			r, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, from)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			begin := make([]byte, 1)
			if _, err := io.ReadFull(r, begin); err != nil {
				t.Error(err)
			}
			once()
			rest, err := io.ReadAll(r)
			if err != nil || size != int64(len(data)) || !bytes.Equal(append(begin, rest...), data) {
				t.Errorf("a reader got other content (%d bytes, %v)", len(rest)+1, err)
			}
		})
	}
	body.Write(data[:100])
	first.Wait() // every reader has its first byte before there is a second write
	body.Write(data[100:])
	body.Close()
	all.Wait()
	quiet(s)
	if n := calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	mustHold(t, s, data)
}

func testLeave(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	ctx, cancel := context.WithCancel(t.Context())
	go body.Write(data[:1000])
	leaver, _, err := s.Fetch(ctx, owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	stayer, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, forbidden(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(leaver, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	leaver.Close()
	go func() {
		body.Write(data[1000:])
		body.Close()
	}()
	mustRead(t, stayer, size, data)
	quiet(s)
	mustHold(t, s, data)
}

func testLeaveAlone(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := s.Fetch(ctx, owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	r.Close()
	body.Write(data)
	body.Close()
	quiet(s)
	mustHold(t, s, data)
}

func testContext(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	defer body.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	r, _, err := s.Fetch(ctx, owner, digestOf(data), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	why := errors.New("no more")
	go cancel(why)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, why) {
		t.Errorf("read: %v", err)
	}
}

func testCloseReader(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	defer body.Close()
	r, _, err := s.Fetch(t.Context(), owner, digestOf(data), -1, 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 1))
		read <- err
	}()
	r.Close()
	if err := <-read; err == nil {
		t.Error("a closed reader read")
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func testContextOpening(t *testing.T, s *Store) {
	asked := make(chan context.Context, 1)
	from := func(ctx context.Context, _ int64) (io.ReadCloser, int64, error) {
		asked <- ctx
		<-ctx.Done()
		return nil, 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, _, err := s.Fetch(ctx, owner, digestOf(nil), 0, 0, -1, from); !errors.Is(err, context.Canceled) {
		t.Errorf("fetch: %v", err)
	}
}

func testHoldBack(t *testing.T, s *Store) {
	for _, size := range []int{1, 10, holdBack, holdBack + 1, 300 << 10} {
		for _, tell := range []int64{int64(size), -1} {
			data := sample(byte(size), size)
			if tell < 0 {
				data[0]++
			}
			from, body, _ := piped(tell)
			r, _, err := s.Fetch(t.Context(), owner, digestOf(data), tell, 0, -1, from)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan int)
			go func() {
				n, _ := io.Copy(io.Discard, &untilBlocked{r, make([]byte, 1000), max(size-holdBack, 0)})
				got <- int(n)
			}()
			body.Write(data) // all of it, but the upstream has not said that it is
			if n := <-got; n != max(size-holdBack, 0) {
				t.Errorf("%d of %d bytes were read before the end", n, size)
			}
			more := make(chan int)
			go func() {
				n, err := io.Copy(io.Discard, r)
				if err != nil {
					t.Error(err)
				}
				more <- int(n)
			}()
			select {
			case <-more:
				t.Error("the end was read before it was known to be one")
			default:
			}
			body.Close()
			if n := <-more; n != min(size, holdBack) {
				t.Errorf("the end had %d bytes of %d", n, size)
			}
			r.Close()
		}
	}
}

// untilBlocked reads exactly as many bytes as may be had.
type untilBlocked struct {
	r    io.Reader
	buf  []byte
	left int
}

func (u *untilBlocked) Read(p []byte) (int, error) {
	if u.left == 0 {
		return 0, io.EOF
	}
	n, err := u.r.Read(p[:min(len(p), u.left)])
	u.left -= n
	return n, err
}

func testSlowReader(t *testing.T, s *Store) {
	data := sample(1, 3<<20)
	u := &upstream{data: data}
	slow, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, u.from)
	if err != nil {
		t.Fatal(err)
	}
	mustFetch(t, s, data, u.from)
	quiet(s)
	mustRead(t, slow, -1, data)
	if n := u.calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// testOwners: one owner's transfer, here one that stalls, is no other's.
func testOwners(t *testing.T, s *Store) {
	data := sample(1, 300<<10)
	from, body, _ := piped(int64(len(data)))
	stalled, size, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, from)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(t.Context(), digestOf(data)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is arriving was opened: %v", err)
	}
	u := &upstream{data: data, size: int64(len(data))}
	r, told, err := s.Fetch(t.Context(), "docker.io/library/other", digestOf(data), int64(len(data)), 0, -1, u.from)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, r, told, data)
	if n := u.calls.Load(); n != 1 {
		t.Errorf("the other owner's upstream was asked %d times", n)
	}
	go func() {
		body.Write(data)
		body.Close()
	}()
	mustRead(t, stalled, size, data)
	quiet(s)
	mustHold(t, s, data)
}

func testStats(t *testing.T, s *Store) {
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("empty: %+v", got)
	}
	mustStore(t, s, sample(1, 1000))
	if err := s.Put(t.Context(), digestOf(sample(2, 500)), sample(2, 500)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, sample(1, 1000))
	if got, want := s.Stats(), (Stats{Bytes: 1500, Contents: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
