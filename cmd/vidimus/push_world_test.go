package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/proxy/store"
	"vidimus/signer"
	"vidimus/verifier"
)

// pushing is a proxy before an upstream called local, whose acme/** is signed by
// release when it is pushed, and whose open/** is stored as it comes.
type pushing struct {
	*testing.T
	up       *lying.Registry
	loaded   *loaded
	shared   observers
	revision *revision
	proxy    *proxy.Proxy
	hooks    proxy.Hooks    // nil: registries can tell nothing
	metrics  *proxy.Metrics // nil: nothing is counted
	records  lockedBuffer
	url      string
	key      verifier.Key
	now      func() time.Time // of the next start; nil is time.Now
}

const pushingConfig = `version: 1
http: {addr: '127.0.0.1:0'}
metrics: {addr: ''}
upstreams: {local: {url: 'http://127.0.0.1:1'}}
authorities:
  release: {keys: [release.pub], signer: {key: release.key, passwordFile: password}}
  other: {keys: [other.pub]}
policies:
  - {match: local/acme/**, require: release, push: {sign: release, annotations: {env: test}, delete: true}}
  - {match: local/tags/**, require: release, push: {sign: release, formats: [tag], delete: true}}
  - {match: local/bundles/**, require: release, push: {sign: release, formats: [bundle], delete: true}}
  - {match: local/root/**, require: release, push: {sign: release, recursive: false}}
  - {match: local/open/**, allow: unverified, push: {unsigned: true, delete: true}}
  - {match: local/closed/**, allow: unverified}
`

// pushKeys are the files of two keys, the same for all tests: to encrypt one takes
// long.
var pushKeys = sync.OnceValues(func() (files map[string]string, err error) {
	files = map[string]string{"password": "secret\n"}
	for _, name := range []string{"release", "other"} {
		key, err := signer.GenerateKey()
		if err != nil {
			return nil, err
		}
		private, err := signer.EncodePrivateKey(key, []byte("secret"))
		if err != nil {
			return nil, err
		}
		public, err := signer.EncodePublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		files[name+".key"], files[name+".pub"] = string(private), string(public)
	}
	return files, nil
})

// pushDirectory writes the files of pushKeys and a configuration into a directory.
func pushDirectory(dir, config string) error {
	files, err := pushKeys()
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "vidimus.yaml"), []byte(config), 0o600)
}

// pushLoaded is pushingConfig, whose key is decrypted once.
var pushLoaded = sync.OnceValues(func() (*loaded, error) {
	dir, err := os.MkdirTemp("", "vidimus-push-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := pushDirectory(dir, pushingConfig); err != nil {
		return nil, err
	}
	return load(fromFile(filepath.Join(dir, "vidimus.yaml")), lookupIn(nil), time.Now())
})

// pushSettle is enough where nobody else writes.
const pushSettle = 10 * time.Millisecond

func newPushing(t *testing.T, up *lying.Registry) *pushing {
	t.Helper()
	once, err := pushLoaded()
	if err != nil {
		t.Fatal(err)
	}
	l := *once
	l.Upstreams = slices.Clone(l.Upstreams)
	l.Upstreams[0].Config.URL = up.URL
	l.Upstreams[0].URLHost = up.Host
	p := &pushing{T: t, up: up, loaded: &l, key: once.Policy.Authorities[0].Keys[0]}
	p.start()
	return p
}

// start is a new process, which shares nothing with the one before.
func (p *pushing) start() {
	p.Helper()
	p.shared = observers{Locks: new(proxy.Locks), Settle: pushSettle}
	var err error
	if p.revision, err = p.loaded.build(p.shared, nil, nil); err != nil {
		p.Fatal(err)
	}
	s, err := store.Open(store.Config{})
	if err != nil {
		p.Fatal(err)
	}
	p.proxy, err = proxy.New(proxy.Config{
		Now: p.now, Hooks: p.hooks, Metrics: p.metrics, Store: s, Index: s, Recorder: proxy.NewDecisionLog(&p.records), Locks: p.shared.Locks, Merge: signer.Union, Settle: pushSettle,
	}, p.revision.Proxy)
	if err != nil {
		p.Fatal(err)
	}
	web := httptest.NewServer(p.proxy)
	p.Cleanup(func() {
		web.Close()
		p.proxy.Close()
		if err := s.Close(); err != nil {
			p.Error(err)
		}
		for _, client := range p.revision.Clients {
			client.Close()
		}
	})
	p.url = web.URL
}

// suspend makes another revision, in which these authorities or signers are.
func (p *pushing) suspend(trouble map[string]string) {
	p.Helper()
	r, err := p.loaded.build(p.shared, trouble, p.revision)
	if err != nil {
		p.Fatal(err)
	}
	if err := p.proxy.Use(r.Proxy); err != nil {
		p.Fatal(err)
	}
}

// do sends a request, and returns the answer with its body read.
func (p *pushing) do(method, target string, header http.Header, body []byte) (*http.Response, string) {
	p.Helper()
	if !strings.HasPrefix(target, "http") {
		target = p.url + target
	}
	request, err := http.NewRequestWithContext(context.Background(), method, target, bytes.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.Fatal(err)
	}
	return response, string(text)
}

// blob pushes a blob in three steps, and returns the last answer.
func (p *pushing) blob(repository string, content []byte) (*http.Response, string) {
	p.Helper()
	response, text := p.do("POST", "/v2/"+repository+"/blobs/uploads/", nil, nil)
	if response.StatusCode != http.StatusAccepted {
		return response, text
	}
	if response, text = p.do("PATCH", response.Header.Get("Location"), nil, content); response.StatusCode != http.StatusAccepted {
		return response, text
	}
	return p.do("PUT", response.Header.Get("Location")+"?digest="+lying.Digest(content).String(), nil, nil)
}

// manifest pushes a manifest under a reference.
func (p *pushing) manifest(repository, reference string, content lying.Content) (*http.Response, string) {
	p.Helper()
	return p.do("PUT", "/v2/"+repository+"/manifests/"+reference, http.Header{"Content-Type": {content.MediaType}}, content.Body)
}

// image pushes all of an image and its children by digest, and then a tag for it.
// It stops at the first answer that is not 201, which it returns.
func (p *pushing) image(repository string, content lying.Content, tag string) (*http.Response, string) {
	p.Helper()
	for _, child := range content.Children {
		if response, text := p.image(repository, child, child.Digest().String()); response.StatusCode != http.StatusCreated {
			return response, text
		}
	}
	for _, blob := range content.Blobs {
		if response, text := p.blob(repository, blob); response.StatusCode != http.StatusCreated {
			return response, text
		}
	}
	return p.manifest(repository, tag, content)
}

// created fails the test unless an answer is 201.
func (p *pushing) created(response *http.Response, text string) *http.Response {
	p.Helper()
	if response.StatusCode != http.StatusCreated {
		p.Fatalf("%s: %d %s", response.Request.URL.Path, response.StatusCode, text)
	}
	return response
}

// pulls returns the status of a pull by tag or digest.
func (p *pushing) pulls(repository, reference string) int {
	p.Helper()
	response, _ := p.do("GET", "/v2/"+repository+"/manifests/"+reference, nil, nil)
	return response.StatusCode
}

// signed is what the layers of a signature artifact say.
type signed struct {
	name        string
	annotations map[string]string
}

// signatures returns the payloads that the upstream holds about digest and that key
// has signed, each as what it claims.
func (p *pushing) signatures(repository string, digest v1.Hash) []signed {
	p.Helper()
	here := registryRepository{p.revision.Clients["local"], repository}
	report := verifier.Verify(context.Background(), direct{image: here, evidence: here}, verifier.Subject{Repository: repository, Digest: digest},
		[]verifier.Authority{{Name: "release", Keys: []verifier.Key{p.key}}}, verifier.Tags(), nil)
	var found []signed
	for _, e := range report.Evidence {
		if !e.Verified() {
			p.Errorf("evidence that does not verify: %s", e.Detail())
			continue
		}
		s := signed{e.ClaimedName(), make(map[string]string)}
		for name, value := range e.Annotations() {
			s.annotations[name] = fmt.Sprint(value)
		}
		found = append(found, s)
	}
	return found
}

// layersOf returns how many layers the upstream's manifest has.
func (p *pushing) layersOf(repository, reference string) int {
	p.Helper()
	body, _, ok := p.up.Manifest(repository, reference)
	var m struct{ Layers []json.RawMessage }
	if !ok || json.Unmarshal(body, &m) != nil {
		return 0
	}
	return len(m.Layers)
}
