package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vidimus/policy"
)

// compareAll lets cmp look at every field of this package's types.
var compareAll = cmp.Exporter(func(t reflect.Type) bool { return true })

func mustLoad(t *testing.T, text string, env map[string]string) *loaded {
	t.Helper()
	writeFile(t, "vidimus.yaml", text)
	l, err := load(fromFile("vidimus.yaml"), lookupIn(env), clock)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDefaultsAreThoseOfTheSpecification(t *testing.T) {
	inDirectory(t, nil)
	l := mustLoad(t, "version: 1\nupstreams: {docker.io: {}}\n", nil)
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"http.addr", l.HTTP.Addr.Value, "127.0.0.1:5080"},
		{"metrics.addr", l.Metrics.Addr, "127.0.0.1:5081"},
		{"admin.addr", l.Admin.Addr, ""},
		{"cache.directory", l.Cache.Directory.Name, ""},
		{"cache.maxSize", l.Cache.MaxSize, share{Percent: 80}},
		{"cache.tagTTL", l.Cache.TagTTL, 30 * time.Second},
		{"cache.maxStale", l.Cache.MaxStale, time.Hour},
		{"defaultUpstream", l.DefaultUpstream.Value, ""},
		{"egress.proxy", l.Egress.Proxy, "environment"},
		{"enforcement", l.Enforcement, policy.Enforce},
		{"auth.anonymousPull", l.Auth.AnonymousPull, false},
		{"decisions.path", l.Decisions.Path.Name, "-"},
		{"decisions.required", l.Decisions.Required, false},
		{"decisions.maxSize", l.Decisions.MaxSize, int64(1 << 30)},
		{"log", l.Log, logConfig{Level: "info", Format: "json"}},
		{"tls", l.TLS == nil, true},
		{"the URL of docker.io", l.Upstreams[0].Config.URL, "https://registry-1.docker.io"},
		{"policies", len(l.Policies), 0},
	} {
		if diff := cmp.Diff(row.want, row.got, compareAll); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestRequireHasFourSpellings(t *testing.T) {
	inDirectory(t, nil)
	for spelled, want := range map[string]policy.Require{
		"release":                                {AtLeast: 1, Of: []string{"release"}},
		"{any: [release, other]}":                {AtLeast: 1, Of: []string{"release", "other"}},
		"{all: [release, other]}":                {AtLeast: 2, Of: []string{"release", "other"}},
		"{atLeast: 2, of: [release, other]}":     {AtLeast: 2, Of: []string{"release", "other"}},
		"{of: [other, release], \"atLeast\": 1}": {AtLeast: 1, Of: []string{"other", "release"}},
	} {
		l := mustLoad(t, `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}, other: {keys: [other.pub]}}
policies: [{match: "docker.io/**", require: `+spelled+`}]
`, nil)
		if diff := cmp.Diff(want, l.Policy.Policies[0].Require); diff != "" {
			t.Errorf("require: %s (-want +got):\n%s", spelled, diff)
		}
	}
}

func TestEveryKeyReachesItsPart(t *testing.T) {
	certificate, key := selfSigned(t)
	inDirectory(t, map[string]string{
		"tls/server.crt": certificate, "tls/server.key": key, "ca.pem": certificate,
		"password": "hunter2\n", "config.json": `{"auths":{}}`,
		"policies.d/b.yaml":        `{policies: [{match: ghcr.io/b, allow: unverified}]}`,
		"policies.d/a.yaml":        `{authorities: {team: {keys: [keys/team.pub]}}, policies: [{match: ghcr.io/a, require: team}]}`,
		"policies.d/keys/team.pub": readFixture(t, "other.pub"),
		"scoped.yaml":              `{policies: [{match: ghcr.io/team/x, deny: moved}]}`,
	})
	digest := "sha256:" + strings.Repeat("0a", 32)
	l := mustLoad(t, `
version: 1
http:
  addr: "[::1]:0"
  tls: {certificate: tls/server.crt, key: tls/server.key, clientCAs: [ca.pem]}
  externalURL: https://registry.example:8443/
  trustedProxies: [10.0.0.0/8, 192.0.2.1]
metrics: {addr: ""}
admin: {addr: "127.0.0.1:5082"}
cache: {directory: store, maxSize: 50GiB, tagTTL: 1m30s, maxStale: 2d}
upstreams:
  ghcr.io: {username: robot, passwordEnv: TOKEN, hosts: [ghcr.example], authHosts: [auth.example], ca: ca.pem}
  local: {url: "http://127.0.0.1:5002", credentials: {dockerConfig: config.json}}
  quay.io: {username: robot, passwordFile: password}
defaultUpstream: local
egress: {allow: [10.1.0.0/16], proxy: none}
authorities: {release: {keys: [release.pub]}}
enforcement: warn
policies:
  - match: ["ghcr.io/acme/**", "!ghcr.io/acme/x"]
    name: production
    require: release
    signedAs: exact
    annotations: {env: prod}
    enforcement: observe
    message: ask us
  - {match: "ghcr.io/copies/**", require: release, signedAs: {prefix: ghcr.io/copies, signedPrefix: quay.io/originals}}
exceptions: [{match: "quay.io/**", digests: ["`+digest+`"], until: 2026-12-01, reason: INC-1}]
revoked: ["`+digest+`"]
include: [policies.d/*.yaml, {files: scoped.yaml, scope: "ghcr.io/team/**"}]
decisions: {path: decisions.json, required: true, maxSize: 5MiB}
log: {level: debug, format: text}
`, map[string]string{"TOKEN": "secret"})

	r, err := l.build(observers{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	observe := policy.Observe
	until := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"client certificates", r.TLS.ClientCAs != nil, true},
		{"external host", r.Proxy.ExternalHost, "registry.example:8443"},
		{"trusted proxies", r.Proxy.TrustedProxies, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}},
		{"metrics", r.Metrics.Addr, ""},
		{"admin", r.Admin.Addr, "127.0.0.1:5082"},
		{"directory", r.Cache.Directory.Name, "store"},
		{"size", r.Cache.MaxSize, share{Bytes: 50 << 30}},
		{"tag TTL", r.Proxy.TagTTL, 90 * time.Second},
		{"max stale", r.Proxy.MaxStale, 48 * time.Hour},
		{"hosts", r.Proxy.Upstreams["ghcr.io"].Hosts, []string{"ghcr.example"}},
		{"URL host", r.Proxy.Upstreams["local"].URLHost, "127.0.0.1:5002"},
		{"auth hosts", r.Upstreams[0].Config.AuthHosts, []string{"auth.example"}},
		{"CA", string(r.Upstreams[0].Config.CA), certificate},
		{"egress", r.Upstreams[0].Config.Egress, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
		{"no proxy", r.Upstreams[0].Config.Proxy == nil, true},
		{"default", r.Proxy.DefaultUpstream, "local"},
		{"names of the default", r.otherHosts()["local"], []string{"127.0.0.1:5002", "registry.example:8443/local", "registry.example:8443"}},
		{"names of another", r.otherHosts()["ghcr.io"], []string{"ghcr.io", "ghcr.example", "registry.example:8443/ghcr.io"}},
		{"ceiling", r.Policy.Enforcement, policy.Warn},
		{"policies", names(l), []string{"ghcr.io/acme/**, !ghcr.io/acme/x", "ghcr.io/copies/**", "ghcr.io/a", "ghcr.io/b", "ghcr.io/team/x"}},
		{"policy", [...]any{l.Policy.Policies[0].Name, l.Policy.Policies[0].SignedAs, l.Policy.Policies[0].Annotations, l.Policy.Policies[0].Enforcement, l.Policy.Policies[0].Message},
			[...]any{"production", policy.Exact, map[string]string{"env": "prod"}, &observe, "ask us"}},
		{"copies", [...]any{l.Policy.Policies[1].SignedAs, l.Policy.Policies[1].Remap},
			[...]any{policy.Remapped, policy.Remap{Prefix: "ghcr.io/copies", SignedPrefix: "quay.io/originals"}}},
		{"authorities", len(l.Policy.Authorities), 2},
		{"exception", [...]any{l.Policy.Exceptions[0].Until, l.Policy.Exceptions[0].Reason}, [...]any{until, "INC-1"}},
		{"revoked", l.Policy.Revoked[0].String(), digest},
		{"record", [...]any{r.Proxy.RequireRecord, r.Decisions.Path.Name, r.Decisions.MaxSize}, [...]any{true, "decisions.json", int64(5 << 20)}},
		{"log", r.Log, logConfig{Level: "debug", Format: "text"}},
	} {
		if diff := cmp.Diff(row.want, row.got, compareAll); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
	for i, want := range []string{"secret", "", "hunter2"} {
		credentials := r.Upstreams[i].Config.Credentials
		if want == "" {
			continue
		}
		if c, err := credentials(t.Context(), "host"); err != nil || c.Username != "robot" || c.Password != want {
			t.Errorf("credentials of %s are not what was written: %v", r.Upstreams[i].Name, err)
		}
	}
}

func names(l *loaded) []string {
	var out []string
	for _, p := range l.Policy.Policies {
		out = append(out, p.Match.String())
	}
	return out
}

func TestCredentialsOffLoopbackNeedAnonymousPull(t *testing.T) {
	inDirectory(t, nil)
	mustLoad(t, "version: 1\nhttp: {addr: ':5080'}\nauth: {anonymousPull: true}\nupstreams: {docker.io: {credentials: docker}}\n", nil)
	mustLoad(t, "version: 1\nhttp: {addr: 'localhost:5080'}\nupstreams: {docker.io: {credentials: docker}}\n", nil)
	mustLoad(t, "version: 1\nhttp: {addr: ':5080'}\nupstreams: {docker.io: {}}\n", nil)
}

func TestRevisionIDCoversEveryFileButSecrets(t *testing.T) {
	certificate, key := selfSigned(t)
	files := map[string]string{
		"tls.crt": certificate, "tls.key": key, "ca.pem": certificate, "password": "one", "more.yaml": "{}",
	}
	other := readFixture(t, "other.pub")
	inDirectory(t, files)
	const text = `
version: 1
http: {tls: {certificate: tls.crt, key: tls.key}}
upstreams: {docker.io: {ca: ca.pem, username: joe, passwordFile: password}}
authorities: {release: {keys: [release.pub]}}
include: [more.yaml]
`
	before := mustLoad(t, text, nil)
	if again := mustLoad(t, text, nil); again.ID != before.ID || again.sum != before.sum {
		t.Error("the same files make different revisions")
	}
	for name, change := range map[string]string{
		"more.yaml": "{revoked: []}", "ca.pem": certificate + certificate, "release.pub": other,
	} {
		old := mustReadFile(t, name)
		writeFile(t, name, change)
		if after := mustLoad(t, text, nil); after.ID == before.ID || after.sum == before.sum {
			t.Errorf("%s changed and the revision did not", name)
		}
		writeFile(t, name, old)
	}
	writeFile(t, "password", "two")
	if after := mustLoad(t, text, nil); after.sum == before.sum || after.Upstreams[0].Identity == before.Upstreams[0].Identity {
		t.Error("a changed password changed nothing")
	} else if after.ID != before.ID {
		t.Error("the id, which everybody sees, depends on a password")
	}
}

func TestClientsAreUsedAgainWhileTheirSettingsStay(t *testing.T) {
	inDirectory(t, nil)
	build := func(text string, old *revision) *revision {
		r, err := mustLoad(t, text, nil).build(observers{}, nil, old)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := build("version: 1\nupstreams: {docker.io: {}, ghcr.io: {}}\n", nil)
	second := build("version: 1\nupstreams: {docker.io: {}, ghcr.io: {authHosts: [a.example]}}\nenforcement: warn\n", first)
	if first.Clients["docker.io"] != second.Clients["docker.io"] {
		t.Error("docker.io has a new client, though nothing about it changed")
	}
	if first.Clients["ghcr.io"] == second.Clients["ghcr.io"] {
		t.Error("ghcr.io has its old client, though its settings changed")
	}
}

func TestFilesBeyondTheirCapAreRefused(t *testing.T) {
	inDirectory(t, map[string]string{"vidimus.yaml": "version: 1\n#" + strings.Repeat("x", 1<<20)})
	_, err := load(fromFile("vidimus.yaml"), lookupIn(nil), clock)
	if err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("a configuration of more than 1 MiB: %v", err)
	}
}

func TestDevicesAreNotRead(t *testing.T) {
	if _, err := load(fromFile("/dev/zero"), lookupIn(nil), clock); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/zero as configuration: %v", err)
	}
}
