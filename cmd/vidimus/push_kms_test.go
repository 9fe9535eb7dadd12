package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/signer"
	"vidimus/signer/kms"
)

// startSigningVault is the transit engine of a Vault that holds key, and signs while it
// is up.
func startSigningVault(t *testing.T, key crypto.Signer) (up *atomic.Bool, asked *atomic.Int64) {
	t.Helper()
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	up, asked = new(atomic.Bool), new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var request struct{ Input []byte }
		switch {
		case !up.Load():
			http.Error(w, `{"errors":["sealed"]}`, http.StatusBadRequest)
		case !strings.Contains(r.URL.Path, "/transit/sign/"):
			text, _ := json.Marshal(string(public))
			fmt.Fprintf(w, `{"data":{"latest_version":1,"keys":{"1":{"name":"P-256","public_key":%s}}}}`, text)
		default:
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				t.Error(err)
			}
			signature, err := key.Sign(rand.Reader, request.Input, crypto.SHA256)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, `{"data":{"signature":"vault:v1:%s"}}`, base64.StdEncoding.EncodeToString(signature))
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "token")
	return up, asked
}

const pushKMSConfig = `version: 1
http: {addr: '127.0.0.1:0'}
upstreams: {local: {url: 'http://127.0.0.1:1'}}
authorities: {release: {keys: [release.pub], signer: {key: 'hashivault://release'}}}
policies: [{match: local/acme/**, require: release, push: {sign: release}}]
`

// loadKMS reads pushKMSConfig as the server does, whose public key is that of key.
func loadKMS(t *testing.T, key crypto.Signer, keys *kms.Cache) *loaded {
	t.Helper()
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "release.pub"), string(public))
	writeFile(t, filepath.Join(dir, "vidimus.yaml"), pushKMSConfig)
	l, err := load(askingKMS(fromFile(filepath.Join(dir, "vidimus.yaml")), keys), lookupIn(nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPushesAreSignedWithAKeyInAKMS(t *testing.T) {
	key := generateKey(t)
	up, asked := startSigningVault(t, key)
	up.Store(true)
	l := loadKMS(t, key, new(kms.Cache))
	p := &pushing{T: t, up: lying.Start(t), loaded: l, key: l.Policy.Authorities[0].Keys[0]}
	l.Upstreams[0].Config.URL, l.Upstreams[0].URLHost = p.up.URL, p.up.Host
	p.start()

	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			image := lying.Image(fmt.Sprint("kms ", i))
			repository := fmt.Sprint("acme/web", i)
			if response, text := p.image("local/"+repository, image, "v1"); response.StatusCode != http.StatusCreated {
				t.Errorf("%d %s", response.StatusCode, text)
			}
			if got := p.signatures(repository, image.Digest()); len(got) != 1 {
				t.Errorf("signatures of %s: %v", repository, got)
			}
		})
	}
	all.Wait()

	up.Store(false)
	before := asked.Load()
	index := lying.Index(lying.Image("a"), lying.Image("b"), lying.Image("c"), lying.Image("d"), lying.Image("e"), lying.Image("f"))
	response, text := p.image("local/acme/web", index, "v1")
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || !strings.Contains(text, "the same push again will") {
		t.Errorf("while it is out: %d %s", response.StatusCode, text)
	}
	if got := p.up.Tags("acme/web"); len(got) != 0 {
		t.Errorf("tags %q", got)
	}
	if got := asked.Load() - before; got > 4 { // those that are asked at the same time
		t.Errorf("it was asked %d times for one push", got)
	}
	up.Store(true)
	p.created(p.image("local/acme/web", index, "v1"))
	if status := p.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("it is pulled with %d", status)
	}
}

// Whoever could push while the KMS is out would otherwise have its authority's older
// signatures count for repositories that they do not name.
func TestAKMSThatIsOutAtTheStartLeavesNoSigner(t *testing.T) {
	key := generateKey(t)
	up, _ := startSigningVault(t, key)
	l := loadKMS(t, key, new(kms.Cache))
	if why := l.unreachable()[signerOf("release")]; len(l.Signers) != 0 || !strings.Contains(why, "hashivault://release") {
		t.Errorf("%d signers, and the reason is %q", len(l.Signers), why)
	}
	if id := l.Policy.Authorities[0].Keys[0].ID(); len(l.Policy.SigningKeys) != 1 || l.Policy.SigningKeys[0] != id {
		t.Errorf("the keys that sign pushes are %q, want %s", l.Policy.SigningKeys, id)
	}
	p := &pushing{T: t, up: lying.Start(t), loaded: l, key: l.Policy.Authorities[0].Keys[0]}
	l.Upstreams[0].Config.URL, l.Upstreams[0].URLHost = p.up.URL, p.up.Host
	p.start()
	p.suspend(l.unreachable())
	if response, text := p.image("local/acme/web", lying.Image("out"), "v1"); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	up.Store(true)
	if later := loadKMS(t, key, new(kms.Cache)); len(later.Signers) != 1 || len(later.unreachable()) != 0 {
		t.Errorf("once it answers, %d signers and %v", len(later.Signers), later.unreachable())
	}
}

// failingKey fails, and counts how often it is asked.
type failingKey struct {
	crypto.Signer
	asked int
}

func (k *failingKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	k.asked++
	return nil, errors.New("the KMS did not answer")
}

func (k *failingKey) Hash() crypto.Hash { return crypto.SHA384 }

func TestAKeyThatFailedIsNotAskedAgainForThePush(t *testing.T) {
	key := &failingKey{Signer: generateKey(t)}
	once := failingOnce(t.Context(), key)
	for range 3 {
		if _, err := once.Sign(rand.Reader, nil, crypto.SHA384); err == nil || err.Error() != "the KMS did not answer" {
			t.Errorf("the error is %v", err)
		}
	}
	if fixed, ok := once.(interface{ Hash() crypto.Hash }); key.asked != 1 || !ok || fixed.Hash() != crypto.SHA384 {
		t.Errorf("asked %d times; its hash is known: %v", key.asked, ok)
	}
	if _, fixed := failingOnce(t.Context(), generateKey(t)).(interface{ Hash() crypto.Hash }); fixed {
		t.Error("a key of a file signs by one hash alone")
	}
}

// hangingKey fails the first who signs with it, when others are on their way; it lets the
// second go on when the failure of the first has ended the push.
type hangingKey struct {
	crypto.Signer
	came, asked   atomic.Int64
	second, third chan struct{} // closed when they are there
	ended         chan struct{}
}

// Hash is asked for right before a signature.
func (k *hangingKey) Hash() crypto.Hash {
	switch k.came.Add(1) {
	case 1:
		<-k.second
		<-k.third
	case 2:
		close(k.second)
		<-k.ended
	}
	return crypto.SHA256
}

func (k *hangingKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	k.asked.Add(1)
	return nil, errors.New("the KMS did not answer")
}

// A push that signs much waits for a KMS that hangs once: who comes to it after it has
// failed another part of the same push does not ask it any more.
func TestAPushThatFailedAsksTheKMSNoMore(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	p := newPushing(t, up)
	key := &hangingKey{
		Signer: generateKey(t), second: make(chan struct{}), third: make(chan struct{}), ended: make(chan struct{}),
	}
	held := upstreamRegistry{name: "local", client: p.revision.Clients["local"], seen: new(tagVersions)}
	signs := &pushSigner{held, signer.Config{Registry: held, Key: key, Settle: pushSettle}, p.key}
	request := proxy.SignRequest{Repository: "local/acme/web", Formats: []string{"bundle"}}
	for _, name := range []string{"a", "b", "c"} {
		digest := up.Push("acme/web", lying.Image(name))
		request.Subjects = append(request.Subjects, proxy.SignSubject{Digest: digest, Reference: "local/acme/web"})
	}
	// One of them does not come to the key: its subject is being read until the push ends.
	up.Lie(lying.Manifest("acme/web", request.Subjects[2].Digest.String()).GET(), lying.Before(func(ctx context.Context) {
		close(key.third)
		<-ctx.Done()
		close(key.ended)
	}))
	if err := signs.Sign(t.Context(), request); err == nil || !strings.Contains(err.Error(), "the KMS did not answer") {
		t.Errorf("the error is %v", err)
	}
	if n := key.asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

func TestAKeyIsDecryptedOnce(t *testing.T) {
	files, err := pushKeys()
	if err != nil {
		t.Fatal(err)
	}
	keys := new(privateKeys)
	first, err := keys.parse([]byte(files["release.key"]), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := keys.parse([]byte(files["release.key"]), []byte("secret")); err != nil || again != first {
		t.Errorf("it is another one: %v", err)
	}
	if _, err := keys.parse([]byte(files["release.key"]), []byte("guess")); !errors.Is(err, signer.ErrPassword) {
		t.Errorf("with another password: %v", err)
	}
	if other, err := keys.parse([]byte(files["other.key"]), []byte("secret")); err != nil || other == first {
		t.Errorf("another file: %v", err)
	}
}

func TestSecretsOfHooksAndUploads(t *testing.T) {
	inDirectory(t, map[string]string{
		"vidimus.yaml": plainConfig + "http: {uploadKeyEnv: UPLOAD}\nhooks: {tokenFile: token}\n",
		"token":        "a-token-of-enough-length\r\n",
	})
	upload := strings.Repeat("k", minUploadKey)
	l, err := load(fromFile("vidimus.yaml"), lookupIn(map[string]string{"UPLOAD": upload}), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if l.HookToken != "a-token-of-enough-length" || string(l.UploadKey) != upload || len(l.Warnings) != 2 {
		t.Errorf("token %q, key %q, warnings %v", l.HookToken, l.UploadKey, l.Warnings)
	}
	other := *l
	other.UploadKey = []byte(strings.Repeat("j", minUploadKey))
	if names := needsRestart(l, &other); len(names) != 1 || !strings.Contains(names[0], "uploadKey") {
		t.Errorf("restart for %q", names)
	}
	if err := os.WriteFile("token", []byte("another-token-of-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := load(fromFile("vidimus.yaml"), lookupIn(map[string]string{"UPLOAD": upload}), time.Now())
	if err != nil || changed.sum == l.sum || changed.ID != l.ID {
		t.Errorf("another token is no other revision, or shows in its id: %v", err)
	}
}
