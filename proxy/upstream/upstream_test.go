package upstream

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What proxy asks of an upstream and of its errors; the package imports nothing
// of ours, so the shape is written out again.
var (
	_ interface {
		Manifest(ctx context.Context, repository, reference string, held v1.Hash) (body []byte, contentType string, unchanged bool, err error)
		Blob(ctx context.Context, repository string, digest v1.Hash, offset int64) (body io.ReadCloser, size int64, err error)
		Exists(ctx context.Context, repository string, digest v1.Hash) (size int64, err error)
		Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error)
		Referrers(ctx context.Context, repository string, digest v1.Hash, artifactType string) ([]v1.Descriptor, error)
	} = (*Client)(nil)
	_ interface {
		error
		Kind() string
		RetryAfter() time.Duration
	} = (*Error)(nil)
)

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		own    string // empty: refused
		says   string
	}{
		{"a name is a host", Config{Name: "ghcr.io"}, "https://ghcr.io", ""},
		{"docker.io is registry-1.docker.io", Config{Name: "docker.io"}, "https://registry-1.docker.io", ""},
		{"docker.io may be elsewhere", Config{Name: "docker.io", URL: "https://mirror.example"}, "https://mirror.example", ""},
		{"with a port", Config{Name: "local", URL: "http://127.0.0.1:5002"}, "http://127.0.0.1:5002", ""},
		{"a slash at the end", Config{Name: "x", URL: "https://Registry.Example:443/"}, "https://registry.example", ""},
		{"IPv6", Config{Name: "x", URL: "http://[::1]:80"}, "http://[::1]", ""},
		{"an underscore", Config{Name: "x", URL: "http://my_registry:5000"}, "http://my_registry:5000", ""},
		{"no name", Config{URL: "https://a.example"}, "", "name"},
		{"no scheme", Config{Name: "x", URL: "registry.example"}, "", "scheme"},
		{"another scheme", Config{Name: "x", URL: "ftp://registry.example"}, "", "scheme"},
		{"no host", Config{Name: "x", URL: "https://"}, "", "host"},
		{"a path", Config{Name: "x", URL: "https://a.example/v2"}, "", "path"},
		{"a query", Config{Name: "x", URL: "https://a.example?x"}, "", "path or query"},
		{"a password", Config{Name: "x", URL: "https://u:hunter2@a.example"}, "", "passwordFile"},
		{"a password in what is no URL", Config{Name: "x", URL: "https://u:hunter2@a.example:port"}, "", "URL"},
		{"a port that is none", Config{Name: "x", URL: "https://a.example:0"}, "", "port"},
		{"an unusual address", Config{Name: "x", URL: "https://0x7f.1"}, "", "unusual"},
		{"link-local", Config{Name: "x", URL: "http://169.254.169.254"}, "", "never dialled"},
		{"a dot at the end", Config{Name: "x", URL: "https://a.example."}, "", "host name"},
		{"a ca that is none", Config{Name: "ghcr.io", CA: []byte("hunter2")}, "", "PEM"},
		{"an auth host with a scheme", Config{Name: "ghcr.io", AuthHosts: []string{"https://a.example"}}, "", "authHosts"},
		{"an auth host with a path", Config{Name: "ghcr.io", AuthHosts: []string{"a.example/x"}}, "", "authHosts"},
		{"an auth host with a star", Config{Name: "ghcr.io", AuthHosts: []string{"*.example"}}, "", "authHosts"},
		{"an empty auth host", Config{Name: "ghcr.io", AuthHosts: []string{""}}, "", "authHosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(tt.config)
			if (err == nil) != (tt.own != "") {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%q does not say %q", err, tt.says)
				}
				return
			}
			if got := c.own.String(); got != tt.own {
				t.Errorf("got %s, want %s", got, tt.own)
			}
		})
	}
	t.Run("all faults are told at once", func(t *testing.T) {
		_, err := New(Config{URL: "ftp://x", AuthHosts: []string{"a/b", "c d"}, CA: []byte("x")})
		for _, says := range []string{"name", "scheme", "a/b", "c d", "PEM"} {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v does not say %q", err, says)
			}
		}
	})
	t.Run("what the caller does to its Config later changes nothing", func(t *testing.T) {
		allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		c, err := New(Config{Name: "ghcr.io", Egress: allow})
		if err != nil {
			t.Fatal(err)
		}
		allow[0] = netip.MustParsePrefix("192.168.0.0/16")
		if c.egress.check(netip.MustParseAddr("192.168.0.1"), false, "x") == nil {
			t.Error("allowed")
		}
	})
}

func TestMemoryOfManyRepositoriesIsBounded(t *testing.T) {
	a := &authenticator{}
	header := http.Header{"Www-Authenticate": {`Bearer realm="https://a.example/token"`}}
	for i := range 3 * maxRemembered {
		repository := strings.Repeat("a", i%200+1) + "/" + strings.Repeat("b", i/200+1)
		if err := a.rejected(need{repository: repository}, authorization{}, header); err != nil {
			t.Fatal(err)
		}
		a.tokens = remember(a.tokens, tokenKey{challenge: a.last}, token{})
	}
	if len(a.challenges) > maxRemembered || len(a.tokens) > maxRemembered {
		t.Errorf("%d challenges and %d tokens", len(a.challenges), len(a.tokens))
	}
}
