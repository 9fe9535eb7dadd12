package real

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// StartDistribution starts distribution's registry and returns its address.
func StartDistribution(tb testing.TB) string {
	tb.Helper()
	return StartDistributionWith(tb, FreeAddr(tb), "")
}

// StartDistributionWith starts it at addr, with more lines for its configuration.
func StartDistributionWith(tb testing.TB, addr, more string) string {
	tb.Helper()
	return startDistribution(tb, addr, true, more)
}

// StartDistributionThatKeeps starts it as it is by itself: it deletes nothing.
func StartDistributionThatKeeps(tb testing.TB) string {
	tb.Helper()
	return startDistribution(tb, FreeAddr(tb), false, "")
}

func startDistribution(tb testing.TB, addr string, deletes bool, more string) string {
	tb.Helper()
	dir := Dir(tb)
	config := Write(tb, dir, "registry.yml", fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: %t}}
http: {addr: %s, secret: for-tests}
%s`, filepath.Join(dir, "data"), deletes, addr, more))
	Start(tb, Command{
		Path: Program(tb, "registry"),
		Args: []string{"serve", config},
		Env:  []string{"OTEL_TRACES_EXPORTER=none"},
	}, func() error { return get("http://" + addr + "/v2/") })
	return addr
}

// StartGGCR starts go-containerregistry's registry, in this process, and
// returns its address.
func StartGGCR(tb testing.TB) string {
	tb.Helper()
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	server := httptest.NewServer(registry.New(quiet, registry.WithReferrersSupport(true)))
	tb.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Push pushes content to a registry at addr as a client does: blobs first, and
// returns its digest.
func Push(tb testing.TB, addr, repository string, content lying.Content, tags ...string) string {
	tb.Helper()
	for _, child := range content.Children {
		Push(tb, addr, repository, child)
	}
	repo, err := name.NewRepository(addr+"/"+repository, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	for _, blob := range content.Blobs {
		if err := remote.WriteLayer(repo, static.NewLayer(blob, types.OCILayer)); err != nil {
			tb.Fatalf("push a blob to %s: %v", repo, err)
		}
	}
	digest := content.Digest().String()
	references := []string{digest}
	references = append(references, tags...)
	for _, reference := range references {
		putManifest(tb, addr, repository, reference, content)
	}
	return digest
}

func putManifest(tb testing.TB, addr, repository, reference string, content lying.Content) {
	tb.Helper()
	url := "http://" + addr + "/v2/" + repository + "/manifests/" + reference
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPut, url, bytes.NewReader(content.Body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Content-Type", content.MediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		tb.Fatalf("PUT %s: %s %s", url, resp.Status, answer)
	}
}

// Sign pushes a signature of digest, as cosign's, that claims no name.
func Sign(tb testing.TB, addr, repository string, content lying.Content, key lying.Key) {
	tb.Helper()
	digest := content.Digest()
	signature := lying.Signatures(lying.Signature(key, lying.Payload("", digest, nil)))
	Push(tb, addr, repository, signature, lying.SignatureTag(digest))
}

// Form is the family of media types of an image.
type Form int

// Forms of an image.
const (
	OCI Form = iota
	DockerSchema2
)

// Busybox returns an image that runs here, of Debian's static busybox; another label
// is another image with the same layer.
func Busybox(tb testing.TB, form Form, label string) lying.Content {
	tb.Helper()
	return busyboxFor(tb, form, label, runtime.GOARCH)
}

// BusyboxIndex returns an index of two platforms, the second of which nobody
// will run.
func BusyboxIndex(tb testing.TB, form Form, label string) lying.Content {
	tb.Helper()
	children := []lying.Content{busyboxFor(tb, form, label, runtime.GOARCH), busyboxFor(tb, form, label, "s390x")}
	if form == DockerSchema2 {
		return lying.DockerList(children...)
	}
	return lying.Index(children...)
}

func busyboxFor(tb testing.TB, form Form, label, architecture string) lying.Content {
	tb.Helper()
	archive := busyboxTar(tb)
	var layer bytes.Buffer
	w, err := gzip.NewWriterLevel(&layer, gzip.BestSpeed)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(archive); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	config, err := json.Marshal(map[string]any{
		"architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config":  map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"PATH=/bin"}, "Labels": map[string]string{"test": label}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
		"history": []any{map[string]string{"created": "2026-01-01T00:00:00Z", "created_by": "vidimus e2e"}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	manifest := lying.ImageManifest{
		Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: config},
		Layers: []lying.Layer{{MediaType: types.OCILayer, Data: layer.Bytes()}},
	}
	if form == DockerSchema2 {
		manifest.MediaType = types.DockerManifestSchema2
		manifest.Config.MediaType = types.DockerConfigJSON
		manifest.Layers[0].MediaType = types.DockerLayer
	}
	return manifest.Build()
}

// busyboxTar is a root file system with nothing but busybox.
func busyboxTar(tb testing.TB) []byte {
	tb.Helper()
	binary, err := os.ReadFile(Program(tb, "busybox"))
	if err != nil {
		tb.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, entry := range []struct {
		header tar.Header
		body   []byte
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}, nil},
		{tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary))}, binary},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/sh", Linkname: "busybox"}, nil},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/echo", Linkname: "busybox"}, nil},
	} {
		entry.header.ModTime = epoch
		if err := w.WriteHeader(&entry.header); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(entry.body); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return archive.Bytes()
}

var number = regexp.MustCompile(`\d+\.\d+\.\d+`)

// version picks the version out of what a program says.
func version(tb testing.TB, r Result) string {
	tb.Helper()
	v := number.FindString(r.Stdout)
	if r.Code != 0 || v == "" {
		tb.Fatalf("no version in %q", strings.TrimSpace(r.Output()))
	}
	return v
}
