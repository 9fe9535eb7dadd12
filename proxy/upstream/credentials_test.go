package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDockerConfig(t *testing.T) {
	entry := func(user, password string) string {
		return fmt.Sprintf(`{"auth": %q}`, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	directory := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	helper := `#!/bin/sh
read host
case "$host" in
helped.example) echo '{"ServerURL": "helped.example", "Username": "helped", "Secret": "by-helper"}';;
token.example) echo '{"ServerURL": "token.example", "Username": "<token>", "Secret": "refresh-me"}';;
broken.example) echo 'by-helper is what I know'; exit 1;;
*) echo "credentials not found in native keychain"; exit 1;;
esac
`
	write("docker-credential-vidimustest", helper, 0o700)
	t.Setenv("PATH", directory+string(os.PathListSeparator)+os.Getenv("PATH"))
	config := `{"auths": {
		"ghcr.io": ` + entry("robot", "ghcr-pass") + `,
		"https://quay.example/v1/": ` + entry("legacy", "quay-pass") + `,
		"registry.example:5000": ` + entry("ported", "port-pass") + `,
		"https://index.docker.io/v1/": ` + entry("hub", "hub-pass") + `,
		"identity.example": {"identitytoken": "refresh-too"},
		"registrytoken.example": {"registrytoken": "bearer-me"}
	}, "credHelpers": {"helped.example": "vidimustest", "token.example": "vidimustest", "broken.example": "vidimustest", "gone.example": "vidimus-not-there"}}`
	path := write("config.json", config, 0o600)
	t.Setenv("HOME", filepath.Join(directory, "nobody"))
	t.Setenv("DOCKER_CONFIG", directory)

	rows := []struct {
		host string
		want Credential
	}{
		{"ghcr.io", Credential{Username: "robot", Password: "ghcr-pass"}},
		{"ghcr.io.evil.test", Credential{}},
		{"evil-ghcr.io", Credential{}},
		{"hcr.io", Credential{}},
		{"ghcr.io:444", Credential{}},
		{"quay.example", Credential{Username: "legacy", Password: "quay-pass"}},
		{"registry.example:5000", Credential{Username: "ported", Password: "port-pass"}},
		{"registry.example", Credential{}},
		{"registry-1.docker.io", Credential{Username: "hub", Password: "hub-pass"}},
		{"identity.example", Credential{IdentityToken: "refresh-too"}},
		{"registrytoken.example", Credential{RegistryToken: "bearer-me"}},
		{"helped.example", Credential{Username: "helped", Password: "by-helper"}},
		{"token.example", Credential{IdentityToken: "refresh-me"}},
	}
	for name, credentials := range map[string]Credentials{"a file that is named": DockerConfig(path), "docker's own": DockerConfig("")} {
		for _, row := range rows {
			t.Run(name+" for "+row.host, func(t *testing.T) {
				got, err := credentials(t.Context(), row.host)
				if err != nil {
					t.Fatal(err)
				}
				if got.IdentityToken != "" {
					got.Username = "" // "<token>" in some versions
				}
				if got != row.want {
					t.Errorf("got {%s %s %s %s}", got.Username, got.Password, got.IdentityToken, got.RegistryToken)
				}
			})
		}
		for host, says := range map[string]string{"broken.example": "no answer", "gone.example": "no answer"} {
			_, err := credentials(t.Context(), host)
			wantKind(t, err, KindUnavailable)
			if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "by-helper") {
				t.Errorf("%s, %s: %v", name, host, err)
			}
		}
	}

	for name, content := range map[string]string{"not JSON": `hunter2`, "not docker's": `{"auths": {"a": {"auth": "aHVudGVyMg=="}}}`, "of another shape": `{"auths": ["hunter2"]}`} {
		t.Run("a file that is "+name+" is an error without its content", func(t *testing.T) {
			_, err := DockerConfig(write("bad.json", content, 0o600))(t.Context(), "a")
			wantKind(t, err, KindUnavailable)
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVu") {
				t.Error(err)
			}
		})
	}
	t.Run("a file that is not there is an error", func(t *testing.T) {
		_, err := DockerConfig(filepath.Join(directory, "nothing.json"))(t.Context(), "a")
		wantKind(t, err, KindUnavailable)
	})
	t.Run("docker's own file that is not there means nobody", func(t *testing.T) {
		t.Setenv("DOCKER_CONFIG", filepath.Join(directory, "nothing"))
		t.Setenv("XDG_CONFIG_HOME", "")
		t.Setenv("XDG_RUNTIME_DIR", "")
		t.Setenv("REGISTRY_AUTH_FILE", "")
		got, err := DockerConfig("")(t.Context(), "ghcr.io")
		if got != (Credential{}) || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestDockerConfigIsNotAskedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups atomic.Int32
		release := make(chan struct{})
		d := &dockerConfig{turn: make(chan struct{}, 1), known: map[string]knownCredential{}, lookup: func(string) (Credential, error) {
			if lookups.Add(1) == 1 {
				<-release
				return Credential{}, errors.New("by-helper")
			}
			return Credential{Username: "u", Password: fmt.Sprint(lookups.Load())}, nil
		}}
		// A helper that hangs: who waits leaves when its time is over, and no
		// second helper is started.
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := d.credential(ctx, "a")
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || lookups.Load() != 1 {
				t.Errorf("got %v after %d lookups", err, lookups.Load())
			}
		}
		close(release)
		synctest.Wait()
		for _, step := range []struct {
			pause time.Duration
			want  string
		}{{0, "2"}, {29 * time.Second, "2"}, {2 * time.Second, "3"}} {
			time.Sleep(step.pause)
			got, err := d.credential(t.Context(), "a")
			if got.Password != step.want || err != nil {
				t.Errorf("got %s, %v, want %s", got.Password, err, step.want)
			}
		}
	})
}

// TestAPanicBesideARequestIsAnError: what is shared by several requests runs in none of
// them, where net/http would keep a panic from ending the process.
func TestAPanicBesideARequestIsAnError(t *testing.T) {
	d := &dockerConfig{
		turn: make(chan struct{}, 1), known: map[string]knownCredential{},
		lookup: func(string) (Credential, error) { panic("secret") },
	}
	var g flights[string, token]
	for name, ask := range map[string]func() error{
		"the docker configuration": func() error { _, err := d.credential(t.Context(), "ghcr.io"); return err },
		"a token": func() error {
			_, err := g.do(t.Context(), "ghcr.io", time.Minute, func(context.Context) (token, error) { panic("secret") })
			return err
		},
	} {
		for range 2 {
			err := ask()
			wantKind(t, err, KindUnavailable)
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestCredentialIsNotPrinted(t *testing.T) {
	credential := Credential{Username: "hunter2", Password: "hunter2", IdentityToken: "hunter2", RegistryToken: "hunter2"}
	var text strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&text, verb+verb, credential, &credential)
		fmt.Fprintf(&text, verb, struct{ C Credential }{credential})
	}
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "c", credential)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "c", credential, "p", struct{ C Credential }{credential})
	if err := json.NewEncoder(&text).Encode([]any{credential, &credential}); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
		t.Error(got)
	}
}

func TestCredentialIdentity(t *testing.T) {
	seen := map[[32]byte]Credential{}
	for _, c := range []Credential{{}, {Username: "a"}, {Password: "a"}, {Username: "ab"}, {Username: "a", Password: "b"}, {IdentityToken: "a"}, {RegistryToken: "a"}} {
		if other, ok := seen[c.identity()]; ok {
			t.Errorf("{%s %s} and {%s %s} are one", c.Username, c.Password, other.Username, other.Password)
		}
		seen[c.identity()] = c
	}
}
