package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vidimus/e2e/real"
)

// systemd understands every line of the unit. It wants the program to be there, for
// which another stands in.
func TestSystemdTakesTheUnit(t *testing.T) {
	analyze := real.Program(t, "systemd-analyze")
	data, err := os.ReadFile(filepath.Join("..", "deploy", "vidimus.service"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(string(data), "=/usr/local/bin/vidimus ", "="+self+" ")
	path := real.Write(t, t.TempDir(), "vidimus.service", unit)
	r := real.Run(t, real.Command{Path: analyze, Args: []string{"verify", path}})
	if out := r.Output(); r.Code != 0 || strings.Contains(out, "vidimus.service") {
		t.Errorf("systemd-analyze verify: exit code %d\n%s", r.Code, out)
	}
}
