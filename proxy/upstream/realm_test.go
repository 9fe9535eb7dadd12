package upstream

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestRealmCheck(t *testing.T) {
	for _, tt := range []struct {
		own, realm string
		hosts      []string
		allowed    bool
	}{
		{"https://registry-1.docker.io", "https://auth.docker.io/token", nil, true},
		{"https://registry-1.docker.io", "https://auth.docker.io.evil.test/token", nil, false},
		{"https://registry-1.docker.io", "https://evil-docker.io/token", nil, false},
		{"https://registry-1.docker.io", "https://auth.docker.io@evil.test/token", nil, false},
		{"https://registry-1.docker.io", "https://evil.test/auth.docker.io", nil, false},
		{"https://registry-1.docker.io", "http://auth.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "http://registry-1.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "http://registry-1.docker.io:443/token", nil, false},
		{"https://registry-1.docker.io", "ftp://auth.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "//auth.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "/token", nil, false},
		{"https://registry-1.docker.io", "", nil, false},
		{"https://registry-1.docker.io", "https://:443/token", nil, false},
		{"https://registry-1.docker.io", "https://auth.docker.io./token", nil, false},
		{"https://registry-1.docker.io", "https://AUTH.docker.IO/token", nil, true},
		{"https://ghcr.io", "https://ghcr.io/token", nil, true},
		{"https://ghcr.io", "https://GHCR.IO:443/token", nil, true},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", nil, true},
		// Tenants of one hosting domain are strangers to one another.
		{"https://one.github.io", "https://two.github.io/token", nil, false},
		{"https://one.s3.amazonaws.com", "https://two.s3.amazonaws.com/token", nil, false},
		{"https://registry.co.uk", "https://evil.co.uk/token", nil, false},
		// Listed hosts are compared exactly.
		{"https://registry.example", "https://sso.vendor.test/token", []string{"sso.vendor.test"}, true},
		{"https://registry.example", "https://SSO.vendor.test:443/token", []string{"sso.vendor.test"}, true},
		{"https://registry.example", "https://sso.vendor.test:8443/token", []string{"sso.vendor.test"}, false},
		{"https://registry.example", "https://sso.vendor.test:8443/token", []string{"sso.vendor.test:8443"}, true},
		{"https://registry.example", "https://x.sso.vendor.test/token", []string{"sso.vendor.test"}, false},
		{"https://registry.example", "http://sso.vendor.test/token", []string{"sso.vendor.test"}, false},
		// Addresses have no domain.
		{"https://10.0.0.1", "https://10.0.0.1/token", nil, true},
		{"https://10.0.0.1", "https://10.0.0.1:8443/token", nil, false},
		{"https://10.0.0.1", "https://10.0.0.2/token", nil, false},
		{"https://10.0.0.1", "https://0.0.1/token", nil, false},
		{"https://127.0.0.1", "https://2130706433/token", nil, false},
		{"https://127.0.0.1", "https://0x7f.1/token", nil, false},
		{"https://127.0.0.1", "https://017700000001/token", nil, false},
		{"https://[::1]:5000", "https://[::1]:5000/token", nil, true},
		{"https://[::1]:5000", "https://[0:0:0:0:0:0:0:1]:5000/token", nil, true},
		{"https://[fe80::1]", "https://[fe80::1%25eth0]/token", nil, false},
		// One label is no domain.
		{"https://registry", "https://registry/token", nil, true},
		{"https://registry", "https://auth/token", nil, false},
		// An http registry may issue its own tokens; another host needs https.
		{"http://registry.example:5000", "http://registry.example:5000/token", nil, true},
		{"http://registry.example:5000", "https://registry.example:5000/token", nil, true},
		{"http://registry.example:5000", "http://registry.example/token", nil, false},
		{"http://registry.example:5000", "http://auth.registry.example/token", nil, false},
		{"http://registry.example:5000", "https://auth.registry.example/token", nil, true},
		{"http://127.0.0.1:5000", "http://127.0.0.1:5001/token", nil, false},
	} {
		t.Run(tt.own+" names "+tt.realm, func(t *testing.T) {
			own, err := parseURL(Config{Name: "reg", URL: tt.own})
			if err != nil {
				t.Fatal(err)
			}
			hosts, err := parseAuthHosts(tt.hosts)
			if err != nil {
				t.Fatal(err)
			}
			_, err = realms{name: "reg", own: own, hosts: hosts}.check(tt.realm)
			if (err == nil) != tt.allowed {
				t.Errorf("got %v, want allowed %v", err, tt.allowed)
			}
		})
	}
}

func TestRealmOnAStrangersHostGetsNothing(t *testing.T) {
	w := newWorld(t)
	r := &tokenRegistry{}
	stranger := w.serve("https", "evil.test", r.issue)
	registry := w.serve("https", "registry.example", r.serve)
	r.realm = stranger.url() + "/token"
	credentials := func(config *Config) { config.Credentials = Static("robot", "hunter2") }

	_, _, err := manifestOf(t.Context(), w.client(registry, credentials), "acme/web", "v1")
	wantKind(t, err, KindRefused)
	if want := stranger.name + " to upstreams.reg.authHosts"; !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	if advice := adviceOf(err); !strings.Contains(advice, "upstreams.reg.authHosts") || strings.Contains(advice, "evil.test") {
		t.Errorf("advice is %q", advice)
	}
	if where, config := settingOf(err); where != "upstreams" || !strings.HasPrefix(config, `reg: {authHosts: ["evil.test`) {
		t.Errorf("setting is %s in %s", config, where)
	}
	if got := stranger.lines(); len(got) != 0 {
		t.Errorf("the stranger was asked %q", got)
	}

	c := w.client(registry, func(config *Config) {
		credentials(config)
		config.AuthHosts = []string{stranger.name}
	})
	if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
		t.Errorf("once its host is listed: %v", err)
	}
	if got := len(stranger.authorizations()); got != 1 {
		t.Errorf("once its host is listed it was shown %d credentials, want 1", got)
	}
}

func TestRealmThatResolvesToAPrivateAddress(t *testing.T) {
	for _, tt := range []struct {
		address string
		egress  []netip.Prefix
		says    string
	}{
		{"127.0.0.1", nil, "egress.allow"},
		{"10.1.2.3", nil, "egress.allow"},
		{"169.254.169.254", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, "never dialled"},
	} {
		t.Run(tt.address, func(t *testing.T) {
			w := newWorld(t)
			r := &tokenRegistry{}
			registry := w.serve("https", "registry.corp.example", r.serve)
			auth := w.serve("https", "auth.corp.example", r.issue)
			w.resolve("auth.corp.example", tt.address)
			r.realm = auth.url() + "/token"
			c := w.client(registry, func(config *Config) {
				config.Egress, config.Credentials = tt.egress, Static("robot", "hunter2")
			})
			_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
			wantKind(t, err, KindRefused)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			if got := auth.lines(); len(got) != 0 {
				t.Errorf("the token host was asked %q", got)
			}
		})
	}
}

func TestUpstreamNamesItsOwnPortOverHTTP(t *testing.T) {
	// CVE-2019-10214's kind: an https registry that sends its realm over http.
	w := newWorld(t)
	plain := w.serve("http", "registry.example", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"token":"x"}`) })
	registry := w.serve("https", "registry.example", (&tokenRegistry{realm: plain.url() + "/token"}).serve)
	c := w.client(registry, func(config *Config) { config.Credentials = Static("robot", "hunter2") })
	_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
	wantKind(t, err, KindRefused)
	if got := plain.lines(); len(got) != 0 {
		t.Errorf("asked over http: %q", got)
	}
}
