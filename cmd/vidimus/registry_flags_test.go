package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func basicChallenge(string) string { return `Basic realm="r"` }

func bearerChallenge(host string) string {
	return `Bearer realm="http://` + host + `/token",service="r"`
}

// closedRegistry is one that lets in whoever allowed says, with an image.
func closedRegistry(t *testing.T, challenge func(host string) string, allowed func(*http.Request) bool) (host, image string) {
	t.Helper()
	open := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	var closed atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closed.Load() && !allowed(r) {
			w.Header().Add("WWW-Authenticate", challenge(r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		open.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	content, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(host + "/acme/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, content); err != nil {
		t.Fatal(err)
	}
	closed.Store(true)
	return host, reference.Name()
}

// runs runs a command of the program.
func runs(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out output
	code, err := out.execute(t.Context(), newRootCommand(), strings.NewReader(""), args...)
	text := out.stdout.String() + out.stderr.String()
	if err != nil {
		text += err.Error()
	}
	return code, text
}

func newKeys(t *testing.T) {
	t.Helper()
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	if code, text := runs(t, "generate-key-pair"); code != exitHolds {
		t.Fatal(text)
	}
}

// Every command that asks a registry says who asks, as the flags say.
func TestCredentialsOnTheCommandLine(t *testing.T) {
	isolate(t)
	newKeys(t)
	basic := func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user == "robot" && password == "s3cret"
	}
	host, image := closedRegistry(t, basicChallenge, basic)
	byName := []string{"--registry-username", "robot", "--registry-password", "s3cret"}
	for _, row := range [][]string{
		{"sign", "--key", "cosign.key", image}, {"verify", "--key", "cosign.pub", image}, {"triangulate", image}, {"generate", image},
		{"tree", image}, {"download", "signature", image}, {"save", "--dir", "saved", image}, {"load", "--dir", "saved", host + "/acme/loaded:v1"},
		{"copy", image, host + "/acme/copied:v1"}, {"clean", "-f", host + "/acme/copied:v1"},
	} {
		if code, text := runs(t, append(row, byName...)...); code != exitHolds || strings.Contains(text, "s3cret") {
			t.Errorf("%v: exit %d\n%s", row, code, text)
		}
		code, text := runs(t, append(row, "--registry-username", "robot", "--registry-password", "wrong-s3cret")...)
		if code == exitHolds || strings.Contains(text, "s3cret") {
			t.Errorf("%v with another password: exit %d\n%s", row, code, text)
		}
	}
	_, elsewhere := closedRegistry(t, basicChallenge, basic)
	for want, args := range map[string][]string{
		"go together":              {"verify", "--key", "cosign.pub", "--registry-username", "robot", image},
		"one of them says":         append([]string{"sign", "--key", "cosign.key", "--registry-token", "t", image}, byName...),
		"are for one registry":     append([]string{"copy", image, elsewhere}, byName...),
		"--registry-client-cert:":  {"tree", "--registry-client-cert", "missing.pem", "--registry-client-key", "missing.pem", image},
		"--registry-client-key go": {"tree", "--registry-client-cert", "missing.pem", image},
		"that is no tag":           {"triangulate", "--attachment-tag-prefix", "a/b", image},
	} {
		if code, text := runs(t, args...); code != exitMisuse || !strings.Contains(text, want) || strings.Contains(text, "s3cret") {
			t.Errorf("%v: exit %d, want %q\n%s", args, code, want, text)
		}
	}
	t.Setenv("COSIGN_REPOSITORY", strings.TrimSuffix(elsewhere, ":v1"))
	if code, text := runs(t, append([]string{"verify", "--key", "cosign.pub", image}, byName...)...); code != exitMisuse || !strings.Contains(text, "are for one registry") {
		t.Errorf("evidence elsewhere: exit %d\n%s", code, text)
	}
}

func TestATokenOnTheCommandLine(t *testing.T) {
	isolate(t)
	newKeys(t)
	_, image := closedRegistry(t, bearerChallenge, func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer t0ken" })
	for _, row := range [][]string{{"sign", "--key", "cosign.key", image}, {"verify", "--key", "cosign.pub", image}, {"tree", image}} {
		if code, text := runs(t, append(row, "--registry-token", "t0ken")...); code != exitHolds || strings.Contains(text, "t0ken") {
			t.Errorf("%v: exit %d\n%s", row, code, text)
		}
		if code, _ := runs(t, append(row, "--registry-token", "other")...); code == exitHolds {
			t.Errorf("%v with another token holds", row)
		}
	}
}

// A registry that wants a certificate, and whose own is of another name than its host.
func TestACertificateOnTheCommandLine(t *testing.T) {
	isolate(t)
	newKeys(t)
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	own := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for file, data := range map[string][]byte{"cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := strings.TrimPrefix(server.URL, "https://") + "/acme/web:v1"
	reference, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	content, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client().Transport.(*http.Transport).Clone()
	client.TLSClientConfig.Certificates = []tls.Certificate{own}
	if err := remote.Write(reference, content, remote.WithTransport(client), remote.WithAuth(authn.Anonymous)); err != nil {
		t.Fatal(err)
	}
	reached := []string{"--registry-cacert", "cert.pem", "--registry-client-cert", "cert.pem", "--registry-client-key", "key.pem", "--registry-server-name", "example.com"}
	for _, row := range [][]string{{"sign", "--key", "cosign.key", image}, {"verify", "--key", "cosign.pub", image}, {"tree", image}} {
		if code, text := runs(t, append(row, reached...)...); code != exitHolds {
			t.Errorf("%v: exit %d\n%s", row, code, text)
		}
		if code, _ := runs(t, append(row, reached[:2]...)...); code == exitHolds {
			t.Errorf("%v without a certificate holds", row)
		}
		if code, _ := runs(t, append(row, append(reached[:7:7], "other.example")...)...); code == exitHolds {
			t.Errorf("%v takes the server for another", row)
		}
	}
}

// Evidence under tags with a prefix is found by who knows the prefix.
func TestAPrefixOfTheTagsOfEvidence(t *testing.T) {
	isolate(t)
	newKeys(t)
	host, image := closedRegistry(t, basicChallenge, func(*http.Request) bool { return true })
	prefix := []string{"--attachment-tag-prefix", "acme-"}
	writeFile(t, "note.txt", "looked at")
	writeFile(t, "sbom.spdx", "SPDX")
	for _, row := range [][]string{
		{"sign", "--format", "tag", "--key", "cosign.key", image},
		{"attest", "--format", "tag", "--predicate", "note.txt", "--key", "cosign.key", image},
		{"attach", "sbom", "--sbom", "sbom.spdx", image},
	} {
		if code, text := runs(t, append(row, prefix...)...); code != exitHolds || !strings.Contains(text, ":acme-sha256-") {
			t.Fatalf("%v: exit %d\n%s", row, code, text)
		}
	}
	for want, row := range map[string][]string{
		"docker-manifest-digest": {"verify", "--key", "cosign.pub", image}, "payloadType": {"verify-attestation", "--key", "cosign.pub", image},
		":acme-sha256-": {"triangulate", image}, "SPDX": {"download", "sbom", image}, "Base64Signature": {"download", "signature", image},
		"web:acme-sha256-": {"tree", image},
	} {
		if code, text := runs(t, append(row, prefix...)...); code != exitHolds || !strings.Contains(text, want) {
			t.Errorf("%v: exit %d, want %q\n%s", row, code, want, text)
		}
		if code, text := runs(t, row...); code == exitHolds && row[0] != "triangulate" && row[0] != "tree" {
			t.Errorf("%v finds it without the prefix\n%s", row, text)
		}
	}
	if code, text := runs(t, append([]string{"copy", image, host + "/acme/copy:v1"}, prefix...)...); code != exitHolds {
		t.Fatalf("exit %d\n%s", code, text)
	}
	if code, text := runs(t, append([]string{"verify", "--key", "cosign.pub", host + "/acme/copy:v1"}, prefix...)...); code != exitHolds {
		t.Errorf("a copy: exit %d\n%s", code, text)
	}
	if code, text := runs(t, append([]string{"resign", "--from", "cosign.pub", "--key", "cosign.key", host + "/acme/web"}, prefix...)...); code != exitMisuse {
		t.Errorf("resign: exit %d\n%s", code, text)
	}
	if code, text := runs(t, append([]string{"clean", "-f", image}, prefix...)...); code != exitHolds {
		t.Errorf("clean: exit %d\n%s", code, text)
	}
	if code, _ := runs(t, append([]string{"verify", "--key", "cosign.pub", image}, prefix...)...); code != exitDoesNotHold {
		t.Errorf("after clean: exit %d", code)
	}
}

func TestOutputFileAndFormerNames(t *testing.T) {
	isolate(t)
	newKeys(t)
	if code, text := runs(t, "public-key", "--key", "cosign.key", "--output-file", "out", "-t", "1m", "-d"); code != exitHolds || strings.Contains(text, "PUBLIC KEY") {
		t.Fatalf("exit %d\n%s", code, text)
	}
	public, err := os.ReadFile("cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := os.ReadFile("out"); err != nil || string(out) != string(public) {
		t.Errorf("%q, %v", out, err)
	}
	code, text := runs(t, "verify-blob", "--cert", "missing.pem", "--cert-identity", "me", "--cert-oidc-issuer", "https://x.example", "--signature", "c2ln", "cosign.pub")
	if code != exitMisuse || !strings.Contains(text, "--certificate: open missing.pem") {
		t.Errorf("exit %d\n%s", code, text)
	}
	if code, text := runs(t, "version", "--json"); code != exitHolds || !strings.Contains(text, `"gitVersion": "`) {
		t.Errorf("exit %d\n%s", code, text)
	}
}
