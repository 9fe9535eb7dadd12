package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyTime = 30 * time.Second
	stopTime  = 20 * time.Second
	tailSize  = 4 << 10 // of a log that is shown
)

// process is a program that is measured. What it prints is in a log.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// start starts cmd, with its output in a log in dir, and returns when ready
// says nil.
func start(ctx context.Context, name, dir string, cmd *exec.Cmd, ready func(context.Context) error) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	if err := p.await(ctx, ready); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// await calls ready until it returns nil.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if ended := p.check(); ended != nil {
			return ended
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%s is not ready: %w%s", p.name, err, p.tail())
		}
	}
}

// check returns nil while the process lives, and otherwise an error with the
// end of its log.
func (p *process) check() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v%s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// tail returns the end of the log, to be put behind an error.
func (p *process) tail() string {
	log, err := os.ReadFile(p.log)
	log = bytes.TrimSpace(log)
	if err != nil || len(log) == 0 {
		return "; it logged nothing"
	}
	return fmt.Sprintf("; the end of its log:\n%s", log[max(0, len(log)-tailSize):])
}

// logged returns how many lines the log has.
func (p *process) logged() int {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return 0
	}
	return bytes.Count(log, []byte("\n"))
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// The cores of what is measured apart: clients and the origin share one, as they
// would be on other machines than the server, which has the other.
const (
	clientCore = 0
	serverCore = 1
)

// pin lets a process, and all below it, run on one core alone.
func pin(ctx context.Context, pid, core int) error {
	below, err := tree(pid)
	if err != nil {
		return err
	}
	for pid := range below {
		args := []string{"--all-tasks", "--cpu-list", "--pid", strconv.Itoa(core), strconv.Itoa(pid)}
		if out, err := exec.CommandContext(ctx, "taskset", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("taskset %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// freeAddr returns an address of 127.0.0.1 where nobody listens, below the
// ports that are given to outgoing connections.
func freeAddr() (string, error) {
	const lowest, ports = 20000, 12000
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(ports))
		if listener, err := net.Listen("tcp", addr); err == nil {
			return addr, listener.Close()
		}
	}
	return "", errors.New("no port is free")
}

// answers returns what waits for a URL to answer 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

// find returns the path of a program, which may be where go installs or where
// the system keeps its daemons, or "" when there is none.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	dirs := []string{"/usr/sbin", "/sbin", os.Getenv("GOBIN")}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "go", "bin"))
	}
	for _, root := range filepath.SplitList(os.Getenv("GOPATH")) {
		dirs = append(dirs, filepath.Join(root, "bin"))
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// output returns what a program prints, on either stream.
func output(ctx context.Context, path string, args ...string) string {
	out, _ := exec.CommandContext(ctx, path, args...).CombinedOutput() // what it cannot tell stays empty
	return strings.TrimSpace(string(out))
}
