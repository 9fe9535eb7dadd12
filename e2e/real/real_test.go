package real_test

import (
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// Each client pulls from a plain registry with nothing in between: when this
// fails, the machine or this package is at fault and not Vidimus.
func TestClientsWorkWithoutVidimus(t *testing.T) {
	for _, registry := range []struct {
		name  string
		start func(testing.TB) string
	}{
		{"distribution", real.StartDistribution},
		{"go-containerregistry", real.StartGGCR},
	} {
		t.Run(registry.name, func(t *testing.T) {
			addr := registry.start(t)
			image := real.Busybox(t, real.OCI, "plain")
			list := real.BusyboxIndex(t, real.DockerSchema2, "plain")
			// Clients that write the upstream into the path ask for the longer name.
			for _, prefix := range []string{"", "docker.io/"} {
				real.Push(t, addr, prefix+"acme/plain", image, "v1")
				real.Push(t, addr, prefix+"acme/plain", list, "multi")
			}
			for _, client := range []struct {
				name  string
				start func(testing.TB) real.Client
			}{
				{"docker", func(tb testing.TB) real.Client { return real.StartDocker(tb, addr) }},
				{"containerd", func(tb testing.TB) real.Client { return real.StartContainerd(tb, addr, "docker.io") }},
				{"podman", func(tb testing.TB) real.Client { return real.NewPodman(tb, addr, "docker.io") }},
				{"skopeo", func(tb testing.TB) real.Client { return real.NewSkopeo(tb, addr, "docker.io") }},
			} {
				t.Run(client.name, func(t *testing.T) { pullAll(t, client.start(t)) })
			}
		})
	}
}

func pullAll(t *testing.T, client real.Client) {
	for _, tag := range []string{"v1", "multi"} {
		if r := client.Pull(t, "docker.io", "acme/plain", tag); r.Code != 0 {
			t.Errorf("pull %s: %s", tag, r.Output())
			continue
		}
		runner, runs := client.(real.Runner)
		if !runs {
			continue
		}
		if r := runner.Exec(t, "docker.io", "acme/plain", tag, "/bin/echo", "it runs"); r.Code != 0 || strings.TrimSpace(r.Stdout) != "it runs" {
			t.Errorf("run %s: %d %s", tag, r.Code, r.Output())
		}
	}
	if r := client.Pull(t, "docker.io", "acme/plain", "absent"); r.Code == 0 {
		t.Errorf("pulled a tag that is not there: %s", r.Output())
	}
	t.Logf("%s %s", client.Name(), client.Version(t))
}

func TestLyingContentIsTakenByRealRegistries(t *testing.T) {
	addr := real.StartDistribution(t)
	image := real.Busybox(t, real.OCI, "signed")
	real.Push(t, addr, "acme/web", image, "v1")
	real.Sign(t, addr, "acme/web", image, lying.P256())
}
