package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// answer is what a client saw.
type answer struct {
	status int
	header http.Header
	body   []byte
	broken error // the body did not end as its headers said
}

// whole reports whether a client would take the answer for all that it asked
// for.
func (a answer) whole() bool { return a.broken == nil && a.status < 300 }

// do sends a request for a path under the proxy; headers are name, value.
func (w *world) do(method, path string, headers ...string) answer {
	w.t.Helper()
	r, err := http.NewRequest(method, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		if pair[0] == "Host" {
			r.Host = pair[1]
			continue
		}
		r.Header.Add(pair[0], pair[1])
	}
	response, err := w.web.Do(r)
	if err != nil {
		return answer{broken: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body, err}
}

func (w *world) get(path string, headers ...string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, headers...)
}

func (w *world) head(path string, headers ...string) answer {
	w.t.Helper()
	return w.do(http.MethodHead, path, headers...)
}

// raw sends bytes as they are, which no client would, and reads one answer.
func (w *world) raw(method, request string) answer {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return answer{broken: err}
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{broken: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body, err}
}

// rawPath asks for a path exactly as it is written.
func (w *world) rawPath(path string) answer {
	w.t.Helper()
	return w.raw(http.MethodGet, "GET "+path+" HTTP/1.1\r\nHost: vidimus\r\nConnection: close\r\n\r\n")
}

// wire is an error as the distribution specification wants it.
type wire struct {
	Errors []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  struct {
			ID         string            `json:"id"`
			Reason     string            `json:"reason"`
			Repository string            `json:"repository"`
			Reference  string            `json:"reference"`
			Digest     string            `json:"digest"`
			Policy     string            `json:"policy"`
			Evidence   []json.RawMessage `json:"evidence"`
			Hint       string            `json:"hint"`
		} `json:"detail"`
	} `json:"errors"`
}

// fault decodes an error strictly.
func fault(t testing.TB, a answer) wire {
	t.Helper()
	var e wire
	decoder := json.NewDecoder(strings.NewReader(string(a.body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil || len(e.Errors) != 1 {
		t.Fatalf("not one OCI error: %v\n%d %v\n%.400s", err, a.status, a.header, a.body)
	}
	return e
}

// refused wants an error with nothing of a success about it.
func refused(t testing.TB, a answer, status int, code, reason string) {
	t.Helper()
	if a.broken != nil {
		t.Fatalf("no answer: %v", a.broken)
	}
	if a.status != status {
		t.Fatalf("status %d, want %d %s %s\n%.600s", a.status, status, code, reason, a.body)
	}
	e := fault(t, a).Errors[0]
	if e.Code != code || e.Detail.Reason != reason || e.Message == "" {
		t.Fatalf("code %q, reason %q, want %q, %q: %s", e.Code, e.Detail.Reason, code, reason, e.Message)
	}
	for _, name := range []string{"Docker-Content-Digest", "Etag", "Content-Range", "Accept-Ranges", "Location", "Link", "Age"} {
		if a.header.Get(name) != "" {
			t.Errorf("the error has the header %s: %s", name, a.header.Get(name))
		}
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control of an error is %q", got)
	}
	if status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}

// served wants the bytes of a manifest.
func served(t testing.TB, a answer, content lying.Content) {
	t.Helper()
	if a.broken != nil || a.status != http.StatusOK {
		t.Fatalf("status %d, %v\n%.600s", a.status, a.broken, a.body)
	}
	if string(a.body) != string(content.Body) {
		t.Fatalf("other bytes: %.200s", a.body)
	}
	checkHeaders(t, a.header, map[string]string{
		"Docker-Content-Digest": content.Digest().String(),
		"Etag":                  `"` + content.Digest().String() + `"`,
		"Content-Type":          content.MediaType,
		"Cache-Control":         "private, no-cache",
		"Vary":                  "Accept, Authorization",
	})
}

func checkHeaders(t testing.TB, header http.Header, want map[string]string) {
	t.Helper()
	got := make(map[string]string)
	for name := range want {
		got[name] = strings.Join(header.Values(name), " | ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

// servedBlob wants the whole of a blob.
func servedBlob(t testing.TB, a answer, content []byte) {
	t.Helper()
	if a.broken != nil || a.status != http.StatusOK || string(a.body) != string(content) {
		t.Fatalf("status %d, %v, %d bytes instead of %d\n%.300s", a.status, a.broken, len(a.body), len(content), a.body)
	}
}

// neverWhole wants that no client could take the answer for complete: an error,
// or a connection that broke.
func neverWhole(t testing.TB, a answer) {
	t.Helper()
	if a.whole() {
		t.Fatalf("a complete answer with status %d and %d bytes", a.status, len(a.body))
	}
}

// asked wants that exactly these requests have reached a registry, in any
// order, since it last forgot. The signature tag of old and the referrers API are
// asked beside the usual tag, and nobody waits for them when that suffices: unless
// want names one of them, it may have been asked or not.
func asked(t testing.TB, registry *lying.Registry, want ...string) {
	t.Helper()
	got := registry.Log()
	for _, beside := range []string{".cosign", "/referrers/sha256:"} {
		isBeside := func(request string) bool { return strings.Contains(request, beside) }
		if !slices.ContainsFunc(want, isBeside) {
			got = slices.DeleteFunc(got, isBeside)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("requests upstream (-want +got):\n%s", diff)
	}
}

func manifestPath(repository, reference string) string {
	return "/v2/" + repository + "/manifests/" + reference
}

func blobPath(repository string, digest v1.Hash) string {
	return "/v2/" + repository + "/blobs/" + digest.String()
}

func tag(digest v1.Hash) string { return lying.SignatureTag(digest) }

// follower is a client that reads step by step.
type follower struct {
	response *http.Response
	err      error
}

func (w *world) begin(ctx context.Context, path string, headers ...string) follower {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	response, err := w.web.Do(r)
	if err == nil {
		w.t.Cleanup(func() { response.Body.Close() })
	}
	return follower{response, err}
}

// read wants n bytes more.
func (f follower) read(t testing.TB, n int) {
	t.Helper()
	if f.err != nil {
		t.Fatal(f.err)
	}
	if got, err := io.CopyN(io.Discard, f.response.Body, int64(n)); err != nil {
		t.Fatalf("after %d of %d bytes: %v", got, n, err)
	}
}
