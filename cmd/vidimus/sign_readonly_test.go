package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Who only prints what was signed needs no right to push.
func TestWhatIsPrintedIsAskedForWithTheRightToPullAlone(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	content := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := httptest.NewServer(content)
	t.Cleanup(open.Close)
	image, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(strings.TrimPrefix(open.URL, "http://") + "/acme/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, image); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var scopes []string
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			mu.Lock()
			defer mu.Unlock()
			scopes = append(scopes, r.URL.Query()["scope"]...)
			io.WriteString(w, `{"token":"t"}`)
		case r.Header.Get("Authorization") != "Bearer t":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			content.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(guarded.Close)
	target := strings.TrimPrefix(guarded.URL, "http://") + "/acme/web:v1"

	var out output
	if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), strings.NewReader("")); code != exitHolds {
		t.Fatal(code, err)
	}
	writeFile(t, "predicate.json", "{}")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"sign", "--upload=false"}, "repository:acme/web:pull"},
		{[]string{"attest", "--predicate", "predicate.json", "--no-upload"}, "repository:acme/web:pull"},
		{[]string{"sign", "--format", "tag"}, "repository:acme/web:push,pull"},
	} {
		scopes = nil
		var out output
		code, err := out.execute(t.Context(), newRootCommand(), strings.NewReader(""), append(row.args, "--key", "cosign.key", target)...)
		if code != exitHolds || out.stdout.Len() == 0 {
			t.Errorf("%v: exit %d, %v", row.args, code, err)
		}
		if slices.Sort(scopes); !slices.Equal(slices.Compact(scopes), []string{row.want}) {
			t.Errorf("%v: asked for %q, want %s", row.args, scopes, row.want)
		}
	}
}
