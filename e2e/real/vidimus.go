package real

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// buildTime bounds a build of the binary, with the race detector and cold.
const buildTime = 10 * time.Minute

// Build builds package pkg of the module, with these go build flags, into dir
// and returns the binary's path.
func Build(dir, pkg string, env []string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	path := filepath.Join(dir, filepath.Base(pkg))
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// Vidimus is a running vidimus serve.
type Vidimus struct {
	*Process
	Addr    string // of the registry API
	Metrics string // of /healthz, /readyz, /metrics
	Config  string // path of its configuration
}

// StartVidimus starts binary with a configuration: the YAML in config, below
// which http.addr and metrics.addr are added. Relative paths in it are relative
// to dir.
func StartVidimus(tb testing.TB, binary, dir, config string, env ...string) *Vidimus {
	tb.Helper()
	v := &Vidimus{Addr: FreeAddr(tb), Metrics: FreeAddr(tb)}
	v.Config = Write(tb, dir, "vidimus.yaml", fmt.Sprintf("version: 1\nhttp: {addr: %q}\nmetrics: {addr: %q}\n%s", v.Addr, v.Metrics, config))
	v.Process = Start(tb, Command{
		Path: binary,
		Args: []string{"serve", "--config", v.Config},
		Env:  env,
	}, func() error { return get("http://" + v.Metrics + "/readyz") })
	tb.Cleanup(func() {
		if strings.Contains(v.Output(), "WARNING: DATA RACE") {
			tb.Error("the race detector found a race in vidimus serve")
		}
	})
	return v
}
