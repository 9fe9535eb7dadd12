package e2e_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

var pushCrashes = flag.Int("pushcrashes", 8, "how often TestKillAtAnyMomentOfAPush kills vidimus serve; -crashseed goes for it, too")

// pushKillers is how many processes are killed at a time: a push mostly waits.
const pushKillers = 4

// pushRepository is pushed to, as the upstream calls it.
const pushRepository = "acme/web"

// Wherever kill -9 interrupts a push, the upstream shows no tag without its signature,
// and the same push again is answered with 201 and served.
//
// The moments are requests to the upstream, and times of the clock, for within the
// second in which a signature is seen to have stayed nothing is asked. No outcome
// depends on them.
func TestKillAtAnyMomentOfAPush(t *testing.T) {
	t.Parallel()
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-pushcrashes %d -crashseed %d", *pushCrashes, seed)
	keys := newKeyPair(t)
	public := readPublic(t, keys.public)
	for i := range min(pushKillers, *pushCrashes) {
		t.Run(fmt.Sprintf("lane %d", i), func(t *testing.T) {
			t.Parallel()
			k := newPushKiller(t, keys, public, rand.New(rand.NewPCG(seed, uint64(i))), i%2 == 1)
			for n := i; n < *pushCrashes && !t.Failed(); n += pushKillers {
				k.crash(t, n)
			}
			for _, tag := range k.up.Tags(pushRepository) { // nothing was lost to what came later
				if err := k.signedIfShown(tag); err != nil {
					t.Error(err)
				}
			}
			t.Logf("killed before the end %d times, after it %d times; the tag was there %d times", k.before, k.after, k.shown)
		})
	}
}

// pushKiller pushes through one process after the other to one upstream.
type pushKiller struct {
	random  *rand.Rand
	public  *ecdsa.PublicKey
	up      *lying.Registry
	binary  string
	config  string
	addr    string
	metrics string
	process *real.Process

	asked  atomic.Int64 // how often the upstream was, since the push began
	target atomic.Int64 // at which the kill comes; 0 for none
	reach  chan struct{}

	requests int           // of a whole push
	takes    time.Duration // a whole push

	mu     sync.Mutex
	faults []error // found when a tag was put

	before, after, shown int
}

func newPushKiller(t *testing.T, keys keyPair, public *ecdsa.PublicKey, random *rand.Rand, listsByTag bool) *pushKiller {
	k := &pushKiller{
		random: random, public: public, up: lying.New(), binary: built(t, released),
		addr: real.FreeAddr(t), metrics: real.FreeAddr(t), reach: make(chan struct{}, 1),
	}
	if listsByTag {
		k.up.WithoutReferrers()
	}
	server := httptest.NewServer(http.HandlerFunc(k.serve))
	t.Cleanup(func() {
		k.up.Close()
		server.CloseClientConnections()
		server.Close()
	})
	k.config = real.Write(t, real.Dir(t), "vidimus.yaml", fmt.Sprintf(`version: 1
http: {addr: %q}
metrics: {addr: %q}
cache: {directory: cache}
upstreams: {local: {url: %q}}
authorities: {release: {keys: [%q], signer: {key: %q, passwordEnv: COSIGN_PASSWORD}}}
policies:
  - {match: "local/acme/**", require: release, push: {sign: release}}
log: {level: warn}
`, k.addr, k.metrics, server.URL, keys.public, keys.private))
	k.start(t)
	begun := time.Now()
	if err := k.push(t, k.content("measured", true), "measured"); err != nil {
		t.Fatal(err)
	}
	k.requests, k.takes = int(k.asked.Load()), time.Since(begun)
	t.Logf("a push takes %v and asks the upstream %d times", k.takes, k.requests)
	return k
}

// serve is the upstream. A tag is looked at as soon as it was put.
func (k *pushKiller) serve(w http.ResponseWriter, r *http.Request) {
	n := k.asked.Add(1)
	if n == k.target.Load() {
		k.reach <- struct{}{}
	}
	k.up.ServeHTTP(w, r)
	_, reference, isManifest := strings.Cut(r.URL.Path, "/manifests/")
	if r.Method == http.MethodPut && isManifest {
		if err := k.signedIfShown(reference); err != nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.faults = append(k.faults, fmt.Errorf("after PUT %s: %w", r.URL.Path, err))
		}
	}
}

func (k *pushKiller) start(t *testing.T) {
	k.process = real.Start(t, real.Command{
		Path: k.binary, Args: []string{"serve", "--config", k.config}, Env: password,
	}, func() error {
		response, err := http.Get("http://" + k.metrics + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// content is an image or an index of two, all of whose bytes are new.
func (k *pushKiller) content(name string, index bool) lying.Content {
	image := func(name string) lying.Content {
		layer := make([]byte, 200<<10)
		for i := range layer {
			layer[i] = byte(k.random.Uint32())
		}
		return lying.ImageWith(name, lying.Layer{MediaType: types.OCIUncompressedLayer, Data: layer})
	}
	if index {
		return lying.Index(image(name+" one"), image(name+" two"))
	}
	return image(name)
}

// push pushes as clients do, the tag last, and returns what went wrong.
func (k *pushKiller) push(t *testing.T, content lying.Content, tag string) error {
	k.asked.Store(0)
	r := newRemote(t, k.addr, "local/"+pushRepository)
	for _, child := range content.Children {
		r.image(child)
	}
	for _, blob := range content.Blobs {
		r.blob(blob)
	}
	r.put(tag, content, http.StatusCreated)
	return r.err
}

// crash kills the process within a push, and pushes the same through the next.
func (k *pushKiller) crash(t *testing.T, n int) {
	tag := fmt.Sprintf("v%d", n)
	index, requests := k.random.IntN(2) == 0, k.requests
	content := k.content(tag, index)
	if !index {
		requests /= 2 // it has less to ask for
	}
	var clock <-chan time.Time
	when := ""
	if k.random.IntN(3) == 0 {
		wait := time.Duration(k.random.Int64N(int64(k.takes) * 5 / 4))
		clock, when = time.After(wait), wait.String()
	} else {
		target := int64(1 + k.random.IntN(requests))
		k.target.Store(target)
		when = fmt.Sprintf("request %d", target)
	}
	pushed := make(chan error, 1)
	go func() { pushed <- k.push(t, content, tag) }()
	ended, err := false, error(nil)
	select {
	case <-clock:
	case <-k.reach:
		<-time.After(time.Duration(k.random.IntN(3000)) * time.Microsecond) // into what the request does
	case err = <-pushed:
		ended = true
	}
	k.process.Signal(t, syscall.SIGKILL)
	k.process.Stop(t)
	if !ended {
		err = <-pushed
	}
	k.target.Store(0)
	select {
	case <-k.reach:
	default:
	}
	if err == nil {
		k.after++
	} else {
		k.before++
	}
	_, _, shown := k.up.Manifest(pushRepository, tag)
	if shown {
		k.shown++
	} else if err == nil {
		t.Errorf("%s, killed at %s: the push was answered with 201, and there is no tag", tag, when)
	}
	if ended && err != nil {
		t.Errorf("%s: the push failed before it was killed: %v", tag, err)
	}
	if err := k.signedIfShown(tag); err != nil {
		t.Errorf("%s, killed at %s: %v", tag, when, err)
	}
	k.start(t)
	if err := k.push(t, content, tag); err != nil {
		t.Errorf("%s, killed at %s, pushed again: %v", tag, when, err)
	}
	for _, reference := range []string{tag, content.Digest().String()} {
		r := newRemote(t, k.addr, "local/"+pushRepository)
		if r.isManifest(r.get("manifests/"+reference, http.StatusOK), content); r.err != nil {
			t.Errorf("%s, killed at %s, pushed again: %v", tag, when, r.err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, err := range append(k.faults, k.signed(content, tag)) {
		if err != nil {
			t.Errorf("%s, killed at %s: %v", tag, when, err)
		}
	}
}

// signedIfShown looks at the upstream itself: what a tag names is signed, with all that
// it lists. Digests, and the tags of evidence, name what need not be.
func (k *pushKiller) signedIfShown(tag string) error {
	body, mediaType, ok := k.up.Manifest(pushRepository, tag)
	if !ok || strings.HasPrefix(tag, "sha256") {
		return nil
	}
	return k.signed(lying.RawManifest(mediaType, body), tag)
}

// signed wants a signature at the tag, and a bundle, of content and all that it lists.
func (k *pushKiller) signed(content lying.Content, tag string) error {
	digests := []v1.Hash{content.Digest()}
	var index v1.IndexManifest
	if err := json.Unmarshal(content.Body, &index); err != nil {
		return err
	}
	for _, child := range index.Manifests {
		digests = append(digests, child.Digest)
	}
	var errs []error
	for _, digest := range digests {
		if err := k.signedAtTag(digest); err != nil {
			errs = append(errs, fmt.Errorf("tag %s is there, and %s is not signed: %w", tag, digest, err))
		}
		if !k.bundled(digest) {
			errs = append(errs, fmt.Errorf("tag %s is there, and %s has no bundle", tag, digest))
		}
	}
	return errors.Join(errs...)
}

// signedAtTag verifies a signature by hand, of what the upstream holds.
func (k *pushKiller) signedAtTag(digest v1.Hash) error {
	body, _, ok := k.up.Manifest(pushRepository, lying.SignatureTag(digest))
	var m v1.Manifest
	if !ok || json.Unmarshal(body, &m) != nil {
		return errors.New("nothing is at the tag of its signatures")
	}
	for _, layer := range m.Layers {
		payload, ok := k.up.Blob(pushRepository, layer.Digest)
		signature, err := base64.StdEncoding.DecodeString(layer.Annotations["dev.cosignproject.cosign/signature"])
		sum := sha256.Sum256(payload)
		if ok && err == nil && ecdsa.VerifyASN1(k.public, sum[:], signature) && strings.Contains(string(payload), `"`+digest.String()+`"`) {
			return nil
		}
	}
	return errors.New("none of its signatures verifies")
}

// bundled reports whether the upstream lists a bundle that refers to digest, and holds it.
func (k *pushKiller) bundled(digest v1.Hash) bool {
	answer := httptest.NewRecorder()
	k.up.ServeHTTP(answer, httptest.NewRequest("GET", "/v2/"+pushRepository+"/referrers/"+digest.String(), nil))
	list := answer.Body.Bytes()
	if answer.Code != http.StatusOK {
		list, _, _ = k.up.Manifest(pushRepository, lying.FallbackTag(digest))
	}
	var index v1.IndexManifest
	if json.Unmarshal(list, &index) != nil {
		return false
	}
	for _, desc := range index.Manifests {
		if _, _, ok := k.up.Manifest(pushRepository, desc.Digest.String()); ok && strings.HasPrefix(desc.ArtifactType, "application/vnd.dev.sigstore.bundle") {
			return true
		}
	}
	return false
}

func readPublic(t *testing.T, path string) *ecdsa.PublicKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		t.Fatalf("%s is a %T", path, key)
	}
	return public
}
