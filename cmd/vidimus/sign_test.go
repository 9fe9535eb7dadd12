package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

func TestSignFromTheKeyFileToTheRegistry(t *testing.T) {
	isolate(t)
	synctest.Test(t, func(t *testing.T) {
		reg := newOffline()
		digest := reg.image(t, "reg.test/acme/web:v1")
		t.Setenv("COSIGN_PASSWORD", "hunter2")
		var out output
		if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), strings.NewReader("")); code != exitHolds {
			t.Fatal(code, err)
		}
		command := &signFlags{writerFlags: writerFlags{base: reg}}
		code, err := out.execute(t.Context(), command.command(), strings.NewReader(""),
			"--key", "cosign.key", "-a", "env=prod,team=a b", "--tlog-upload=false", "-y", "reg.test/acme/web:v1")
		if code != exitHolds {
			t.Fatal(code, err)
		}
		_, payloads := reg.payloads(t, "reg.test/acme/web", digest)
		want := []envelope.Payload{{
			Reference: "reg.test/acme/web", Digest: digest.String(),
			Annotations: map[string]any{"env": "prod", "team": "a b"},
		}}
		if diff := cmp.Diff(want, payloads); diff != "" {
			t.Error(diff)
		}
		wantOut := "Verify it with:\n  cosign verify --key cosign.pub --insecure-ignore-tlog=true -a env=prod -a 'team=a b' reg.test/acme/web@" + digest.String() + "\n"
		if diff := cmp.Diff(wantOut, out.stdout.String()); diff != "" {
			t.Error(diff)
		}
		for _, want := range []string{
			"warning: reg.test/acme/web:v1 is a tag, not a digest.",
			"Pushing signature to: reg.test/acme/web\n",
			digest.String() + " signed: reg.test/acme/web:" + signer.Tag(digest),
		} {
			if !strings.Contains(out.stderr.String(), want) {
				t.Errorf("stderr has no %q:\n%s", want, out.stderr.String())
			}
		}
		if strings.Contains(out.stdout.String()+out.stderr.String(), "hunter2") {
			t.Error("the password is shown")
		}
		if _, err := os.Stat(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "vidimus", "locks")); err != nil {
			t.Error(err)
		}
	})
}

func TestE7SignResolvesATagOnce(t *testing.T) {
	isolate(t)
	synctest.Test(t, func(t *testing.T) {
		reg := newOffline()
		digest := reg.image(t, "reg.test/acme/web:v1")
		reg.requests = nil
		f := &signFlags{writerFlags: writerFlags{base: reg}}
		if _, err := f.signAs(t, generateKey(t), "reg.test/acme/web:v1", nil); err != nil {
			t.Fatal(err)
		}
		tag := "https://reg.test/v2/acme/web/manifests/" + signer.Tag(digest)
		var kept []string
		for _, request := range reg.requests {
			if !strings.Contains(request, "/blobs/") {
				kept = append(kept, request)
			}
		}
		want := []string{
			"GET https://reg.test/v2/",
			"GET https://reg.test/v2/acme/web/manifests/v1",
			"GET " + tag, "GET " + tag, "PUT " + tag, "GET " + tag, "GET " + tag,
		}
		if diff := cmp.Diff(want, kept); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSignRecursively(t *testing.T) {
	isolate(t)
	synctest.Test(t, func(t *testing.T) {
		reg := newOffline()
		digests := reg.index(t, "reg.test/acme/web:v1", 3)
		f := &signFlags{writerFlags: writerFlags{base: reg}, recursive: true}
		out, err := f.signAs(t, generateKey(t), "reg.test/acme/web:v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, digest := range digests {
			if _, payloads := reg.payloads(t, "reg.test/acme/web", digest); len(payloads) != 1 || payloads[0].Digest != digest.String() {
				t.Errorf("%s: %+v", digest, payloads)
			}
		}
		if !strings.HasSuffix(out.stdout.String(), "@"+digests[0].String()+"\n") {
			t.Errorf("verifies something else: %s", out.stdout.String())
		}
	})
}

func TestSignElsewhereAndUnderOtherNames(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_REPOSITORY", "sigs.test/all")
	t.Setenv("COSIGN_DOCKER_MEDIA_TYPES", "1")
	synctest.Test(t, func(t *testing.T) {
		reg := newOffline()
		digest := reg.image(t, "reg.test/acme/web:v1")
		f := &signFlags{
			writerFlags:   writerFlags{base: reg, registryFlags: registryFlags{insecure: true}},
			signedByFlags: signedByFlags{key: "env://KEY"}, identities: []string{"a.example/web:v1", "b.example/web"},
		}
		out, err := f.signAs(t, generateKey(t), "reg.test/acme/web@"+digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		manifest, payloads := reg.payloads(t, "sigs.test/all", digest)
		if manifest.MediaType != types.DockerManifestSchema2 || manifest.Config.MediaType != types.DockerConfigJSON {
			t.Errorf("media types %q, %q", manifest.MediaType, manifest.Config.MediaType)
		}
		names := map[string]bool{}
		for _, payload := range payloads {
			names[payload.Reference] = true
		}
		if diff := cmp.Diff(map[string]bool{"a.example/web:v1": true, "b.example/web": true}, names); diff != "" {
			t.Error(diff)
		}
		want := "Verify it with:\n" +
			"  vidimus public-key --key env://KEY --outfile cosign.pub\n" +
			"  COSIGN_REPOSITORY=sigs.test/all cosign verify --key cosign.pub --insecure-ignore-tlog=true --allow-insecure-registry reg.test/acme/web@" + digest.String() + "\n"
		if diff := cmp.Diff(want, out.stdout.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSignMeetsFailures(t *testing.T) {
	isolate(t)
	reg := newOffline()
	f := &signFlags{writerFlags: writerFlags{base: reg}}
	t.Run("an image that is not there is a misuse", func(t *testing.T) {
		_, err := f.signAs(t, generateKey(t), "reg.test/acme/web:missing", nil)
		if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitMisuse {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a registry that is down could not tell, after three tries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			down := &offline{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					tries++
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})}
			f := &signFlags{writerFlags: writerFlags{base: down}}
			_, err := f.signAs(t, generateKey(t), "reg.test/acme/web:v1", nil)
			if _, ok := errors.AsType[*exitError](err); ok || err == nil {
				t.Errorf("error %v", err)
			}
			if tries != 3 {
				t.Errorf("%d tries", tries)
			}
		})
	})
	t.Run("no lock file is a warning", func(t *testing.T) {
		digest := reg.image(t, "reg.test/acme/web:v1")
		if err := os.WriteFile("file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("XDG_CACHE_HOME", filepath.Join(os.Getenv("HOME"), "file"))
		synctest.Test(t, func(t *testing.T) {
			out, err := f.signAs(t, generateKey(t), "reg.test/acme/web@"+digest.String(), nil)
			if err != nil || !strings.Contains(out.stderr.String(), "warning: no lock file") {
				t.Errorf("%v, %s", err, out.stderr.String())
			}
		})
	})
}

// TestSignRefusesWhatIsLater wants every flag of cosign's that does something
// here not yet to be refused by name, before a key is looked at.
func TestSignRefusesWhatIsLater(t *testing.T) {
	isolate(t)
	refused := func(t *testing.T, want string, args ...string) {
		t.Helper()
		var out output
		code, err := out.execute(t.Context(), newSignCommand(), strings.NewReader(""),
			append(args, "--key", "missing.key", "reg.test/a:b")...)
		if code != exitMisuse || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: exit %d, %v", args, code, err)
		}
	}
	refused(t, "--no-such-flag", "--no-such-flag")
	refused(t, "want key=value", "-a", "x")
	t.Run("keyless", func(t *testing.T) {
		var out output
		code, err := out.execute(t.Context(), newSignCommand(), strings.NewReader(""), "reg.test/a:b")
		if code != exitMisuse || !strings.Contains(err.Error(), "keyless") {
			t.Errorf("exit %d, %v", code, err)
		}
	})
	t.Run("no image", func(t *testing.T) {
		var out output
		if code, _ := out.execute(t.Context(), newSignCommand(), strings.NewReader(""), "--key", "k"); code != exitMisuse {
			t.Errorf("exit %d", code)
		}
	})
}

func TestTriangulate(t *testing.T) {
	isolate(t)
	reg := newOffline()
	digest := reg.image(t, "reg.test/acme/web:v1")
	for _, tt := range []struct {
		name, repository string
		args             []string
		want             string
		code, requests   int
	}{
		{"a tag", "", []string{"reg.test/acme/web:v1"}, "reg.test/acme/web:" + signer.Tag(digest), exitHolds, 2},
		{"a digest asks nobody", "", []string{"reg.test/acme/web@" + digest.String()}, "reg.test/acme/web:" + signer.Tag(digest), exitHolds, 0},
		{"elsewhere", "sigs.test/all", []string{"reg.test/acme/web@" + digest.String()}, "sigs.test/all:" + signer.Tag(digest), exitHolds, 0},
		{"the image itself", "", []string{"--type", "digest", "reg.test/acme/web:v1"}, "reg.test/acme/web@" + digest.String(), exitHolds, 2},
		{"Docker Hub", "", []string{"alpine@" + digest.String()}, "index.docker.io/library/alpine:" + signer.Tag(digest), exitHolds, 0},
		{"attestations", "", []string{"--type", "attestation", "reg.test/acme/web:v1"}, "reg.test/acme/web:sha256-" + digest.Hex + ".att", exitHolds, 2},
		{"an unknown type", "", []string{"--type", "x", "reg.test/acme/web:v1"}, "", exitMisuse, 0},
		{"a tag that is not there", "", []string{"reg.test/acme/web:v2"}, "", exitMisuse, 2},
		{"no name", "", []string{"A B"}, "", exitMisuse, 0},
		{"a repository that is none", "A B", []string{"reg.test/acme/web:v1"}, "", exitMisuse, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("COSIGN_REPOSITORY", tt.repository)
			reg.requests = nil
			f := &triangulateFlags{imageFlags: imageFlags{writerFlags: writerFlags{base: reg}}}
			var out output
			code, err := out.execute(t.Context(), f.command(), strings.NewReader(""), tt.args...)
			if code != tt.code || strings.TrimSpace(out.stdout.String()) != tt.want || len(reg.requests) != tt.requests {
				t.Errorf("exit %d, %v, stdout %s, requests %q", code, err, out.stdout.String(), reg.requests)
			}
		})
	}
}
