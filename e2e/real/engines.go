package real

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// Client is a container engine or tool that pulls from registries.
type Client interface {
	// Name is the client's, as people know it.
	Name() string
	// Version is what it says of itself, without words.
	Version(tb testing.TB) string
	// Pull pulls <upstream>/<repository>:<tag> through the proxy.
	Pull(tb testing.TB, upstream, repository, reference string) Result
}

// Runner is a Client that runs what it pulled.
type Runner interface {
	Client
	// Exec runs a command in a new container of what Pull pulled.
	Exec(tb testing.TB, upstream, repository, reference string, command ...string) Result
}

// join makes name:tag or name@digest.
func join(name, reference string) string {
	if len(reference) > 7 && reference[:7] == "sha256:" {
		return name + "@" + reference
	}
	return name + ":" + reference
}

// Docker is a docker engine of its own.
type Docker struct {
	proxy  string
	client string
	socket string
}

// StartDocker starts an engine without networks that pulls through the proxy
// at addr in path form: <addr>/<upstream>/<repository>. Engines speak plain
// HTTP to registries on loopback without being told.
func StartDocker(tb testing.TB, addr string) *Docker {
	tb.Helper()
	Root(tb)
	dir := Dir(tb)
	d := &Docker{proxy: addr, client: Program(tb, "docker"), socket: "unix://" + filepath.Join(dir, "s")}
	Start(tb, Command{Path: Program(tb, "dockerd"), Args: []string{
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--max-download-attempts=1",
		"--config-file", Write(tb, dir, "daemon.json", "{}"),
		"--data-root", filepath.Join(dir, "d"),
		"--exec-root", filepath.Join(dir, "e"),
		"--pidfile", filepath.Join(dir, "pid"),
		"--host", d.socket,
	}}, func() error {
		if r := d.run(tb, "version"); r.Code != 0 {
			return fmt.Errorf("docker version: %s", r.Output())
		}
		return nil
	})
	return d
}

func (d *Docker) run(tb testing.TB, args ...string) Result {
	return d.Command(tb, nil, args...)
}

// Command runs the docker client with an environment and arguments.
func (d *Docker) Command(tb testing.TB, env []string, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: d.client, Args: append([]string{"--host", d.socket}, args...), Env: env})
}

func (d *Docker) Name() string { return "docker" }

func (d *Docker) Version(tb testing.TB) string {
	tb.Helper()
	return version(tb, d.run(tb, "version", "--format", "{{.Server.Version}}"))
}

func (d *Docker) Pull(tb testing.TB, upstream, repository, reference string) Result {
	tb.Helper()
	return d.run(tb, "pull", d.image(upstream, repository, reference))
}

func (d *Docker) Exec(tb testing.TB, upstream, repository, reference string, command ...string) Result {
	tb.Helper()
	args := []string{"run", "--rm", "--pull=never", "--network=none", d.image(upstream, repository, reference)}
	return d.run(tb, append(args, command...)...)
}

func (d *Docker) image(upstream, repository, reference string) string {
	return join(d.proxy+"/"+upstream+"/"+repository, reference)
}

// Containerd is a containerd of its own, with ctr.
type Containerd struct {
	client string
	socket string
	hosts  string
	name   string // of its containers: all on a machine are in the same control group
	ran    int
}

// StartContainerd starts a containerd whose hosts.toml sends each upstream to
// the proxy at addr and nowhere else: the enforcing form.
func StartContainerd(tb testing.TB, addr string, upstreams ...string) *Containerd {
	tb.Helper()
	Root(tb)
	dir := Dir(tb)
	c := &Containerd{client: Program(tb, "ctr"), socket: filepath.Join(dir, "s"), hosts: filepath.Join(dir, "hosts"), name: filepath.Base(dir)}
	for _, upstream := range upstreams {
		Write(tb, c.hosts, upstream+"/hosts.toml", HostsTOML("http://"+addr))
	}
	config := Write(tb, dir, "config.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.socket))
	Start(tb, Command{Path: Program(tb, "containerd"), Args: []string{"--config", config}}, func() error {
		if r := c.run(tb, "version"); r.Code != 0 {
			return fmt.Errorf("ctr version: %s", r.Output())
		}
		return nil
	})
	return c
}

// HostsTOML is the hosts.toml that leaves containerd no way around the proxy.
func HostsTOML(url string) string {
	return fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url, url)
}

// Command runs ctr with arguments.
func (c *Containerd) Command(tb testing.TB, args ...string) Result {
	tb.Helper()
	return c.run(tb, args...)
}

func (c *Containerd) run(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: c.client, Args: append([]string{"--address", c.socket}, args...)})
}

func (c *Containerd) Name() string { return "containerd" }

func (c *Containerd) Version(tb testing.TB) string {
	tb.Helper()
	return version(tb, Run(tb, Command{Path: Program(tb, "containerd"), Args: []string{"--version"}}))
}

func (c *Containerd) Pull(tb testing.TB, upstream, repository, reference string) Result {
	tb.Helper()
	return c.PullWith(tb, join(upstream+"/"+repository, reference))
}

// PullWith pulls an image with further flags before its name.
func (c *Containerd) PullWith(tb testing.TB, image string, flags ...string) Result {
	tb.Helper()
	args := append([]string{"images", "pull", "--hosts-dir", c.hosts}, flags...)
	return c.run(tb, append(args, image)...)
}

func (c *Containerd) Exec(tb testing.TB, upstream, repository, reference string, command ...string) Result {
	tb.Helper()
	c.ran++
	args := []string{"run", "--rm", join(upstream+"/"+repository, reference), fmt.Sprintf("%s-%d", c.name, c.ran)}
	return c.run(tb, append(args, command...)...)
}

// Podman is podman with a storage of its own. It runs no containers here:
// that asks for more of a machine than a test may.
type Podman struct {
	client string
	dir    string
}

// NewPodman returns a podman whose registries.conf puts the proxy at addr in
// the place of each upstream: the enforcing form.
func NewPodman(tb testing.TB, addr string, upstreams ...string) *Podman {
	tb.Helper()
	Root(tb)
	p := &Podman{client: Program(tb, "podman"), dir: Dir(tb)}
	containersConfig(tb, p.dir, addr, upstreams)
	storageConfig(tb, p.dir)
	return p
}

// storageConfig writes the storage.conf of a storage of its own.
func storageConfig(tb testing.TB, dir string) {
	tb.Helper()
	Write(tb, dir, "storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\nrunroot = %q\ngraphroot = %q\n",
		filepath.Join(dir, "run"), filepath.Join(dir, "graph")))
}

// containersConfig writes the files that podman, buildah and skopeo share.
func containersConfig(tb testing.TB, dir, addr string, upstreams []string) {
	tb.Helper()
	Write(tb, dir, "policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	conf := "unqualified-search-registries = []\n"
	for _, upstream := range upstreams {
		conf += RegistriesConf(upstream, addr)
	}
	Write(tb, dir, "registries.conf", conf)
}

// RegistriesConf is the entry of registries.conf that leaves podman, CRI-O and
// skopeo no way around the proxy.
func RegistriesConf(upstream, addr string) string {
	return fmt.Sprintf("\n[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", upstream, addr+"/"+upstream)
}

func (p *Podman) Name() string { return "podman" }

// Command runs podman with its configuration and arguments.
func (p *Podman) Command(tb testing.TB, args ...string) Result {
	tb.Helper()
	return p.run(tb, args...)
}

func (p *Podman) run(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{
		Path: p.client,
		Args: append([]string{"--cgroup-manager=cgroupfs", "--events-backend=none", "--tmpdir", filepath.Join(p.dir, "tmp")}, args...),
		Env: []string{
			"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(p.dir, "registries.conf"),
			"CONTAINERS_STORAGE_CONF=" + filepath.Join(p.dir, "storage.conf"),
		},
	})
}

func (p *Podman) Version(tb testing.TB) string {
	tb.Helper()
	return version(tb, Run(tb, Command{Path: p.client, Args: []string{"--version"}}))
}

func (p *Podman) Pull(tb testing.TB, upstream, repository, reference string) Result {
	tb.Helper()
	return p.PullWith(tb, join(upstream+"/"+repository, reference))
}

// PullWith pulls an image with further flags before its name.
func (p *Podman) PullWith(tb testing.TB, image string, flags ...string) Result {
	tb.Helper()
	args := append([]string{"pull", "--signature-policy", filepath.Join(p.dir, "policy.json")}, flags...)
	return p.run(tb, append(args, image)...)
}

// Skopeo is skopeo; its Pull copies to a directory.
type Skopeo struct {
	client string
	dir    string
	copies int
}

// NewSkopeo returns a skopeo with the same registries.conf as NewPodman's.
func NewSkopeo(tb testing.TB, addr string, upstreams ...string) *Skopeo {
	tb.Helper()
	s := &Skopeo{client: Program(tb, "skopeo"), dir: Dir(tb)}
	containersConfig(tb, s.dir, addr, upstreams)
	return s
}

func (s *Skopeo) Name() string { return "skopeo" }

// Command runs skopeo with its configuration and arguments.
func (s *Skopeo) Command(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: s.client, Args: append([]string{
		"--registries-conf", filepath.Join(s.dir, "registries.conf"),
		"--policy", filepath.Join(s.dir, "policy.json"),
		"--tmpdir", s.dir,
	}, args...)})
}

func (s *Skopeo) Version(tb testing.TB) string {
	tb.Helper()
	return version(tb, Run(tb, Command{Path: s.client, Args: []string{"--version"}}))
}

func (s *Skopeo) Pull(tb testing.TB, upstream, repository, reference string) Result {
	tb.Helper()
	s.copies++
	return s.Command(tb, "copy", "docker://"+join(upstream+"/"+repository, reference),
		fmt.Sprintf("dir:%s/copy%d", s.dir, s.copies))
}

// get answers nil when url is answered with 200.
func get(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
