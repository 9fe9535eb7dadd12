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
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/signer"
	"vidimus/verifier"
)

// pushing is a server before an upstream called local, whose acme/** is signed by
// release when it is pushed, and whose open/** is stored as it comes.
type pushing struct {
	*testing.T
	up     *lying.Registry
	dir    string
	server *server
	url    string
	key    verifier.Key
	out    lockedBuffer
}

const pushingConfig = `version: 1
http: {addr: '127.0.0.1:0'}
metrics: {addr: ''}
upstreams: {local: {url: '%s'}}
authorities:
  release: {keys: [release.pub], signer: {key: release.key, passwordFile: password}}
  other: {keys: [other.pub]}
policies:
  - {match: local/acme/**, require: release, push: {sign: release, annotations: {env: test}, delete: true}}
  - {match: local/open/**, allow: unverified, push: {unsigned: true, delete: true}}
  - {match: local/closed/**, allow: unverified}
`

// pushKey is one key for all tests: to encrypt it takes long.
var pushKey = sync.OnceValues(func() (files map[string]string, err error) {
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

func newPushing(t *testing.T, up *lying.Registry) *pushing {
	t.Helper()
	p := &pushing{T: t, up: up, dir: t.TempDir()}
	files, err := pushKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		p.write(name, content)
	}
	if p.key, err = verifier.ParseKey([]byte(files["release.pub"])); err != nil {
		t.Fatal(err)
	}
	p.write("vidimus.yaml", fmt.Sprintf(pushingConfig, up.URL))
	p.start()
	return p
}

func (p *pushing) write(name, content string) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
		p.Fatal(err)
	}
}

// start is a new process with the files as they are.
func (p *pushing) start() {
	p.Helper()
	s, err := newServer(serverConfig{
		From: fromFile(filepath.Join(p.dir, "vidimus.yaml")), Lookup: lookupIn(nil), Stdout: &p.out, Stderr: io.Discard, Drain: time.Second,
	})
	if err != nil {
		p.Fatal(err)
	}
	web := httptest.NewServer(s.proxy)
	p.Cleanup(func() { web.Close(); s.close() })
	p.server, p.url = s, web.URL
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
	upstream, ok := p.server.reloader.Revision().Clients["local"]
	if !ok {
		p.Fatal("no client")
	}
	here := registryRepository{upstream, repository}
	report := verifier.Verify(context.Background(), direct{here, here}, verifier.Subject{Repository: repository, Digest: digest},
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
