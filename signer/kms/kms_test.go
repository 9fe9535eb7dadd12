package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// vault is the transit engine of a Vault with one key, and counts what it is asked.
type vault struct {
	key   crypto.Signer
	asked atomic.Int64
	down  atomic.Bool

	absent atomic.Bool  // there is no key yet
	made   atomic.Value // as which type
}

const token = "s.vault-token"

func startVault(t *testing.T, key crypto.Signer) (*vault, string) {
	t.Helper()
	v := &vault{key: key}
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", token)
	return v, "hashivault://release"
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.asked.Add(1)
	var asked struct {
		Input     []byte `json:"input"`
		Prehashed bool   `json:"prehashed"`
		Type      string `json:"type"`
	}
	_ = json.NewDecoder(r.Body).Decode(&asked) // there is none in a GET
	algorithm, _, _ := strings.Cut(r.URL.Path, "/sign/release/")
	switch {
	case v.down.Load():
		http.Error(w, `{"errors":["sealed"]}`, http.StatusBadRequest)
	case r.Header.Get("X-Vault-Token") != token:
		http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
	case r.URL.Path == "/v1/transit/keys/release" && r.Method == http.MethodPut:
		v.made.Store(asked.Type)
		v.absent.Store(false)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/v1/transit/keys/release" && v.absent.Load():
		http.Error(w, `{"errors":[]}`, http.StatusNotFound)
	case r.URL.Path == "/v1/transit/keys/release":
		kind, text := "ecdsa-p256", ""
		der, _ := x509.MarshalPKIXPublicKey(v.key.Public())
		text = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		if public, ok := v.key.Public().(ed25519.PublicKey); ok {
			kind, text = "ed25519", base64.StdEncoding.EncodeToString(public)
		}
		fmt.Fprintf(w, `{"data":{"latest_version":1,"keys":{"1":{"name":%q,"public_key":%q}}}}`, kind, text)
	case strings.HasPrefix(r.URL.Path, "/v1/transit/sign/release"):
		hash := crypto.SHA256
		if !asked.Prehashed {
			hash = 0
		} else if strings.HasSuffix(r.URL.Path, "sha2-384") {
			hash = crypto.SHA384
		}
		signature, err := v.key.Sign(rand.Reader, asked.Input, hash)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"data":{"signature":"vault:v1:%s"}}`, base64.StdEncoding.EncodeToString(signature))
	default:
		http.Error(w, algorithm, http.StatusNotFound)
	}
}

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVaultSigns(t *testing.T) {
	message := []byte("payload")
	digest := sha256.Sum256(message)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{p256(t), edwards, large} {
		_, reference := startVault(t, key)
		opened, err := Open(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		switch public := opened.Public().(type) {
		case *ecdsa.PublicKey:
			signature, err := opened.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !public.Equal(key.Public()) || !ecdsa.VerifyASN1(public, digest[:], signature) {
				t.Errorf("ECDSA: %x, %v", signature, err)
			}
		case *rsa.PublicKey:
			signature, err := opened.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) != nil {
				t.Errorf("RSA: %x, %v", signature, err)
			}
		case ed25519.PublicKey:
			signature, err := opened.Sign(rand.Reader, message, crypto.Hash(0))
			if err != nil || !ed25519.Verify(public, message, signature) {
				t.Errorf("Ed25519: %x, %v", signature, err)
			}
		}
	}
}

func TestVaultNeedsATokenAndRunsNoHelper(t *testing.T) {
	_, reference := startVault(t, p256(t))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("BAO_TOKEN", "")
	ran := filepath.Join(home, "ran")
	helper := program(t, home, "helper", ran)
	write(t, filepath.Join(home, ".vault"), `token_helper = "`+helper+`"`)
	if _, err := Open(t.Context(), reference); err == nil || !strings.Contains(err.Error(), "VAULT_TOKEN is not set") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the token helper was run")
	}
	write(t, filepath.Join(home, ".vault-token"), token+"\n")
	if _, err := Open(t.Context(), reference); err != nil {
		t.Errorf("with a token in the file: %v", err)
	}
	t.Setenv("VAULT_TOKEN", "another-token")
	if _, err := Open(t.Context(), reference); err == nil || !strings.Contains(err.Error(), reference) || strings.Contains(err.Error(), "another-token") {
		t.Errorf("error %v", err)
	}
}

// program writes one that leaves a trace when it is run.
func program(t *testing.T, dir, name, trace string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	write(t, path, "#!/bin/sh\n: > "+trace+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sigstore's library runs sigstore-kms-<scheme> for a scheme that it does not know.
func TestUnknownSchemesRunNoProgram(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	ran := filepath.Join(dir, "ran")
	for _, scheme := range []string{"evil", "AWSKMS", "k8s", "openbao", "pkcs11"} {
		program(t, dir, "sigstore-kms-"+scheme, ran)
		reference := scheme + "://release"
		for _, err := range []error{Check(reference), second(Open(t.Context(), reference)), second(Public(t.Context(), reference)), second(new(Cache).Public(t.Context(), reference))} {
			if !errors.Is(err, ErrReference) || !strings.HasPrefix(err.Error(), reference) {
				t.Errorf("%s: %v", scheme, err)
			}
		}
		if IsReference(reference) {
			t.Errorf("%s is taken for a KMS's", reference)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program was run")
	}
}

func second[T any](_ T, err error) error { return err }

func TestReferencesAreChecked(t *testing.T) {
	const uuid = "1234abcd-12ab-34cd-56ef-1234567890ab"
	for _, good := range []string{
		"awskms:///" + uuid, "awskms://localhost:4566/alias/release", "awskms:///arn:aws:kms:us-east-2:111122223333:key/" + uuid,
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/1", "azurekms://vault.vault.azure.net/key", "hashivault://release",
	} {
		if err := Check(good); err != nil || !IsReference(good) {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"awskms://", "awskms://host", "gcpkms://projects/p", "azurekms://vault", "hashivault://", "hashivault://a/../b"} {
		if err := Check(bad); err == nil || errors.Is(err, ErrReference) || !strings.HasPrefix(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// A cloud that nobody has credentials for says so, and names the key.
func TestCloudsWithoutCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("PATH", dir)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONFIG_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "us-east-2")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(dir, "missing.json"))
	t.Setenv("AZURE_TENANT_ID", "tenant")
	t.Setenv("AZURE_CLIENT_ID", "client")
	t.Setenv("AZURE_CLIENT_SECRET", "azure-secret")
	t.Setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1/")
	for _, reference := range []string{
		"awskms://127.0.0.1:1/alias/release", "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", "azurekms://127.0.0.1:1/key",
	} {
		_, err := public(t.Context(), reference, 2*time.Second)
		if err == nil || !strings.HasPrefix(err.Error(), reference+": ") || strings.Contains(err.Error(), "azure-secret") {
			t.Errorf("%s: %v", reference, err)
		}
	}
}

// startAWS starts the KMS of AWS with one key. The library speaks only TLS with it.
func startAWS(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	return startAWSWith(t, key, func(string, http.ResponseWriter) bool { return false })
}

// startAWSWith is startAWS with operations of its own, which report whether they have
// answered.
func startAWSWith(t *testing.T, key *ecdsa.PrivateKey, own func(operation string, w http.ResponseWriter) bool) string {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const id = "1234abcd-12ab-34cd-56ef-1234567890ab"
		var asked struct{ Message []byte }
		_ = json.NewDecoder(r.Body).Decode(&asked)
		answer := map[string]any{}
		algorithm := "ECDSA_SHA_384"
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if own(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService."), w) {
			return
		}
		switch r.Header.Get("X-Amz-Target") {
		case "TrentService.DescribeKey":
			answer["KeyMetadata"] = map[string]any{"KeyId": id, "SigningAlgorithms": []string{algorithm}, "KeyUsage": "SIGN_VERIFY"}
		case "TrentService.GetPublicKey":
			der, _ := x509.MarshalPKIXPublicKey(key.Public())
			answer = map[string]any{"KeyId": id, "PublicKey": der, "SigningAlgorithms": []string{algorithm}}
		case "TrentService.Sign":
			signature, err := key.Sign(rand.Reader, asked.Message, crypto.SHA384)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			answer = map[string]any{"KeyId": id, "Signature": signature, "SigningAlgorithm": algorithm}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	write(t, authority, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	t.Setenv("AWS_CA_BUNDLE", authority)
	t.Setenv("AWS_REGION", "us-east-2")
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	return "awskms://" + server.Listener.Addr().String() + "/alias/release"
}

func TestAWSSignsByTheHashOfItsKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(t.Context(), startAWS(t, key))
	if err != nil {
		t.Fatal(err)
	}
	fixed, ok := opened.(interface{ Hash() crypto.Hash })
	if !ok || fixed.Hash() != crypto.SHA384 {
		t.Fatalf("%T signs by another hash", opened)
	}
	h := crypto.SHA384.New()
	h.Write([]byte("payload"))
	signature, err := opened.Sign(rand.Reader, h.Sum(nil), crypto.SHA384)
	if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, h.Sum(nil), signature) {
		t.Errorf("%x, %v", signature, err)
	}
}

// A service that hangs is named, and holds nobody up.
func TestAServiceThatHangs(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", token)
	_, err := public(t.Context(), "hashivault://release", 50*time.Millisecond)
	if err == nil || err.Error() != "hashivault://release: the KMS did not answer within 50ms" {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Public(ctx, "hashivault://release"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestCacheAsksSeldomAndRemembers(t *testing.T) {
	v, reference := startVault(t, p256(t))
	var cache Cache
	v.down.Store(true)
	for range 2 {
		if _, err := cache.Public(t.Context(), reference); err == nil || !strings.Contains(err.Error(), reference) {
			t.Errorf("error %v", err)
		}
	}
	if got := v.asked.Load(); got != 1 {
		t.Errorf("asked %d times while it is down", got)
	}
	v.down.Store(false)
	cache.publics[reference].asked = time.Now().Add(-failedFor)
	for range 3 {
		public, err := cache.Public(t.Context(), reference)
		if err != nil || !v.key.Public().(*ecdsa.PublicKey).Equal(public) {
			t.Fatal(public, err)
		}
	}
	if got := v.asked.Load(); got != 2 {
		t.Errorf("asked %d times", got)
	}
	t.Log("an outage is not missed, and another key is noticed in the end")
	v.down.Store(true)
	cache.publics[reference].asked = time.Now().Add(-freshFor)
	before, err := cache.Public(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	v.down.Store(false)
	v.key = p256(t)
	cache.publics[reference].asked = time.Now().Add(-freshFor)
	after, err := cache.Public(t.Context(), reference)
	if err != nil || before.(*ecdsa.PublicKey).Equal(after) {
		t.Errorf("the same key, %v", err)
	}
}

func TestCacheKeepsAKeyThatManySignWith(t *testing.T) {
	v, reference := startVault(t, p256(t))
	var cache Cache
	v.down.Store(true)
	if _, err := cache.Signer(t.Context(), reference); err == nil || !strings.Contains(err.Error(), reference) {
		t.Errorf("error %v", err)
	}
	v.down.Store(false)
	cache.signers[reference].asked = time.Now().Add(-failedFor)
	key, err := cache.Signer(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("payload"))
	sign := func() error {
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err == nil && !ecdsa.VerifyASN1(v.key.Public().(*ecdsa.PublicKey), digest[:], signature) {
			err = errors.New("the signature does not verify")
		}
		return err
	}
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if err := sign(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()

	v.down.Store(true)
	cache.signers[reference].asked = time.Now().Add(-freshFor)
	if again, err := cache.Signer(t.Context(), reference); err != nil || again != key {
		t.Errorf("an outage loses the key: %v", err)
	}
	if err := sign(); err == nil || !strings.Contains(err.Error(), reference) {
		t.Errorf("while it is out: %v", err)
	}
	v.down.Store(false)
	if err := sign(); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}
