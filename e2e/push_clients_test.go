package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// containersTool is podman or buildah.
type containersTool interface {
	Command(tb testing.TB, args ...string) real.Result
	PullWith(tb testing.TB, image string, flags ...string) real.Result
}

// pushWith pulls an image or an index and pushes it. An index is made anew.
func pushWith(t *testing.T, tool containersTool, from, to string) real.Result {
	if !strings.Contains(from, "/many") {
		must(t, tool.PullWith(t, from, "--tls-verify=false"))
		must(t, tool.Command(t, "tag", from, to))
		return tool.Command(t, "push", "--tls-verify=false", to)
	}
	list := filepath.Base(strings.TrimSuffix(from, ":v1"))
	if tool.Command(t, "manifest", "inspect", list).Code != 0 {
		must(t, tool.Command(t, "manifest", "create", list))
		must(t, tool.Command(t, "manifest", "add", "--all", "--tls-verify=false", list, "docker://"+from))
	}
	args := []string{"manifest", "push", "--all", "--tls-verify=false"}
	if strings.HasSuffix(list, "docker") {
		args = append(args, "--format", "v2s2")
	}
	return tool.Command(t, append(args, list, "docker://"+to)...)
}

func TestRealClientsPush(t *testing.T) {
	t.Parallel()
	w := newPushWorld(t)
	source := real.StartDistribution(t)
	for kind, content := range map[string]lying.Content{
		"one":         real.Busybox(t, real.OCI, "pushed"),
		"one-docker":  real.Busybox(t, real.DockerSchema2, "pushed"),
		"many":        real.BusyboxIndex(t, real.OCI, "pushed"),
		"many-docker": real.BusyboxIndex(t, real.DockerSchema2, "pushed"),
	} {
		real.Push(t, source, "from/"+kind, content, "v1")
	}
	type pushing func(t *testing.T, from, to string) real.Result
	for _, client := range []struct {
		name string
		make func(t *testing.T) pushing
		all  bool // copies an index with all that it lists
	}{
		{"crane", func(t *testing.T) pushing {
			return func(t *testing.T, from, to string) real.Result {
				return real.Run(t, real.Command{Path: real.Program(t, "crane"), Args: []string{"copy", "--insecure", from, to}})
			}
		}, true},
		{"regctl", func(t *testing.T) pushing {
			regctl := real.NewRegctl(t)
			return func(t *testing.T, from, to string) real.Result {
				return regctl.Command(t, []string{source, w.proxy.Addr}, "image", "copy", "--referrers", "--digest-tags", from, to)
			}
		}, true},
		{"skopeo", func(t *testing.T) pushing {
			skopeo := real.NewSkopeo(t, w.proxy.Addr)
			return func(t *testing.T, from, to string) real.Result {
				return skopeo.Command(t, "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to)
			}
		}, true},
		{"podman", func(t *testing.T) pushing {
			podman := real.NewPodman(t, w.proxy.Addr)
			return func(t *testing.T, from, to string) real.Result { return pushWith(t, podman, from, to) }
		}, true},
		{"buildah", func(t *testing.T) pushing {
			buildah := real.NewBuildah(t)
			return func(t *testing.T, from, to string) real.Result { return pushWith(t, buildah, from, to) }
		}, true},
		{"containerd", func(t *testing.T) pushing {
			containerd := real.StartContainerd(t, w.proxy.Addr)
			return func(t *testing.T, from, to string) real.Result {
				must(t, containerd.Command(t, "images", "pull", "--plain-http", "--all-platforms", from))
				must(t, containerd.Command(t, "images", "tag", "--force", from, to))
				return containerd.Command(t, "images", "push", "--plain-http", to)
			}
		}, true},
		{"docker", func(t *testing.T) pushing {
			docker := real.StartDocker(t, w.proxy.Addr)
			return func(t *testing.T, from, to string) real.Result {
				must(t, docker.Command(t, nil, "pull", from))
				must(t, docker.Command(t, nil, "tag", from, to))
				return docker.Command(t, nil, "push", to)
			}
		}, false},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			push := client.make(t)
			for _, kind := range []string{"one", "one-docker", "many", "many-docker"} {
				if strings.HasPrefix(kind, "many") && !client.all {
					continue
				}
				repository := "acme/" + client.name + "/" + kind
				for range 2 { // the second time most of it is there
					must(t, push(t, source+"/from/"+kind+":v1", w.name(repository)+":v1"))
				}
				w.isSigned(t, repository, "v1")
				w.isOfKind(t, repository, kind)
			}
		})
	}
}

// isOfKind fails the test unless the registry shows an index where one was pushed.
func (w *pushWorld) isOfKind(t *testing.T, repository, kind string) {
	t.Helper()
	body, _ := w.manifest(t, repository, "v1")
	if isIndex := strings.Contains(string(body), `"manifests"`); isIndex != strings.HasPrefix(kind, "many") {
		t.Errorf("%s was pushed, and there is %s", kind, body)
	}
}

// helm reads back what it has put by digest, before it is tagged and so before it is
// signed: who pushes charts may sign, too, which is to read what is not allowed yet.
func TestHelmPushesCharts(t *testing.T) {
	t.Parallel()
	users := real.Write(t, t.TempDir(), "users", htpasswd(t, "charts", otherPassword))
	w := newPushWorldBefore(t, real.StartDistribution(t), fmt.Sprintf(`
auth:
  htpasswd: %s
  access:
    - {subjects: [charts], match: "local/**", actions: [pull, push, sign]}
    - {subjects: [anonymous], match: "local/**", actions: [pull]}
`, users))
	helm := real.NewHelm(t)
	must(t, helm.Command(t, "registry", "login", "--plain-http", "--username", "charts", "--password", otherPassword, w.proxy.Addr))
	chart := helm.Chart(t, "web", "1.2.3")
	for range 2 {
		must(t, helm.Command(t, "push", "--plain-http", chart, "oci://"+w.name("acme/charts")))
	}
	w.isSigned(t, "acme/charts/web", "1.2.3")
	packed, err := os.ReadFile(chart)
	if err != nil {
		t.Fatal(err)
	}
	pulled := t.TempDir()
	must(t, helm.Command(t, "pull", "--plain-http", "oci://"+w.name("acme/charts/web"), "--version", "1.2.3", "--destination", pulled))
	if got, err := os.ReadFile(filepath.Join(pulled, filepath.Base(chart))); err != nil || string(got) != string(packed) {
		t.Errorf("another chart was pulled: %v", err)
	}
}

// What cosign pushes that is no evidence is signed like any image; what is evidence
// stays as it is. cosign copy puts the image under the tag of its digest, too, which
// is free where the upstream lists referrers by itself.
func TestCosignPushesThroughTheProxy(t *testing.T) {
	t.Parallel()
	w := newPushWorldBefore(t, lying.Start(t).Host, "")
	source := real.StartDistribution(t)
	image := real.Busybox(t, real.OCI, "copied by cosign")
	real.Push(t, source, "from/one", image, "v1")
	predicate := real.Write(t, t.TempDir(), "predicate.json", `{"buildDefinition":{"buildType":"https://example.com/b","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.com/x"}}}`)
	for _, major := range []int{2, 3} {
		cosign := real.NewCosign(t, major)
		dir := t.TempDir()
		must(t, cosign.Run(t, dir, "generate-key-pair"))
		private, public := filepath.Join(dir, "cosign.key"), filepath.Join(dir, "cosign.pub")
		repository := map[int]string{2: "acme/two", 3: "acme/three"}[major]

		must(t, cosign.Sign(t, private, source+"/from/one:v1", "--allow-http-registry"))
		must(t, cosign.Run(t, "", "copy", "--allow-http-registry", source+"/from/one:v1", w.name(repository)+":v1"))
		w.isSigned(t, repository, "v1")

		// Where there is a bundle, as ours, cosign looks for nothing at the tags.
		copied := w.name("open/"+repository) + "@" + image.Digest().String()
		must(t, cosign.Run(t, "", "copy", "--allow-http-registry", source+"/from/one:v1", w.name("open/"+repository)+":v1"))
		flags := []string{"--allow-http-registry"}
		if major == 3 {
			flags = append(flags, "--new-bundle-format=false")
		}
		must(t, cosign.Verify(t, public, copied, flags...))
		must(t, cosign.AttestTag(t, private, copied, "slsaprovenance1", predicate))
		must(t, cosign.VerifyAttestation(t, public, copied, "slsaprovenance1", flags...))
		if major == 3 {
			must(t, cosign.Attest(t, private, copied, "slsaprovenance1", predicate))
			must(t, cosign.VerifyAttestation(t, public, copied, "slsaprovenance1", "--allow-http-registry"))
		}
		must(t, cosign.Run(t, "", "upload", "blob", "-f", predicate, w.name(repository)+"/file:v1"))
		w.isSigned(t, repository+"/file", "v1")
	}
}
