package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"vidimus/e2e/real"
)

// builds is where the binaries under test are, for as long as the tests run.
var builds string

// The binaries are built once, and only when a test asks for them.
var (
	// racing has the race detector and is what serves.
	racing = sync.OnceValues(func() (string, error) {
		return real.Build(builds, "vidimus/cmd/vidimus", nil, "-race")
	})
	// released is built as the Dockerfile says and is what runs as a command:
	// the race detector makes deriving a key from a password take seconds.
	released = sync.OnceValues(func() (string, error) {
		dockerfile, err := readDockerfile()
		if err != nil {
			return "", err
		}
		return dockerfile.build(filepath.Join(builds, "released"))
	})
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vidimus-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	builds = dir
	if err := real.Overlap(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := readSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// readSources looks at every directory of the module. The tests see the program
// through processes only, which the go command cannot know of when it keeps
// their outcome; what a test looked at it does know.
func readSources() error {
	return filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != ".." {
			return fs.SkipDir
		}
		return err
	})
}

// built returns a binary or ends the test.
func built(t *testing.T, binary func() (string, error)) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// vidimus runs the command line in dir.
func vidimus(t *testing.T, dir string, env []string, args ...string) real.Result {
	t.Helper()
	return real.Run(t, real.Command{Path: built(t, released), Args: args, Env: env, Dir: dir})
}

// must fails the test unless the command ended well.
func must(t *testing.T, r real.Result) real.Result {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s", r.Code, r.Output())
	}
	return r
}
