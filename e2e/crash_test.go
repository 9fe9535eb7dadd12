package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
	"vidimus/proxy/store"
)

var (
	crashes   = flag.Int("crashes", 15, "how often TestKillAtAnyMoment kills vidimus serve")
	crashSeed = flag.Uint64("crashseed", 0, "what TestKillAtAnyMoment draws its moments from; 0: the clock")
)

// moment is what has just happened when the wait for a kill begins.
type moment int

const (
	starting moment = iota // the process was started, and is not ready
	ready                  // it is, and clients are let in
	arriving               // the first piece of a large blob has come from the upstream
	arrived                // the last
	answered               // a client has got a whole answer
	moved                  // a tag names another image
	momentCount
)

// delay draws how long after a moment the kill comes: mostly within what was
// begun just then, sometimes not before what is written behind, a second late, is
// written.
func delay(random *rand.Rand) time.Duration {
	most := 5 * time.Millisecond
	switch n := random.IntN(100); {
	case n < 8:
		return 900*time.Millisecond + time.Duration(random.Int64N(int64(600*time.Millisecond)))
	case n < 30:
		most = 500 * time.Millisecond
	case n < 65:
		most = 50 * time.Millisecond
	}
	return time.Duration(random.Int64N(int64(most)))
}

// Whatever kill -9 interrupts, nothing partial or wrong is visible: not below the
// directory, before the next process has looked at it, and not to any client;
// and the next pull heals.
//
// The moments are times of the clock, which is the point of it. No outcome
// depends on them.
func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crashes %d -crashseed %d", *crashes, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	k := newKiller(t, random)
	stop := make(chan struct{})
	var pulling sync.WaitGroup
	for i := range 6 {
		pulling.Go(func() { k.clients.run(rand.New(rand.NewPCG(seed, uint64(i)+1)), stop) })
	}
	for i := range *crashes {
		after, wait := moment(random.IntN(int(momentCount))), delay(random)
		if i == 0 {
			after = arrived // there should be something to survive
		}
		if !t.Run(fmt.Sprintf("kill %d, %v after moment %d", i, wait, after), func(t *testing.T) { k.live(t, after, wait) }) {
			break
		}
	}
	close(stop)
	k.clients.serving.Unlock()
	pulling.Wait()
	t.Logf("whole answers: %v; pulls that broke off: %d", k.clients.whole, k.clients.broken)
	if t.Failed() {
		return
	}
	k.mustAgree(t)
	k.mustHeal(t)
	if held, repositories := k.mustAgree(t); held == 0 || len(repositories) == 0 {
		t.Errorf("after an orderly end %d contents are held, of %q", held, repositories)
	}
}

// killer runs one proxy after another on one directory.
type killer struct {
	clients  *crashClients
	random   *rand.Rand
	happened chan moment
	binary   string
	dir      string // of the configuration
	metrics  string // address
}

// newKiller makes everything but the processes. Clients wait to be let in.
func newKiller(t *testing.T, random *rand.Rand) *killer {
	content, up, key := newCrashContent(), lying.New(), lying.P256()
	content.push(up, key)
	k := &killer{
		happened: make(chan moment), binary: built(t, racing),
		dir: real.Dir(t), metrics: real.FreeAddr(t), random: random,
	}
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	k.clients = &crashClients{
		content: content, up: up, addr: real.FreeAddr(t), whole: make(map[string]int),
		http:     &http.Client{Transport: transport, Timeout: answerTime},
		happened: k.tell,
	}
	k.clients.serving.Lock()
	key.WritePublic(t, k.dir, "release.pub")
	// There is room for the largest blob and some others, so that something is
	// evicted all the time.
	real.Write(t, k.dir, "vidimus.yaml", fmt.Sprintf(`version: 1
http: {addr: %q}
metrics: {addr: %q}
cache: {directory: cache, maxSize: 5MiB, tagTTL: 10ms}
upstreams: {docker.io: {url: %q}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "docker.io/**", require: release}
log: {level: warn}
`, k.clients.addr, k.metrics, startPaced(t, up, k.tell)))
	return k
}

// tell tells of a moment if somebody waits for one.
func (k *killer) tell(m moment) {
	select {
	case k.happened <- m:
	default:
	}
}

// await waits for a moment.
func (k *killer) await(t *testing.T, m moment) {
	late := time.After(answerTime)
	for {
		select {
		case got := <-k.happened:
			if got == m {
				return
			}
		case <-late:
			t.Fatalf("moment %d has not come within %v; faults: %v", m, answerTime, k.clients.takeFaults())
		}
	}
}

func (k *killer) start(t *testing.T, isReady func() error) *real.Process {
	return real.Start(t, real.Command{
		Path: k.binary, Args: []string{"serve", "--config", filepath.Join(k.dir, "vidimus.yaml")},
	}, isReady)
}

func (k *killer) isReady() error {
	resp, err := http.Get("http://" + k.metrics + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}

// live runs the proxy until its kill, and checks what is left of it, and what
// was seen of it. Clients are let in when it is ready.
func (k *killer) live(t *testing.T, after moment, wait time.Duration) {
	left := k.files(t, "tmp")
	var p *real.Process
	kill := func() {
		<-time.After(wait)
		k.clients.dying.Store(true)
		p.Signal(t, syscall.SIGKILL)
		p.Stop(t)
	}
	if after == starting {
		p = k.start(t, func() error { return nil })
		kill()
	} else {
		p = k.start(t, k.isReady)
		k.mustHaveSwept(t, left)
		k.letIn(func() {
			switch after {
			case arriving, arrived, answered:
				k.await(t, after)
			case moved:
				k.clients.content.move(k.clients.up, k.random.IntN(len(layerSizes)))
			}
			kill()
		})
	}
	k.scrub(t)
	k.clients.http.CloseIdleConnections()
	k.clients.up.Forget()
	for _, words := range []string{"DATA RACE", "panic", "does not match its digest", "damaged", "cannot be"} {
		if strings.Contains(p.Output(), words) {
			t.Errorf("it printed %q", words)
		}
	}
	for _, err := range k.clients.takeFaults() {
		t.Error(err)
	}
}

// letIn lets clients pull until f returns.
func (k *killer) letIn(f func()) {
	k.clients.dying.Store(false)
	k.clients.serving.Unlock()
	defer k.clients.serving.Lock()
	f()
}

// files describes what lies below a directory of the store, by its path there.
func (k *killer) files(t *testing.T, below string) map[string]fs.FileInfo {
	t.Helper()
	found := make(map[string]fs.FileInfo)
	root := filepath.Join(k.dir, "cache", below)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		found[name] = info
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

// mustHaveSwept checks that none of the files that were left behind is there.
// What is evicted has been there before, as another file.
func (k *killer) mustHaveSwept(t *testing.T, left map[string]fs.FileInfo) {
	t.Helper()
	for name, now := range k.files(t, "tmp") {
		for _, then := range left {
			if os.SameFile(now, then) {
				t.Errorf("the temporary file %s of a dead process is still there", name)
			}
		}
	}
}

// scrub checks everything that is visible under a digest.
func (k *killer) scrub(t *testing.T) {
	t.Helper()
	for name := range k.files(t, "blobs") {
		data, err := os.ReadFile(filepath.Join(k.dir, "cache", "blobs", name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		if want := filepath.Join("sha256", digest[:2], digest); name != want {
			t.Errorf("%s holds %d bytes of %s", name, len(data), digest)
		}
	}
	for name := range k.files(t, ".") {
		if strings.Contains(name, "damaged") {
			t.Errorf("there is %s", name)
		}
	}
}

// mustHeal pulls everything once more, and then stops the proxy in order.
func (k *killer) mustHeal(t *testing.T) {
	t.Helper()
	p := k.start(t, k.isReady)
	c := k.clients
	c.dying.Store(false)
	random := rand.New(rand.NewPCG(0, 0))
	for i, image := range c.content.images {
		c.note(c.pullImage(random, signedImages, imageTag(i), image))
		c.note(c.pullImage(random, signedImages, image.Digest().String(), image))
		c.note(c.pullParts(random, image))
		c.note(c.askWithoutContent(i))
	}
	c.note(c.manifest(signedIndex, "v1", c.content.index))
	for _, child := range c.content.index.Children {
		c.note(c.pullImage(random, signedIndex, child.Digest().String(), child))
	}
	c.note(c.pullMoving(random))
	c.note(c.pullUnsigned(random))
	for _, err := range c.takeFaults() {
		t.Error(err)
	}
	if code := p.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// mustAgree opens the store that no process has, and checks that it counts what
// is there, as soon as it has looked through it, and that its index is whole, though
// a kill may have taken all that was to be written to it. It returns what they hold.
func (k *killer) mustAgree(t *testing.T) (contents int, repositories []string) {
	t.Helper()
	k.scrub(t)
	var log bytes.Buffer
	s, err := store.Open(store.Config{
		Directory: filepath.Join(k.dir, "cache"), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var want store.Stats
	for info := range maps.Values(k.files(t, "blobs")) {
		want.Bytes += info.Size()
		want.Contents++
	}
	if err := real.Eventually(t.Context(), answerTime, func() error {
		if got := s.Stats(); got != want {
			return fmt.Errorf("the store counts %+v, want %+v", got, want)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if repositories, err = s.Repositories(t.Context(), 10, ""); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("the store says %s", &log)
	}
	return want.Contents, repositories
}
