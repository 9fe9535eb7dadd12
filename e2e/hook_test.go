package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// What is pushed straight to distribution's registry, which tells of it, is signed
// there once, though the registry tells of the signatures as well.
func TestDistributionTellsOfPushes(t *testing.T) {
	t.Parallel()
	const token = "canary-token-of-the-hook"
	keys, dir, addr := newKeyPair(t), real.Dir(t), real.FreeAddr(t)
	real.Write(t, dir, "token", token+"\n")
	proxy := real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
cache: {directory: %q}
hooks: {tokenFile: token}
upstreams: {local: {url: "http://%s"}}
authorities: {release: {keys: [%q], signer: {key: %q, passwordEnv: COSIGN_PASSWORD}}}
policies: [{match: "local/acme/**", require: release, push: {sign: release, hook: true}}]
`, filepath.Join(dir, "cache"), addr, keys.public, keys.private), password...)
	registry := real.StartDistributionWith(t, addr, fmt.Sprintf(`notifications:
  endpoints:
    - {name: vidimus, url: "http://%s/hooks/push", headers: {Authorization: ["Bearer %s"]}, timeout: 5s, threshold: 3, backoff: 1s}
`, proxy.Addr, token))
	index := real.BusyboxIndex(t, real.OCI, "told")
	real.Push(t, registry, "acme/web", index, "v1")

	get := func(url string) (int, string) {
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	eventually := func(f func() error) {
		t.Helper()
		if err := real.Eventually(t.Context(), 2*time.Minute, f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(func() error {
		if _, metrics := get("http://" + proxy.Metrics + "/metrics"); !strings.Contains(metrics, `vidimus_hook_attempts_total{outcome="signed"} 1`+"\n") {
			return errors.New("the image is not signed")
		}
		return nil
	})
	w := &pushWorld{T: t, registry: registry, proxy: proxy, keys: keys}
	w.isSigned(t, "acme/web", "v1")
	// What the registry tells of the signatures comes to nothing, and then it is quiet.
	eventually(func() error {
		_, metrics := get("http://" + proxy.Metrics + "/metrics")
		for _, want := range []string{"vidimus_hook_queued 0\n", `vidimus_hook_attempts_total{outcome="signed"} 1` + "\n"} {
			if !strings.Contains(metrics, want) {
				return fmt.Errorf("the metrics do not say %s", want)
			}
		}
		if strings.Contains(metrics, `vidimus_hook_dropped_total{reason="evidence"} 0`+"\n") {
			return errors.New("the registry has not told of the signatures")
		}
		return nil
	})
	for _, content := range append(index.Children, index) {
		body, ok := w.manifest(t, "acme/web", lying.SignatureTag(content.Digest()))
		if n := strings.Count(string(body), "dev.cosignproject.cosign/signature"); !ok || n != 1 {
			t.Errorf("%d signatures of %s", n, content.Digest())
		}
	}
	if strings.Contains(proxy.Output(), token) {
		t.Error("the token is in the log")
	}
}
