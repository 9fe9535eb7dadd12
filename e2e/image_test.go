package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// dockerfile is what the tests need of the Dockerfile. A machine that tests may
// have no way to pull the image of the build stage, so that stage's own command
// is run here, and the final stage is built from what it makes.
type dockerfile struct {
	command string   // the build stage's go build
	final   []string // the lines of the final stage
}

var copiesFrom = regexp.MustCompile(`^COPY --from=build (\S+) (\S+)$`)

func readDockerfile() (dockerfile, error) {
	data, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		return dockerfile{}, err
	}
	var d dockerfile
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\n")
		if command, ok := strings.CutPrefix(line, "RUN "); ok && strings.Contains(command, "go build ") {
			d.command = command
		}
		if strings.HasPrefix(line, "FROM ") {
			d.final = nil
		}
		d.final = append(d.final, line)
	}
	if d.command == "" || len(d.final) == 0 || d.final[0] != "FROM scratch" {
		return d, errors.New("the Dockerfile has no go build, or does not end in a stage from scratch")
	}
	return d, nil
}

// build runs the build stage's command with its output below out instead of
// below /out, and returns the binary's path.
func (d dockerfile) build(out string) (string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-c", strings.ReplaceAll(d.command, " /out/", " "+out+"/"))
	cmd.Dir = ".."
	if message, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", d.command, err, message)
	}
	return filepath.Join(out, "vidimus"), nil
}

// context writes a build context for the final stage alone: each file that it
// copies from the build stage lies at the same path below dir.
func (d dockerfile) context(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	var lines []string
	for _, line := range d.final {
		if m := copiesFrom.FindStringSubmatch(line); m != nil {
			content, known := files[m[1]]
			if !known {
				t.Fatalf("the final stage copies %s, which this test does not know", m[1])
			}
			path := real.Write(t, dir, m[1], string(content))
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
			line = "COPY " + strings.TrimPrefix(m[1], "/") + " " + m[2]
		}
		lines = append(lines, line)
	}
	real.Write(t, dir, "Dockerfile", strings.Join(lines, "\n"))
}

// The build stage's image has the toolchain that go.mod asks for: another would
// be fetched at each build, or fail.
func TestBuildStageHasTheModulesToolchain(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(module)
	if wanted == nil {
		t.Fatal("go.mod names no version")
	}
	data, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if line := "FROM golang:" + string(wanted[1]) + "-"; !strings.Contains(string(data), line) {
		t.Errorf("the Dockerfile has no line that begins with %s", line)
	}
}

// The image that people run is built by a real engine, and run as the
// Dockerfile's comment says: without root, capabilities or a writable file
// system.
func TestImageIsBuiltAndRuns(t *testing.T) {
	t.Parallel()
	up := lying.StartTLS(t)
	key, web := lying.P256(), lying.Image("web")
	up.PushSigned("acme/web", web, key, "v1")
	up.Push("acme/unsigned", lying.Image("unsigned"), "v1")

	docker := real.StartDocker(t, "")
	d, err := readDockerfile()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(built(t, released))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d.context(t, dir, map[string][]byte{
		"/out/vidimus": binary,
		// Instead of the public authorities, one that the test can speak for: the
		// pull below holds only if the binary finds the file.
		"/etc/ssl/certs/ca-certificates.crt": up.CA(),
	})
	must(t, docker.Command(t, []string{"DOCKER_BUILDKIT=0"}, "build", "--quiet", "--tag", "vidimus", dir))

	t.Run("it runs as nobody in particular and declares no volume", func(t *testing.T) {
		r := must(t, docker.Command(t, nil, "image", "inspect", "--format", "{{json .Config}}", "vidimus"))
		var config struct {
			User         string
			Entrypoint   []string
			Cmd          []string
			Volumes      map[string]any
			ExposedPorts map[string]any
		}
		if err := json.Unmarshal([]byte(r.Stdout), &config); err != nil {
			t.Fatal(err)
		}
		if config.User != "65532:65532" || len(config.Volumes) != 0 || len(config.ExposedPorts) != 2 ||
			!slices.Equal(config.Entrypoint, []string{"/vidimus"}) || !slices.Equal(config.Cmd, []string{"serve"}) {
			t.Errorf("the image's configuration is %+v", config)
		}
	})

	hardened := []string{"run", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
	t.Run("it tells its version", func(t *testing.T) {
		r := must(t, docker.Command(t, nil, append(hardened, "--rm", "--network=none", "vidimus", "version")...))
		if !strings.HasPrefix(r.Stdout, "vidimus ") {
			t.Errorf("it prints %q", r.Stdout)
		}
	})

	t.Run("it serves what is signed, refuses what is not, and ends when told to", func(t *testing.T) {
		addr, metrics := real.FreeAddr(t), real.FreeAddr(t)
		files := real.Dir(t)
		if err := os.Chmod(files, 0o755); err != nil {
			t.Fatal(err)
		}
		key.WritePublic(t, files, "cosign.pub")
		real.Write(t, files, "vidimus.yaml", fmt.Sprintf(`version: 1
http: {addr: %q}
metrics: {addr: %q}
upstreams: {docker.io: {url: %q}}
authorities: {release: {keys: [cosign.pub]}}
policies:
  - {match: "docker.io/**", require: release}
`, addr, metrics, up.URL))
		started := append(slices.Clone(hardened), "--detach", "--name=serving", "--network=host",
			"--volume="+files+":/etc/vidimus:ro", "vidimus")
		must(t, docker.Command(t, nil, started...))
		want := map[string]int{
			"http://" + metrics + "/healthz":                              http.StatusOK,
			"http://" + metrics + "/readyz":                               http.StatusOK,
			"http://" + addr + "/v2/docker.io/acme/web/manifests/v1":      http.StatusOK,
			"http://" + addr + "/v2/docker.io/acme/unsigned/manifests/v1": http.StatusForbidden,
		}
		for url, status := range want {
			err := real.Eventually(t.Context(), 2*time.Minute, func() error {
				resp, err := http.Get(url)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if resp.StatusCode != status {
					return fmt.Errorf("%s: %s, want %d", url, resp.Status, status)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%v\n%s", err, docker.Command(t, nil, "logs", "serving").Output())
			}
		}
		must(t, docker.Command(t, nil, "stop", "--time=20", "serving"))
		r := must(t, docker.Command(t, nil, "inspect", "--format", "{{.State.ExitCode}}", "serving"))
		if code := strings.TrimSpace(r.Stdout); code != "0" {
			t.Errorf("exit code %s after SIGTERM", code)
		}
		must(t, docker.Command(t, nil, "rm", "serving"))
	})
}
