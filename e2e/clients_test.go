package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
	"vidimus/proxy"
)

// upstream is a real registry, under a name that clients believe in.
type upstream struct {
	name     string // in Vidimus and in the clients
	software string
	addr     string
}

// world is a proxy between real registries and real clients.
type world struct {
	proxy     *real.Vidimus
	release   lying.Key // what the policy asks for
	stranger  lying.Key
	upstreams []upstream
}

// message is what the policy adds to a refusal.
const message = "Release with make release."

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		release:  lying.P256(),
		stranger: lying.P256(),
		upstreams: []upstream{
			{"docker.io", "distribution", real.StartDistribution(t)},
			{"ghcr.io", "go-containerregistry", real.StartGGCR(t)},
		},
	}
	dir := real.Dir(t)
	w.release.WritePublic(t, dir, "release.pub")
	w.proxy = real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
cache: {directory: cache, tagTTL: 1ms}
upstreams:
  docker.io: {url: "http://%s"}
  ghcr.io: {url: "http://%s"}
authorities:
  release: {keys: [release.pub]}
policies:
  - {match: ["docker.io/acme/**", "ghcr.io/acme/**"], name: production, require: release, message: %q}
decisions: {path: decisions.json}
`, w.upstreams[0].addr, w.upstreams[1].addr, message))
	return w
}

// names of the upstreams.
func (w *world) names() []string {
	var names []string
	for _, up := range w.upstreams {
		names = append(names, up.name)
	}
	return names
}

// fill pushes what the clients pull: images that run, in OCI's form and in
// docker's.
func (w *world) fill(t *testing.T, up upstream) {
	t.Helper()
	push := func(repository string, content lying.Content, key *lying.Key) {
		real.Push(t, up.addr, repository, content, "v1")
		if key != nil {
			real.Sign(t, up.addr, repository, content, *key)
		}
	}
	push("acme/web", real.Busybox(t, real.OCI, "signed"), &w.release)
	push("acme/docker", real.Busybox(t, real.DockerSchema2, "signed"), &w.release)
	push("acme/multi", real.BusyboxIndex(t, real.OCI, "multi"), &w.release)
	push("acme/list", real.BusyboxIndex(t, real.DockerSchema2, "list"), &w.release)
	push("acme/unsigned", real.Busybox(t, real.OCI, "unsigned"), nil)
	push("acme/stranger", real.Busybox(t, real.OCI, "stranger"), &w.stranger)
	push("other/web", real.Busybox(t, real.OCI, "no policy"), &w.release)
}

func TestRealClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, up := range w.upstreams {
		w.fill(t, up)
	}
	for _, client := range []struct {
		name  string
		start func(*testing.T) real.Client
	}{
		// containerd is first, and alone: its refusals are looked up in the record, and one
		// that another client met within the last five seconds would be that client's.
		{"containerd", func(t *testing.T) real.Client { return real.StartContainerd(t, w.proxy.Addr, w.names()...) }},
		{"docker", func(t *testing.T) real.Client { return real.StartDocker(t, w.proxy.Addr) }},
		{"podman", func(t *testing.T) real.Client { return real.NewPodman(t, w.proxy.Addr, w.names()...) }},
		{"skopeo", func(t *testing.T) real.Client { return real.NewSkopeo(t, w.proxy.Addr, w.names()...) }},
	} {
		t.Run(client.name, func(t *testing.T) {
			if client.name != "containerd" {
				t.Parallel()
			}
			c := client.start(t)
			for _, up := range w.upstreams {
				t.Run(up.software, func(t *testing.T) {
					w.serves(t, c, up)
					w.refuses(t, c, up)
					w.followsTheTag(t, c, up)
				})
			}
		})
	}
}

// serves pulls what is signed as the policy says, and runs it.
func (w *world) serves(t *testing.T, c real.Client, up upstream) {
	for repository, what := range map[string]string{
		"acme/web":    "a signed image",
		"acme/docker": "a signed image in docker's form",
		"acme/multi":  "one platform of a signed index",
		"acme/list":   "one platform of a signed list in docker's form",
	} {
		t.Run(what+" is served and runs", func(t *testing.T) {
			if r := c.Pull(t, up.name, repository, "v1"); r.Code != 0 {
				t.Fatalf("pull: %s", r.Output())
			}
			runner, runs := c.(real.Runner)
			if !runs {
				return
			}
			r := runner.Exec(t, up.name, repository, "v1", "/bin/echo", "it runs")
			if r.Code != 0 || strings.TrimSpace(r.Stdout) != "it runs" {
				t.Errorf("run: exit code %d\n%s", r.Code, r.Output())
			}
		})
	}
}

// refuses pulls what is not, and looks at what the person sees.
func (w *world) refuses(t *testing.T, c real.Client, up upstream) {
	for _, test := range []struct {
		title, repository, reference, reason string
		says                                 []string
	}{
		{"an unsigned image is refused", "acme/unsigned", "v1", "unsigned", []string{"Vidimus refused " + up.name + "/acme/unsigned:v1", "(policy production)", "not signed", message}},
		{"what a stranger signed is refused", "acme/stranger", "v1", "untrusted", []string{"Vidimus refused " + up.name + "/acme/stranger:v1", "(policy production)", "signed, but not by release", message}},
		{"what no policy covers is refused", "other/web", "v1", "no-policy", []string{"Vidimus refused " + up.name + "/other/web:v1", "no policy"}},
		{"an unsigned image is refused by digest too", "acme/unsigned", real.Busybox(t, real.OCI, "unsigned").Digest().String(), "unsigned", []string{"Vidimus refused"}},
	} {
		t.Run(test.title, func(t *testing.T) {
			r := c.Pull(t, up.name, test.repository, test.reference)
			if r.Code == 0 {
				t.Fatalf("pulled: %s", r.Output())
			}
			if c.Name() == "containerd" && c.Version(t) < "2.3" {
				w.isRecorded(t, up.name+"/"+test.repository, test.reason)
				test.says = []string{"403 Forbidden"} // all that these versions show
			}
			for _, want := range test.says {
				if !strings.Contains(r.Output(), want) {
					t.Errorf("%q is not in what it prints:\n%s", want, r.Output())
				}
			}
			if up.name == "docker.io" && test.repository == "acme/unsigned" && test.reference == "v1" {
				isQuoted(t, c, r.Output())
			}
		})
	}
}

// isRecorded looks a refusal up by image, as a person does whose client shows
// only a status.
func (w *world) isRecorded(t *testing.T, image, reason string) {
	t.Helper()
	file := filepath.Join(filepath.Dir(w.proxy.Config), "decisions.json")
	r := must(t, vidimus(t, "", nil, "decisions", "--from", file, "--image", image, "--reason", reason, "--output", "json"))
	for line := range strings.Lines(r.Stdout) {
		var record proxy.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if strings.HasPrefix(record.UserAgent, "containerd/") && record.Repository == image && !record.Served {
			return
		}
	}
	t.Errorf("no refusal of %s to containerd in vidimus decisions:\n%s", image, r.Output())
}

// followsTheTag moves a tag from a signed image to an unsigned one.
func (w *world) followsTheTag(t *testing.T, c real.Client, up upstream) {
	t.Run("a tag that moves to an unsigned image is refused", func(t *testing.T) {
		repository := "acme/moving-" + c.Name()
		signed := real.Busybox(t, real.OCI, "before")
		real.Push(t, up.addr, repository, signed, "v1")
		real.Sign(t, up.addr, repository, signed, w.release)
		if r := c.Pull(t, up.name, repository, "v1"); r.Code != 0 {
			t.Fatalf("pull before: %s", r.Output())
		}
		real.Push(t, up.addr, repository, real.Busybox(t, real.OCI, "after"), "v1")
		if r := c.Pull(t, up.name, repository, "v1"); r.Code == 0 {
			t.Errorf("pulled after: %s", r.Output())
		}
		if r := c.Pull(t, up.name, repository, signed.Digest().String()); r.Code != 0 {
			t.Errorf("pull of the signed one by digest: %s", r.Output())
		}
	})
}

// What differs from run to run in what a client prints.
var (
	anyAddr = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	anyID   = regexp.MustCompile(`\[id [0-9a-f]+\]`)
	anyHex  = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	anyKey  = regexp.MustCompile(`\b[0-9a-f]{8,64}(…|\b)`)
	anyTime = regexp.MustCompile(`time="[^"]*"`)
)

// quote is what a client printed, as docs/clients.md has it.
func quote(output string) string {
	for _, line := range strings.Split(output, "\n") {
		if !strings.Contains(line, "efused") && !strings.Contains(line, "403 Forbidden") {
			continue
		}
		line = anyAddr.ReplaceAllString(line, "127.0.0.1:5080")
		line = anyID.ReplaceAllString(line, "[id 7f3c2a…]")
		line = anyHex.ReplaceAllString(line, "sha256:9f86…")
		line = anyKey.ReplaceAllString(line, "3f2a…")
		return strings.TrimSpace(anyTime.ReplaceAllString(line, `time="…"`))
	}
	return ""
}

// isQuoted fails when docs/clients.md quotes this version of the client with
// other words. Of other versions the page says nothing.
func isQuoted(t *testing.T, c real.Client, output string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), c.Name()+" "+c.Version(t)) {
		t.Logf("docs/clients.md does not speak of %s %s", c.Name(), c.Version(t))
		return
	}
	said := quote(output)
	if !strings.Contains(string(page), said) {
		t.Errorf("docs/clients.md does not quote %s %s as saying:\n%s", c.Name(), c.Version(t), said)
	}
}
