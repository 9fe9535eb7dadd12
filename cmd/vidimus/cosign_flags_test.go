package main

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/spf13/cobra"

	"vidimus/signer"
)

// TestFlagsOfCosignsThatAskForNothingMore are given as scripts give them.
func TestFlagsOfCosignsThatAskForNothingMore(t *testing.T) {
	isolate(t)
	for _, args := range [][]string{
		{"--offline", "--private-infrastructure", "--max-workers", "3", "-d", "--check-claims=true"},
		{"--insecure-ignore-tlog", "--new-bundle-format=false", "-t", "5s"},
		{"--new-bundle-format", "--experimental-oci11", "--rekor-url", "https://rekor.sigstore.dev"},
	} {
		var out output
		if _, err := out.execute(t.Context(), newVerifyCommand(), nil, append(args, "--key", "missing.key", "reg.test/a:b")...); err == nil || !strings.Contains(err.Error(), "missing.key") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestVariablesOfCosigns are those that stand for flags, and those that name what to trust.
func TestVariablesOfCosigns(t *testing.T) {
	isolate(t)
	for variable, tt := range map[string]struct{ value, want string }{
		"COSIGN_REGISTRY_USERNAME":        {"robot", "go together"},
		"COSIGN_TRUSTED_ROOT":             {"missing.json", "--trusted-root: open missing.json"},
		"COSIGN_LOCAL_IMAGE":              {"true", "--local-image is not supported"},
		"COSIGN_MAX_WORKERS":              {"many", "COSIGN_MAX_WORKERS: not a value of --max-workers"},
		"SIGSTORE_ROOT_FILE":              {"root.pem", "SIGSTORE_ROOT_FILE names what to trust"},
		"SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": {"ct.pem", "--trusted-root"},
		"SIGSTORE_REKOR_PUBLIC_KEY":       {"rekor.pem", "--trusted-root"},
		"SIGSTORE_TSA_CERTIFICATE_FILE":   {"tsa.pem", "--trusted-root"},
		"TUF_MIRROR":                      {"https://tuf.example", "--trusted-root"},
		"TUF_ROOT_JSON":                   {"root.json", "--trusted-root"},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, tt.value)
			code, text := runs(t, "verify", "--certificate-identity", "me", "--certificate-oidc-issuer", "https://issuer.example", "127.0.0.1:1/a:b")
			if code != exitMisuse || !strings.Contains(text, tt.want) || strings.Contains(text, "many") {
				t.Errorf("exit %d, want %q\n%s", code, tt.want, text)
			}
		})
	}
	t.Setenv("COSIGN_REGISTRY_USERNAME", "robot")
	if code, text := runs(t, "verify", "--registry-username=", "--key", "missing.pub", "127.0.0.1:1/a:b"); code != exitMisuse || !strings.Contains(text, "missing.pub") {
		t.Errorf("a flag over its variable: exit %d\n%s", code, text)
	}
}

// TestTheEnvironmentLoosensNoVerification: what makes verify prove less is said where
// verify is.
func TestTheEnvironmentLoosensNoVerification(t *testing.T) {
	isolate(t)
	certified := []string{"--certificate-identity", "me", "--certificate-oidc-issuer", "https://issuer.example"}
	for _, tt := range []struct {
		variable, value string
		args            []string
		refused         bool
	}{
		{"COSIGN_CHECK_CLAIMS", "false", []string{"--key", "missing.pub"}, true},
		{"COSIGN_CHECK_CLAIMS", "true", []string{"--key", "missing.pub"}, false},
		{"COSIGN_INSECURE_IGNORE_TLOG", "true", certified, true},
		{"COSIGN_PRIVATE_INFRASTRUCTURE", "1", certified, true},
		{"COSIGN_INSECURE_IGNORE_TLOG", "false", certified, false},
		{"COSIGN_INSECURE_IGNORE_TLOG", "true", append([]string{"--insecure-ignore-tlog"}, certified...), false},
		{"COSIGN_INSECURE_IGNORE_TLOG", "true", []string{"--key", "missing.pub"}, false}, // as ever with a key
	} {
		t.Run(tt.variable+strings.Join(tt.args, " "), func(t *testing.T) {
			t.Setenv(tt.variable, tt.value)
			code, text := runs(t, append([]string{"verify", "127.0.0.1:1/a:b"}, tt.args...)...)
			if refused := strings.Contains(text, tt.variable+" would have less proven"); refused != tt.refused || refused && code != exitMisuse {
				t.Errorf("exit %d\n%s", code, text)
			}
		})
	}
}

// TestWhatIsReadIsNotWrittenOver names for output what the command reads, or a key.
func TestWhatIsReadIsNotWrittenOver(t *testing.T) {
	isolate(t)
	newKeys(t)
	writeFile(t, "note.txt", "x")
	key := mustReadFile(t, "cosign.key")
	for _, args := range [][]string{
		{"public-key", "--key", "cosign.key", "--output-file", "cosign.key"},
		{"sign-blob", "--key", "cosign.key", "--bundle", "./cosign.key", "note.txt"},
		{"sign-blob", "--key", "cosign.key", "--output-signature", "note.txt", "note.txt"},
		{"sign", "--key", "env://NONE", "--output-certificate", "cosign.key", "127.0.0.1:1/a:b"},
		{"attest", "--key", "cosign.key", "--predicate", "note.txt", "--bundle", "note.txt", "127.0.0.1:1/a:b"},
		{"version", "--output-file", "cosign.key"},
	} {
		code, text := runs(t, args...)
		if code != exitMisuse || !strings.Contains(text, "would be written over") {
			t.Errorf("%v: exit %d\n%s", args, code, text)
		}
	}
	if mustReadFile(t, "cosign.key") != key || mustReadFile(t, "note.txt") != "x" {
		t.Error("a file is written over")
	}
	for range 2 {
		if code, text := runs(t, "sign-blob", "--key", "cosign.key", "--bundle", "bundle", "note.txt"); code != exitHolds {
			t.Errorf("exit %d\n%s", code, text)
		}
	}
}

// TestARegistryWithACertificateOfItsOwn walks the whole way with a registry that
// only --registry-cacert vouches for, on loopback, where HTTP is allowed too.
func TestARegistryWithACertificateOfItsOwn(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of those who refuse its certificate
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	image := host + "/acme/web:v1"
	content, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, content, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	writeFile(t, "ca.pem", string(authority))
	writeFile(t, "none.pem", "no certificate\n")

	var out output
	if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), strings.NewReader("")); code != exitHolds {
		t.Fatal(code, err)
	}
	for _, row := range []struct {
		what string
		cmd  *cobra.Command
		args []string
		code int
		want string // of the output, or of the error
	}{
		{"sign does not trust it", newSignCommand(), []string{"--key", "cosign.key"}, exitUnknown, "certificate"},
		{"sign needs certificates", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "none.pem"}, exitMisuse, "none.pem holds no certificate"},
		{"sign needs the file", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "missing.pem"}, exitMisuse, "--registry-cacert: open missing.pem"},
		{"sign with its authority", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "ca.pem"}, exitHolds, "--registry-cacert ca.pem " + host},
		{"sign whoever it is", newSignCommand(), []string{"--key", "cosign.key", "--allow-insecure-registry"}, exitHolds, "--allow-insecure-registry " + host},
		{"triangulate with its authority", newTriangulateCommand(), []string{"--registry-cacert", "ca.pem"}, exitHolds, "/acme/web:sha256-"},
		{"verify does not trust it", newVerifyCommand(), []string{"--key", "cosign.pub"}, exitUnknown, "unknown authority"},
		{"verify checks always", newVerifyCommand(), []string{"--key", "cosign.pub", "--allow-insecure-registry"}, exitMisuse, "--registry-cacert"},
		{"verify with its authority", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem"}, exitHolds, "docker-manifest-digest"},
		{"verify, HTTP allowed", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem", "--allow-http-registry"}, exitHolds, "docker-manifest-digest"},
		{"verify asks in time", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem", "-t", "1ns"}, exitUnknown, ""},
	} {
		var out output
		code, err := out.execute(t.Context(), row.cmd, strings.NewReader(""), append(row.args, image)...)
		text := out.stdout.String()
		if err != nil {
			text = err.Error()
		}
		if code != row.code || !strings.Contains(text, row.want) {
			t.Errorf("%s: exit %d, %v; want %d with %q\n%s", row.what, code, err, row.code, row.want, out.stdout.String())
		}
	}
}

func TestVerifySaysWhichKey(t *testing.T) {
	isolate(t)
	writeFile(t, "release.pub", "")
	writeFile(t, "keys/ci.pub", "")
	for key, want := range map[string]string{
		"release.pub": "release.pub", "keys/ci.pub": "ci.pub", "env://KEY": "env://KEY", "MFkwEwYHKoZIzj0CAQ": "the given key",
	} {
		if got := keyName(key); got != want {
			t.Errorf("--key %s is called %s, want %s", key, got, want)
		}
	}
}

// TestVerifyThroughAVidimusThatRefuses says where the reason is, since what a
// registry says itself is not shown.
func TestVerifyThroughAVidimusThatRefuses(t *testing.T) {
	isolate(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"errors":[{"code":"DENIED","message":"Vidimus refused it"}]}`)
	}))
	t.Cleanup(server.Close)
	public, err := signer.EncodePublicKey(generateKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "cosign.pub", string(public))
	var out output
	code, err := out.execute(t.Context(), newVerifyCommand(), nil, "--key", "cosign.pub", strings.TrimPrefix(server.URL, "http://")+"/acme/web:v1")
	if code != exitUnknown || !strings.Contains(err.Error(), "vidimus decisions --image acme/web says why") || strings.Contains(err.Error(), "refused it") {
		t.Errorf("exit %d, %v", code, err)
	}
}
