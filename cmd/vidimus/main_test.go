package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vidimus/e2e/real"
)

// TestMain installs this very program as the command vidimus, so that scripts
// run the real main in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(overlapping{m}, map[string]func(){"vidimus": main})
}

// overlapping runs several scripts at once.
type overlapping struct{ *testing.M }

// Run implements testscript.TestingM. It is not called in the processes of scripts.
func (m overlapping) Run() int {
	err := real.Overlap()
	if err == nil {
		// With -race each process would sleep for a second at its end, to see whether
		// another goroutine still races.
		err = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

// TestScript runs every script of testdata/script. A script starts in an empty
// directory that is also its HOME, so that no configuration, key or credential
// of the person who runs the tests is in reach; the command-line proxy settings
// of that person are taken away as well.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Cmds:                scriptCommands,
	})
}

func setupScript(env *testscript.Env) error {
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("DOCKER_CONFIG", env.WorkDir+"/.docker")
	env.Setenv("GORACE", os.Getenv("GORACE"))
	for _, name := range []string{
		"VIDIMUS_CONFIG", "COSIGN_PASSWORD", "COSIGN_REPOSITORY",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	} {
		env.Setenv(name, "")
	}
	return nil
}

// scriptExits runs a command and wants exactly this exit code:
//
//	exits 2 vidimus config check --config missing.yaml
//
// stdout and stderr are looked at as after exec.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != args[0] {
		ts.Fatalf("%v exited with %s, want %s", args[1:], got, args[0])
	}
}

func exitCode(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return strconv.Itoa(exit.ExitCode())
	}
	if err != nil {
		return err.Error()
	}
	return "0"
}
