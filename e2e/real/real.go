// Package real runs the real components that Vidimus is tested against, on
// loopback and in directories of their own: docker, containerd, podman, buildah,
// skopeo, regctl, helm, cosign, distribution's registry, and the vidimus binary itself.
//
// A program that is missing skips the test with the name of what to install.
// With VIDIMUS_E2E=require in the environment, as in CI, it fails instead.
// What a test starts is stopped, unmounted and removed when it ends.
package real

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs tells what to install for each program.
var programs = map[string]string{
	"dockerd":    "Debian's docker.io",
	"docker":     "Debian's docker.io",
	"containerd": "Debian's containerd",
	"ctr":        "Debian's containerd",
	"podman":     "Debian's podman",
	"buildah":    "Debian's buildah",
	"skopeo":     "Debian's skopeo",
	"busybox":    "Debian's busybox-static",
	"registry":   "go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
	"crane":      "go install github.com/google/go-containerregistry/cmd/crane@v0.22.1",
	"regctl":     "go install github.com/regclient/regclient/cmd/regctl@v0.11.7",
	"helm":       "go install helm.sh/helm/v3/cmd/helm@v3.22.0",
	"cosign2":    "go install github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5, as cosign2",
	"cosign3":    "go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3, as cosign3",

	"fulcio":             "go install github.com/sigstore/fulcio@v1.8.8",
	"rekor-server-posix": "go install github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix@v2.3.0, as rekor-server-posix",
	"timestamp-server":   "go install github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@v2.1.3",
}

// Program returns the path of a program, or skips the test. $VIDIMUS_COSIGN2
// and the like (upper case) name a program that is elsewhere; otherwise it is
// looked for in PATH, where the system keeps its daemons, and where go installs.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	if path := os.Getenv("VIDIMUS_" + strings.ToUpper(name)); path != "" {
		return path
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	dirs := []string{"/usr/sbin", "/sbin", os.Getenv("GOBIN")}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "go", "bin"))
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); dir != "" && err == nil {
			return path
		}
	}
	Missing(tb, "%s is not installed: %s", name, programs[name])
	return ""
}

// Missing skips the test, or fails it where VIDIMUS_E2E=require.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("VIDIMUS_E2E") == "require" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// Overlap lets more parallel tests run at once than there are processors, unless the
// command line says how many: they wait for programs most of the time. It is for
// TestMain.
func Overlap() error {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if said {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
}

// Root skips the test unless it runs as root, as daemons must.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "this test runs a container engine and must be root")
	}
}

// Dir returns a directory with a short path, for sockets live in it, that goes
// when the test ends, with whatever is still mounted below it.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		unmountBelow(dir)
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove what the test left: %v", err)
		}
	})
	return dir
}

// Write writes a file below dir and returns its path.
func Write(tb testing.TB, dir, name, content string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

// given are the addresses that PickAddr has returned in this process: tests that run
// at once must not be given the same before either listens there.
var given sync.Map

// FreeAddr returns an address of 127.0.0.1 where nobody listens, another one each
// time. The port is below those that systems give to outgoing connections, so that
// none of these takes it before a daemon does.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	addr, err := PickAddr()
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}

// PickAddr is FreeAddr where there is no testing.TB.
func PickAddr() (string, error) {
	const lowest, ports = 20000, 12000
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(ports))
		if _, before := given.LoadOrStore(addr, nil); before {
			continue
		}
		if listener, err := net.Listen("tcp", addr); err == nil {
			return addr, listener.Close()
		}
	}
	return "", errors.New("no port is free")
}

// Result is how a command ended.
type Result struct {
	Code   int // exit code; -1 when a signal ended it
	Stdout string
	Stderr string
}

// Output returns everything that was printed.
func (r Result) Output() string { return r.Stdout + r.Stderr }

// Command is a program to run.
type Command struct {
	Path  string
	Args  []string
	Env   []string // added to a minimal environment
	Dir   string
	Stdin string
}

// commandTime bounds one command: a client that hangs is a failure, and one on a busy
// machine is not.
const commandTime = 3 * time.Minute

// Run runs a command to its end, whatever that is.
func Run(tb testing.TB, c Command) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir, cmd.Env = c.Dir, environment(c.Env)
	cmd.WaitDelay = time.Second
	if c.Stdin != "" {
		cmd.Stdin = strings.NewReader(c.Stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		tb.Fatalf("%s %s: %v\n%s", filepath.Base(c.Path), strings.Join(c.Args, " "), err, result.Output())
	}
	return result
}

// Must is Run for a command that has to succeed.
func Must(tb testing.TB, c Command) Result {
	tb.Helper()
	result := Run(tb, c)
	if result.Code != 0 {
		tb.Fatalf("%s %s: exit code %d\n%s", filepath.Base(c.Path), strings.Join(c.Args, " "), result.Code, result.Output())
	}
	return result
}

// environment is what a program gets: nothing of the tester's own proxies,
// credentials and configuration. The race detector has no second to sleep at the end
// of a process, where no test has anything left to race.
func environment(extra []string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C.UTF-8",
		"GORACE=atexit_sleep_ms=0 " + os.Getenv("GORACE"),
	}
	for _, key := range []string{"HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return append(env, extra...)
}

// Process is a program that stays up until the test ends.
type Process struct {
	name   string
	cmd    *exec.Cmd
	done   chan struct{}
	output lockedBuffer
}

// readyTime bounds how long a daemon may take to be ready, stopTime how long
// to go.
const (
	readyTime = 2 * time.Minute
	stopTime  = time.Minute
)

// Start starts a command and returns when ready says nil. The output is shown
// when the test fails.
func Start(tb testing.TB, c Command, ready func() error) *Process {
	tb.Helper()
	p := &Process{name: filepath.Base(c.Path), done: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Dir, p.cmd.Env = c.Dir, environment(c.Env)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", p.name, err)
	}
	ctx, ended := context.WithCancel(tb.Context())
	go func() {
		defer ended()
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	tb.Cleanup(func() {
		p.Stop(tb)
		if tb.Failed() {
			tb.Logf("%s printed:\n%s", p.name, tail(p.Output(), 8<<10))
		}
	})
	if err := Eventually(ctx, readyTime, ready); err != nil {
		select {
		case <-p.done:
			tb.Fatalf("%s ended: %v", p.name, p.cmd.ProcessState)
		default:
			tb.Fatalf("%s is not ready: %v", p.name, err)
		}
	}
	return p
}

// Output returns what the process has printed so far.
func (p *Process) Output() string { return p.output.String() }

// Signal sends the process a signal.
func (p *Process) Signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		tb.Fatalf("signal %s: %v", p.name, err)
	}
}

// Stop asks the process to end, waits, and returns its exit code. It kills one
// that does not listen, which fails the test. A second Stop does nothing.
func (p *Process) Stop(tb testing.TB) int {
	tb.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(stopTime):
		tb.Errorf("%s did not end within %v of SIGTERM", p.name, stopTime)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// Eventually calls f until it returns nil, and returns its last error when that
// takes too long.
func Eventually(ctx context.Context, within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// lockedBuffer is a bytes.Buffer for a process that writes and a test that
// reads.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
