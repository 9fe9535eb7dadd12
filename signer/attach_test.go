package signer

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func request(subject v1.Hash) Request {
	return Request{Subject: subject, Repository: testRepository, Reference: "reg.test/" + testRepository}
}

// signedBy counts the layers whose signature verifies under each key.
func signedBy(t *testing.T, reg *testRegistry, m *v1.Manifest, keys []crypto.Signer) []int {
	t.Helper()
	counts := make([]int, len(keys))
	for _, layer := range m.Layers {
		payload := reg.blob(t, layer.Digest)
		signature, err := base64.StdEncoding.DecodeString(layer.Annotations[signatureAnnotation])
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range keys {
			if verifies(key.Public(), payload, signature, crypto.SHA256) {
				counts[i]++
			}
		}
	}
	return counts
}

// TestConcurrentSigners lets many writers meet at one tag of a registry whose
// every request takes a random time, and wants each signature exactly once.
func TestConcurrentSigners(t *testing.T) {
	for _, n := range []int{6, 50} {
		for _, locked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d signers, lock file %t", n, locked), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { concurrentSigners(t, n, locked, dir) })
			})
		}
	}
}

func concurrentSigners(t *testing.T, n int, locked bool, dir string) {
	reg := newTestRegistry()
	delay := func(string, string) error {
		time.Sleep(rand.N(30 * time.Millisecond))
		return nil
	}
	reg.before, reg.after = delay, delay
	subject := reg.image(t, "v1")

	keys := make([]crypto.Signer, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range keys {
		keys[i] = mustKey(t)
		config := Config{Registry: reg, Key: keys[i]}
		if locked {
			lock, err := NewFileLock(dir)
			if err != nil {
				t.Fatal(err)
			}
			config.Locker = lock
		}
		s := mustSigner(t, config)
		r := request(subject)
		if n > 6 { // payloads that differ; the few above share one
			r.Annotations = map[string]string{"signer": fmt.Sprint(i)}
		}
		wg.Go(func() {
			if _, err := s.Sign(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d writes for %d signatures in %v", reg.count(http.MethodPut, "/v2/"+testRepository+"/manifests/"+Tag(subject)), n, time.Since(begin))

	m, _ := reg.signatures(t, subject)
	if len(m.Layers) != n {
		t.Errorf("%d layers, want %d", len(m.Layers), n)
	}
	for i, count := range signedBy(t, reg, m, keys) {
		if count != 1 {
			t.Errorf("key %d has %d signatures", i, count)
		}
	}
	reg.checkConfig(t, m)
}

// TestOverwrittenSignature plays another writer that read before us and writes
// after us, at several moments.
func TestOverwrittenSignature(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, SettleFloor * 9 / 10} {
		t.Run(fmt.Sprintf("%v after the write", after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newTestRegistry()
				subject := reg.image(t, "v1")
				other := mustKey(t)
				if _, err := mustSigner(t, Config{Registry: reg, Key: other}).Sign(t.Context(), request(subject)); err != nil {
					t.Fatal(err)
				}
				before, beforeRaw := reg.signatures(t, subject)

				var once sync.Once
				reg.after = func(method, path string) error {
					if method == http.MethodPut {
						once.Do(func() {
							overwrite := func() { reg.put(t, Tag(subject), before.MediaType, beforeRaw) }
							if after == 0 {
								overwrite()
							} else {
								time.AfterFunc(after, overwrite)
							}
						})
					}
					return nil
				}
				key := mustKey(t)
				results, err := mustSigner(t, Config{Registry: reg, Key: key}).Sign(t.Context(), request(subject))
				if err != nil {
					t.Fatal(err)
				}
				if r := results[0]; r.Kept || r.Signatures != 2 {
					t.Errorf("result %+v", r)
				}
				m, _ := reg.signatures(t, subject)
				for i, count := range signedBy(t, reg, m, []crypto.Signer{other, key}) {
					if count != 1 {
						t.Errorf("key %d has %d signatures", i, count)
					}
				}
				if got := reg.count(http.MethodPut, "/v2/"+testRepository+"/manifests/"+Tag(subject)); got != 3 {
					t.Errorf("%d writes, want the other's, ours and ours again", got)
				}
			})
		})
	}
}

func TestAttachMeetsFailures(t *testing.T) {
	broken := errors.New("connection reset")
	tagPath := func(subject v1.Hash) string { return "/v2/" + testRepository + "/manifests/" + Tag(subject) }

	t.Run("a write that failed is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			var failed bool
			reg.before = func(method, _ string) error {
				if method == http.MethodPut && !failed {
					failed = true
					return broken
				}
				return nil
			}
			if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), request(subject)); err != nil {
				t.Fatal(err)
			}
			if m, _ := reg.signatures(t, subject); len(m.Layers) != 1 {
				t.Errorf("%d layers", len(m.Layers))
			}
		})
	})
	t.Run("a write that failed but happened is not repeated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			reg.after = func(method, _ string) error {
				if method == http.MethodPut {
					return broken
				}
				return nil
			}
			if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), request(subject)); err != nil {
				t.Fatal(err)
			}
			if got := reg.count(http.MethodPut, tagPath(subject)); got != 1 {
				t.Errorf("%d writes", got)
			}
		})
	})
	t.Run("a write that keeps failing is an error that says why", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			reg.before = func(method, _ string) error {
				if method == http.MethodPut {
					return broken
				}
				return nil
			}
			_, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), request(subject))
			if !errors.Is(err, broken) || !strings.Contains(err.Error(), subject.String()) {
				t.Errorf("error %v", err)
			}
			if got := reg.count(http.MethodPut, tagPath(subject)); got != maxFailures {
				t.Errorf("%d writes", got)
			}
		})
	})
	t.Run("a registry that forgets every write ends in an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			s := mustSigner(t, Config{Registry: forgetful{reg}})
			_, err := s.Sign(t.Context(), request(subject))
			if err == nil || !strings.Contains(err.Error(), "gave up after 100 attempts") {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("a tag that cannot be read is never written", func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		reg.before = func(method, path string) error {
			if method == http.MethodGet && path == tagPath(subject) {
				return broken
			}
			return nil
		}
		if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), request(subject)); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
		if got := reg.count(http.MethodPut, tagPath(subject)); got != 0 {
			t.Errorf("%d writes", got)
		}
	})
}

// forgetful takes writes of manifests and drops them.
type forgetful struct{ *testRegistry }

func (forgetful) PutManifest(context.Context, string, string, types.MediaType, []byte) (bool, error) {
	return false, nil
}
