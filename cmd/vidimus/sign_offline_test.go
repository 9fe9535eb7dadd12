package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// offline answers requests from a handler, without a network, so that a test
// owns its time. Every request is noted as METHOD URL.
type offline struct {
	handler http.Handler

	mu       sync.Mutex
	requests []string
}

func newOffline() *offline {
	return &offline{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

func (o *offline) RoundTrip(req *http.Request) (*http.Response, error) {
	o.mu.Lock()
	o.requests = append(o.requests, req.Method+" "+req.URL.String())
	o.mu.Unlock()
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI = req.URL.RequestURI()
	in.Host = req.URL.Host
	rec := httptest.NewRecorder()
	o.handler.ServeHTTP(rec, in)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

func ref(t *testing.T, s string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// image pushes an image, and returns its digest.
func (o *offline) image(t *testing.T, where string) v1.Hash {
	t.Helper()
	image, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref(t, where), image, remote.WithTransport(o)); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// index pushes an index of n images, and returns its digest and theirs.
func (o *offline) index(t *testing.T, where string, n int) []v1.Hash {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	digests := make([]v1.Hash, 1)
	for range n {
		image, err := random.Image(16, 1)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image})
	}
	if err := remote.WriteIndex(ref(t, where), index, remote.WithTransport(o)); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	digests[0] = digest
	return digests
}

// payloads returns what the signatures of subject in repository say.
func (o *offline) payloads(t *testing.T, repository string, subject v1.Hash) (*v1.Manifest, []envelope.Payload) {
	t.Helper()
	image, err := remote.Image(ref(t, repository+":"+signer.Tag(subject)), remote.WithTransport(o))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var payloads []envelope.Payload
	for _, layer := range layers {
		body, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := envelope.ParsePayload(data)
		if err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, payload)
	}
	return manifest, payloads
}

// isolate takes the person who runs the tests out of their environment.
func isolate(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("DOCKER_CONFIG", dir)
	for _, setting := range os.Environ() { // of who runs the tests: a workflow's identity, say
		name, _, _ := strings.Cut(setting, "=")
		for _, prefix := range []string{"COSIGN_", "SIGSTORE_", "TUF_", "ACTIONS_ID_TOKEN_", "TLOG", "REKOR_SERVER"} {
			if strings.HasPrefix(name, prefix) && name != "COSIGN_PASSWORD" {
				t.Setenv(name, "")
			}
		}
	}
	t.Chdir(dir)
}

// output is what a command printed.
type output struct{ stdout, stderr bytes.Buffer }

// execute runs a command as the program does, and returns its exit code.
func (o *output) execute(ctx context.Context, cmd *cobra.Command, stdin io.Reader, args ...string) (int, error) {
	markRunErrors(cmd)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(&o.stdout)
	cmd.SetErr(&o.stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitHolds, nil
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code, err
	}
	return exitMisuse, err
}

// signAs runs what the sign command does once its key is open, into a tag.
func (f *signFlags) signAs(t *testing.T, key crypto.Signer, image string, annotations map[string]string) (*output, error) {
	t.Helper()
	var out output
	cmd := new(cobra.Command)
	cmd.SetOut(&out.stdout)
	cmd.SetErr(&out.stderr)
	return &out, f.sign(t.Context(), cmd, signedBy{key: key}, []signer.Format{signer.FormatTag}, ref(t, image), annotations)
}

func generateKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := signer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
