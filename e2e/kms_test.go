package e2e_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"vidimus/e2e/real"
)

// startVault is the transit engine of a Vault, in this process, with one key once that
// has been made; it returns what reaches it.
func startVault(t *testing.T) (env []string) {
	t.Helper()
	var absent atomic.Bool
	absent.Store(true)
	const token = "s.canary-of-the-vault"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Input []byte `json:"input"`
		}
		switch {
		case r.Header.Get("X-Vault-Token") != token:
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v1/transit/keys/release" && r.Method == http.MethodPut:
			absent.Store(false)
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/v1/transit/keys/release" && absent.Load():
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/v1/transit/keys/release":
			fmt.Fprintf(w, `{"data":{"latest_version":1,"keys":{"1":{"name":"P-256","public_key":%s}}}}`, public)
		case strings.HasPrefix(r.URL.Path, "/v1/transit/sign/release") && json.NewDecoder(r.Body).Decode(&asked) == nil:
			signature, err := key.Sign(rand.Reader, asked.Input, crypto.SHA256)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, `{"data":{"signature":"vault:v1:%s"}}`, base64.StdEncoding.EncodeToString(signature))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return []string{"VAULT_ADDR=" + server.URL, "VAULT_TOKEN=" + token}
}

// A key that never leaves its KMS signs; cosign verifies with its public half, and the
// proxy asks the KMS itself.
func TestAKeyInAKMSSignsAndIsTrusted(t *testing.T) {
	t.Parallel()
	const key = "hashivault://release"
	env := startVault(t)
	registry := real.StartDistribution(t)
	_, image := pushed(t, registry, "acme/kms")
	dir := t.TempDir()
	if r := vidimus(t, dir, env, "sign", "--key", key, image); r.Code != 3 {
		t.Fatalf("it signs with a key that is not there: exit code %d\n%s", r.Code, r.Output())
	}
	must(t, vidimus(t, dir, env, "generate-key-pair", "--kms", key))
	must(t, vidimus(t, dir, env, "sign", "--key", key, image))
	must(t, vidimus(t, dir, env, "public-key", "--key", key, "--outfile", "printed.pub"))
	made, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
	printed, otherErr := os.ReadFile(filepath.Join(dir, "printed.pub"))
	if err != nil || otherErr != nil || string(made) != string(printed) {
		t.Errorf("%v, %v: made %s, printed %s", err, otherErr, made, printed)
	}
	if r := vidimus(t, dir, env, "generate-key-pair", "--kms", key); r.Code != 2 || !strings.Contains(r.Stderr, "cosign.pub exists already") {
		t.Errorf("overwritten: exit code %d\n%s", r.Code, r.Output())
	}
	for _, major := range []int{2, 3} {
		must(t, real.NewCosign(t, major).Verify(t, filepath.Join(dir, "cosign.pub"), image))
	}
	must(t, vidimus(t, dir, env, "verify", "--key", key, image))

	next := newKeyPair(t)
	resigned := must(t, vidimus(t, dir, append(env, password...), "resign", "--from", key, "--key", next.private, registry+"/acme/kms"))
	if !strings.Contains(resigned.Stdout, "2 signatures signed") {
		t.Errorf("resigned: %s", resigned.Output())
	}
	for _, major := range []int{2, 3} {
		must(t, real.NewCosign(t, major).Verify(t, next.public, image))
	}
	resigned = must(t, vidimus(t, dir, env, "resign", "--from", next.public, "--key", key, registry+"/acme/kms"))
	if !strings.Contains(resigned.Stdout, "0 signatures signed, 2 there already") {
		t.Errorf("and back: %s", resigned.Output())
	}

	config := fmt.Sprintf(`
upstreams: {docker.io: {url: "http://%s"}}
authorities: {release: {keys: [%q]}}
policies: [{match: "docker.io/**", require: release}]
`, registry, key)
	proxy := real.StartVidimus(t, built(t, racing), real.Dir(t), config, env...)
	if code, body := status(t, proxy, "acme/kms", "v1"); code != http.StatusOK {
		t.Errorf("the proxy answers %d %s", code, body)
	}
	out := real.StartVidimus(t, built(t, racing), real.Dir(t), config, "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=s.canary-of-the-vault")
	if code, body := status(t, out, "acme/kms", "v1"); code != http.StatusServiceUnavailable {
		t.Errorf("while the KMS is out the proxy answers %d %s", code, body)
	}
	if !strings.Contains(out.Output(), key) || strings.Contains(out.Output(), "canary") {
		t.Errorf("its log does not name the key, or shows the token:\n%s", out.Output())
	}
}
