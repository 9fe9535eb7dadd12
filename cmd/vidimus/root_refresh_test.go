package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sigs "github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"vidimus/verifier"
)

// renewedRoot is a trust root that is another than the one built in.
var renewedRoot = bytes.Replace(verifier.PublicRoot(), []byte("https://ctfe.sigstore.dev/test"), []byte("https://ctfe.sigstore.dev/next"), 1)

// tufRepository is a TUF repository with one target, signed with one key.
type tufRepository struct {
	*httptest.Server
	root  []byte
	files map[string][]byte
	down  atomic.Bool
}

func newTUFRepository(t *testing.T, target []byte, expires time.Time) *tufRepository {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sigs.LoadSigner(private, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	r := &tufRepository{files: make(map[string][]byte)}
	root, targets := metadata.Root(expires), metadata.Targets(expires)
	snapshot, timestamp := metadata.Snapshot(expires), metadata.Timestamp(expires)
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := root.Signed.AddKey(key, role); err != nil {
			t.Fatal(err)
		}
	}
	info, err := metadata.TargetFile().FromBytes("trusted_root.json", target, "sha256")
	if err != nil {
		t.Fatal(err)
	}
	targets.Signed.Targets["trusted_root.json"] = info
	sign := func(name string, m interface {
		Sign(sigs.Signer) (*metadata.Signature, error)
		ToBytes(bool) ([]byte, error)
	}) []byte {
		if _, err := m.Sign(signer); err != nil {
			t.Fatal(err)
		}
		data, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		r.files["/"+name] = data
		return data
	}
	r.root = sign("1.root.json", root)
	sign("1.targets.json", targets)
	sign("1.snapshot.json", snapshot)
	sign("timestamp.json", timestamp)
	r.files[fmt.Sprintf("/targets/%s.trusted_root.json", info.Hashes["sha256"])] = target
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		data, ok := r.files[q.URL.Path]
		switch {
		case r.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(data)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *tufRepository) fetch(t *testing.T, directory string) ([]byte, error) {
	t.Helper()
	c := &Config{Egress: egressConfig{Proxy: "none"}, Cache: cacheConfig{Directory: file{Name: directory}}}
	return tufSource{r.URL, r.root}.fetcher(func() *Config { return c })(t.Context())
}

func TestTheTrustRootIsFetchedFromItsRepository(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	for _, directory := range []string{"", t.TempDir()} {
		r := newTUFRepository(t, renewedRoot, soon)
		if got, err := r.fetch(t, directory); err != nil || !bytes.Equal(got, renewedRoot) {
			t.Fatalf("kept in %q: %v", directory, err)
		}
		r.down.Store(true)
		got, err := r.fetch(t, directory)
		if directory == "" && err == nil || directory != "" && (err != nil || !bytes.Equal(got, renewedRoot)) {
			t.Errorf("kept in %q, and the repository is down: %v", directory, err)
		}
	}
}

func TestAnotherTrustRootThanTheSignedOneIsRefused(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	t.Run("another file", func(t *testing.T) {
		r := newTUFRepository(t, renewedRoot, soon)
		for name := range r.files {
			if strings.HasPrefix(name, "/targets/") {
				r.files[name] = verifier.PublicRoot()
			}
		}
		if _, err := r.fetch(t, ""); err == nil {
			t.Error("it is taken")
		}
	})
	t.Run("another repository", func(t *testing.T) {
		r, other := newTUFRepository(t, renewedRoot, soon), newTUFRepository(t, renewedRoot, soon)
		r.root = other.root
		if _, err := r.fetch(t, ""); err == nil {
			t.Error("it is taken")
		}
	})
	t.Run("expired metadata", func(t *testing.T) {
		if _, err := newTUFRepository(t, renewedRoot, time.Now().Add(-time.Hour)).fetch(t, ""); err == nil {
			t.Error("it is taken")
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		r := newTUFRepository(t, renewedRoot, soon)
		s := httptest.NewServer(http.RedirectHandler(r.URL+"/timestamp.json", http.StatusFound))
		t.Cleanup(s.Close)
		r.URL = s.URL
		if _, err := r.fetch(t, ""); err == nil {
			t.Error("it is followed")
		}
	})
	t.Run("what is kept was changed", func(t *testing.T) {
		directory := t.TempDir()
		r := newTUFRepository(t, renewedRoot, soon)
		if _, err := r.fetch(t, directory); err != nil {
			t.Fatal(err)
		}
		changed := 0
		err := filepath.WalkDir(directory, func(name string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.Contains(filepath.Dir(name), "targets") {
				changed++
				return os.WriteFile(name, verifier.PublicRoot(), 0o600)
			}
			return err
		})
		if err != nil || changed == 0 {
			t.Fatalf("%d files changed: %v", changed, err)
		}
		r.down.Store(true)
		if _, err := r.fetch(t, directory); err == nil {
			t.Error("it is believed")
		}
	})
}

const publicConfig = `
version: 1
upstreams: {docker.io: {}}
trustedRoot: sigstore
authorities: {ci: {keyless: {issuer: "https://a.example", subject: x}}}
policies: [{match: "docker.io/**", require: ci}]
`

// refreshing runs a refresher beside a reloader in a bubble, where answer is what the
// repository has.
func refreshing(t *testing.T, config string, answer func(n int) ([]byte, error), test func(r *reloader, log *lockedBuffer, fetched *atomic.Int32)) {
	t.Helper()
	inDirectory(t, map[string]string{"vidimus.yaml": config})
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		var fetched atomic.Int32
		f := &rootRefresher{log: slog.New(slog.NewTextHandler(&log, nil)), fetch: func(context.Context) ([]byte, error) {
			return answer(int(fetched.Add(1)))
		}}
		r, err := openReloader(reloadConfig{From: f.wrap(fromFile("vidimus.yaml")), Lookup: lookupIn(nil)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go r.Run(ctx, func(*revision) error { return nil })
		go f.run(ctx, func() bool { return r.Revision().usesPublicRoot() }, r.Reload)
		test(r, &log, &fetched)
	})
}

func TestARefreshedTrustRootIsANewRevision(t *testing.T) {
	before := verifier.PublicRoot()
	refreshing(t, publicConfig, func(n int) ([]byte, error) {
		switch n {
		case 1:
			return before, nil // the one at hand
		case 2:
			return nil, errors.New("no network")
		case 3:
			return []byte("{}"), nil
		}
		return renewedRoot, nil
	}, func(r *reloader, log *lockedBuffer, fetched *atomic.Int32) {
		first := r.Revision()
		for _, step := range []struct {
			pass    time.Duration
			fetched int32
			same    bool
		}{{time.Second, 1, true}, {refreshEvery, 2, true}, {refreshAgain, 3, true}, {refreshAgain, 4, false}, {refreshEvery, 5, false}} {
			time.Sleep(step.pass)
			synctest.Wait()
			if same := r.Revision().ID == first.ID; fetched.Load() != step.fetched || same != step.same {
				t.Errorf("fetched %d times, the same revision: %v; want %+v", fetched.Load(), same, step)
			}
		}
		root := r.Revision().Policy.Authorities[0].Root
		if root.ID() == first.Policy.Authorities[0].Root.ID() || !r.Status().Successful() {
			t.Errorf("the authority has the trust root %s: %+v", root.ID(), r.Status())
		}
		if text := log.String(); strings.Count(text, "is not refreshed") != 2 || strings.Count(text, "is refreshed") != 1 {
			t.Errorf("log:\n%s", text)
		}
	})
}

func TestNothingIsFetchedThatNobodyNames(t *testing.T) {
	refreshing(t, plainConfigWithout, func(int) ([]byte, error) { return nil, errors.New("asked") }, func(r *reloader, _ *lockedBuffer, fetched *atomic.Int32) {
		time.Sleep(48 * time.Hour)
		if n := fetched.Load(); n != 0 {
			t.Errorf("fetched %d times", n)
		}
	})
	if slices.Equal(renewedRoot, verifier.PublicRoot()) {
		t.Error("the tests' other trust root is the same")
	}
}

const plainConfigWithout = "version: 1\nupstreams: {docker.io: {}}\n"

// TestHostileMetadataEndsNoProcess: the libraries that read it have panicked on some.
func TestHostileMetadataEndsNoProcess(t *testing.T) {
	refreshing(t, publicConfig, func(n int) ([]byte, error) {
		if n == 1 {
			panic("assignment to entry in nil map")
		}
		return renewedRoot, nil
	}, func(r *reloader, log *lockedBuffer, _ *atomic.Int32) {
		first := r.Revision().ID
		time.Sleep(time.Second)
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, "is not refreshed") || !strings.Contains(text, "panicked: assignment to entry in nil map") {
			t.Errorf("log:\n%s", text)
		}
		time.Sleep(refreshAgain)
		synctest.Wait()
		if r.Revision().ID == first {
			t.Error("it is not tried again")
		}
	})
}
