package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vidimus/e2e/real"
)

// asking runs vidimus, and person with each line that it prints, as it prints it. It
// ends with the command.
func asking(t *testing.T, args []string, person func(line string)) (code int, printed string) {
	t.Helper()
	home := real.Dir(t)
	cmd := exec.CommandContext(t.Context(), built(t, released), args...)
	// A program that opens browsers is there, and leaves a trace when it is run.
	trace := filepath.Join(home, "opened")
	real.Write(t, home, "xdg-open", "#!/bin/sh\n: > "+trace+"\n")
	if err := os.Chmod(filepath.Join(home, "xdg-open"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{"HOME=" + home, "DOCKER_CONFIG=" + home, "PATH=" + home + ":" + os.Getenv("PATH")}
	var all bytes.Buffer
	cmd.Stdout = &all
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		person(lines.Text())
	}
	_ = cmd.Wait() // its exit code tells
	if _, err := os.Stat(trace); err == nil {
		t.Error("a browser was started where there is no terminal")
	}
	return cmd.ProcessState.ExitCode(), all.String() + said.String()
}

var (
	page = regexp.MustCompile(`https?://[^\s,]+`)
	code = regexp.MustCompile(`verification code (\S+) in`)
)

// visit opens a page as who.
func visit(t *testing.T, address, who string, more url.Values) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Error(err)
		return
	}
	query := u.Query()
	query.Set("as", who)
	for key := range more {
		query.Set(key, more.Get(key))
	}
	u.RawQuery = query.Encode()
	resp, err := http.Get(u.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s %s", address, resp.Status, body)
	}
}

// A person signs in, in a browser here or elsewhere, and what is signed is theirs.
func TestAPersonSignsInToSign(t *testing.T) {
	three := real.NewCosign(t, 3)
	sigstore := real.StartSigstore(t)
	registry := real.StartDistribution(t)
	services := []string{"--signing-config", sigstore.SigningConfig, "--trusted-root", sigstore.TrustedRoot}
	const who = "person@acme.example"
	verify := func(t *testing.T, image string) {
		t.Helper()
		must(t, sigstore.VerifyKeyless(t, three, sigstore.Issuer.Email(), who, image))
		must(t, vidimus(t, "", nil, "verify", "--trusted-root", sigstore.TrustedRoot, "--certificate-identity", who,
			"--certificate-oidc-issuer", sigstore.Issuer.Email(), image))
	}
	browser := func(t *testing.T) func(line string) {
		return func(line string) {
			if strings.HasPrefix(line, sigstore.Issuer.Email()[:len("http://127.0.0.1:1")]) {
				visit(t, page.FindString(line), who, nil)
			}
		}
	}
	t.Run("with a browser here", func(t *testing.T) {
		_, image := pushed(t, registry, "acme/browser")
		exit, out := asking(t, append(append([]string{"sign", "--fulcio-auth-flow", "normal"}, services...), image), browser(t))
		if exit != 0 || strings.Contains(out, "eyJ") {
			t.Fatalf("exit code %d\n%s", exit, out)
		}
		verify(t, image)
	})
	t.Run("on another device, since there is no terminal", func(t *testing.T) {
		_, image := pushed(t, registry, "acme/device")
		exit, out := asking(t, append(append([]string{"sign"}, services...), image), func(line string) {
			if entered := code.FindStringSubmatch(line); entered != nil {
				visit(t, page.FindString(line), who, url.Values{"code": {entered[1]}})
			}
		})
		if exit != 0 || strings.Contains(out, "eyJ") {
			t.Fatalf("exit code %d\n%s", exit, out)
		}
		verify(t, image)
	})
	t.Run("to attest, and to sign a file", func(t *testing.T) {
		_, image := pushed(t, registry, "acme/attested")
		dir := t.TempDir()
		note := real.Write(t, dir, "note.txt", "looked at by a person\n")
		normal := append([]string{"--fulcio-auth-flow", "normal"}, services...)
		if exit, out := asking(t, append(append([]string{"attest", "--predicate", note}, normal...), image), browser(t)); exit != 0 {
			t.Fatalf("exit code %d\n%s", exit, out)
		}
		must(t, three.Run(t, "", "verify-attestation", "--allow-http-registry", "--type", "custom", "--trusted-root", sigstore.TrustedRoot, "--insecure-ignore-sct",
			"--use-signed-timestamps", "--certificate-identity", who, "--certificate-oidc-issuer", sigstore.Issuer.Email(), image))
		bundle := filepath.Join(dir, "bundle")
		if exit, out := asking(t, append(append([]string{"sign-blob", "--bundle", bundle}, normal...), note), browser(t)); exit != 0 {
			t.Fatalf("exit code %d\n%s", exit, out)
		}
		must(t, three.Run(t, "", "verify-blob", "--bundle", bundle, "--trusted-root", sigstore.TrustedRoot, "--insecure-ignore-sct",
			"--use-signed-timestamps", "--certificate-identity", who, "--certificate-oidc-issuer", sigstore.Issuer.Email(), note))
	})
	t.Run("as a workflow of GitHub's, which nobody has to sign in for", func(t *testing.T) {
		token, identity := sigstore.Issuer.Workflow(t, "acme/web", "release.yml", "refs/tags/v1")
		actions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer runner" || r.URL.Query().Get("audience") != "sigstore" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"value": token})
		}))
		t.Cleanup(actions.Close)
		_, image := pushed(t, registry, "acme/workflow")
		env := []string{"ACTIONS_ID_TOKEN_REQUEST_URL=" + actions.URL + "/?x=y", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=runner"}
		must(t, vidimus(t, "", env, append(append([]string{"sign"}, services...), image)...))
		must(t, sigstore.VerifyKeyless(t, three, sigstore.Issuer.GitHub(), identity, image))
	})
	t.Run("nobody does, in time", func(t *testing.T) {
		_, image := pushed(t, registry, "acme/nobody")
		exit, out := asking(t, append(append([]string{"sign", "--fulcio-auth-flow", "normal", "--timeout", "1s"}, services...), image), func(string) {})
		if exit != 3 || !strings.Contains(out, fmt.Sprintf("OpenID issuer %s: nobody has signed in", sigstore.Issuer.Email())) {
			t.Errorf("exit code %d\n%s", exit, out)
		}
	})
}
