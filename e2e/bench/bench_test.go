package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMain lets the test's binary be what the program starts: the origin, the relay,
// and a server that ends at once.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{originCommand, relayCommand}, os.Args[1]) {
		main()
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, "this is not a server")
		os.Exit(7)
	}
	os.Exit(m.Run())
}

// runBench runs the program in a temporary directory of its own, of which
// nothing may be left.
func runBench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, progress bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &progress)
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), "vidimus-bench-") {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
	return code, out.String(), progress.String()
}

// TestTheWholeProgram measures everything once, with tiny blobs and without
// peers: what the figures are says nothing, that they are there does.
func TestTheWholeProgram(t *testing.T) {
	code, stdout, stderr := runBench(t, "-rounds", "1", "-seconds", "0.05", "-scale", "0.001", "-peers", "", "-json")
	if code != exitMeasured {
		t.Fatalf("exit code %d\n%s", code, stderr)
	}
	var got report
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	var rows []string
	for _, line := range got.Results {
		rows = append(rows, line.Row)
		ours := line.Values[vidimus]
		if len(ours) != 1 || ours[0] < 0 {
			t.Errorf("%s, %s: %v", line.Row, line.Metric, ours)
			continue
		}
		switch line.Metric {
		case fetchedAhead, cpuByTag, cpuByDigest, cpuRequest, cpuThroughput:
			// none is fetched ahead, or too little CPU to be seen, is no fault
		case transfers:
			if ours[0] != 1 {
				t.Errorf("%s: %v transfers", line.Row, ours[0])
			}
		default:
			if ours[0] == 0 {
				t.Errorf("%s, %s: 0", line.Row, line.Metric)
			}
		}
	}
	if got, want := slices.Compact(rows), rowNames(); !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if !strings.Contains(got.Machine, "Vidimus") || !strings.Contains(got.Method, "0.001") {
		t.Errorf("the report is of %q, %q", got.Machine, got.Method)
	}
}

func TestAServerThatEndsIsNamedWithItsLog(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runBench(t, "-vidimus", self, "-peers", "", "-scale", "0.001")
	if code != exitFailed || stdout != "" {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for _, want := range []string{"vidimus has ended: exit status 7", "this is not a server"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not in:\n%s", want, stderr)
		}
	}
}

func TestMisuseIsSaid(t *testing.T) {
	for want, args := range map[string][]string{
		"-rounds: at least 1":            {"-rounds", "0"},
		"-seconds: between 0.05 and 60":  {"-seconds", "0"},
		"-scale: above 0":                {"-scale", "NaN"},
		`"zot" is neither`:               {"-peers", "nginx,zot"},
		"no row's name has nothing-such": {"-only", "nothing-such"},
		"error parsing regexp":           {"-only", "("},
		"nothing is done with":           {"more"},
		"flag provided but not defined":  {"-such"},
	} {
		code, stdout, stderr := runBench(t, args...)
		if code != exitMisuse || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %q; want %q", args, code, stderr, want)
		}
	}
}

func TestRowsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range rowNames() {
		if seen[name] {
			t.Errorf("two rows are called %s", name)
		}
		seen[name] = true
	}
}

func TestWhatIsMeasuredApartHasACoreOfItsOwn(t *testing.T) {
	origin, said, err := startOrigin(t.Context(), t.TempDir(), kib)
	if err != nil {
		t.Fatal(err)
	}
	defer origin.stop()
	r, err := startRelay(t.Context(), t.TempDir(), said)
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	_, errTaskset := exec.LookPath("taskset")
	for core, p := range map[int]*process{clientCore: origin, serverCore: r.process} {
		if err := pin(t.Context(), p.cmd.Process.Pid, core); errTaskset == nil && core < runtime.NumCPU() && err != nil {
			t.Fatal(err)
		} else if err != nil {
			continue // the machine has not what it takes
		}
		got := field(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "Cpus_allowed_list")
		if got != strconv.Itoa(core) {
			t.Errorf("%s may run on %s, want %d", p.name, got, core)
		}
	}
	if err := pin(t.Context(), origin.cmd.Process.Pid, 4096); err == nil || !strings.Contains(err.Error(), "taskset") {
		t.Errorf("there is no core 4096, and the error is %v", err)
	}
}
