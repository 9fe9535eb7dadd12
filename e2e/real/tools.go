package real

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Buildah is buildah with a storage of its own.
type Buildah struct {
	client string
	dir    string
}

// NewBuildah returns a buildah that knows of no registry but those that it is told.
func NewBuildah(tb testing.TB) *Buildah {
	tb.Helper()
	Root(tb)
	b := &Buildah{client: Program(tb, "buildah"), dir: Dir(tb)}
	containersConfig(tb, b.dir, "", nil)
	storageConfig(tb, b.dir)
	return b
}

// Command runs buildah with its configuration and arguments.
func (b *Buildah) Command(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: b.client, Args: args, Env: []string{
		"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(b.dir, "registries.conf"),
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(b.dir, "storage.conf"),
		"TMPDIR=" + b.dir,
	}})
}

// PullWith pulls an image with further flags before its name.
func (b *Buildah) PullWith(tb testing.TB, image string, flags ...string) Result {
	tb.Helper()
	args := append([]string{"pull", "--policy=always", "--signature-policy", filepath.Join(b.dir, "policy.json")}, flags...)
	return b.Command(tb, append(args, image)...)
}

// Regctl is regctl with a home of its own.
type Regctl struct {
	client string
	home   string
}

// NewRegctl returns a regctl that has no credentials.
func NewRegctl(tb testing.TB) *Regctl {
	tb.Helper()
	return &Regctl{Program(tb, "regctl"), Dir(tb)}
}

// Command runs regctl, which speaks plain HTTP to the registries.
func (r *Regctl) Command(tb testing.TB, registries []string, args ...string) Result {
	tb.Helper()
	var hosts []string
	for _, registry := range registries {
		hosts = append(hosts, "--host", "reg="+registry+",tls=disabled")
	}
	return Run(tb, Command{Path: r.client, Args: append(hosts, args...), Env: []string{
		"HOME=" + r.home, "REGCTL_CONFIG=" + filepath.Join(r.home, "regctl.json"),
	}})
}

// Helm is helm with a home of its own.
type Helm struct {
	client string
	home   string
}

// NewHelm returns a helm that has no credentials.
func NewHelm(tb testing.TB) *Helm {
	tb.Helper()
	return &Helm{Program(tb, "helm"), Dir(tb)}
}

// Command runs helm in its home.
func (h *Helm) Command(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Command{Path: h.client, Args: args, Dir: h.home, Env: []string{"HOME=" + h.home}})
}

// Chart packages a chart and returns the path of the archive.
func (h *Helm) Chart(tb testing.TB, name, version string) string {
	tb.Helper()
	Write(tb, h.home, name+"/Chart.yaml", fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", name, version))
	Write(tb, h.home, name+"/templates/note.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\n")
	if r := h.Command(tb, "package", name); r.Code != 0 {
		tb.Fatalf("helm package: %s", r.Output())
	}
	return filepath.Join(h.home, name+"-"+version+".tgz")
}
