package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzConfiguration: no text makes the parser panic; what it accepts, it accepts
// again with equal values; what it refuses, it refuses with a place and a text
// that prints on one line.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(exampleConfig))
	f.Add([]byte(uncommented()))
	names, err := filepath.Glob("testdata/config/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	dir := f.TempDir()
	key, err := os.ReadFile("testdata/config/release.pub")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"cosign.pub", "release.pub"} {
		if err := os.WriteFile(filepath.Join(dir, name), key, 0o600); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Includes and named files stay within dir, but for absolute paths: those
		// of devices are refused, and of others nothing is believed.
		name := filepath.Join(dir, "fuzz.yaml")
		once, found := decodeFile(name, data, configShape())
		again, foundAgain := decodeFile(name, data, configShape())
		if diff := cmp.Diff(once, again, compareAll); diff != "" {
			t.Fatalf("the same text has two meanings:\n%s", diff)
		}
		if diff := cmp.Diff(found, foundAgain, compareAll); diff != "" {
			t.Fatalf("the same text has two sets of faults:\n%s", diff)
		}
		for _, fault := range found {
			if text := fault.String(); !strings.HasPrefix(text, name) || fault.What == "" || strings.ContainsAny(text, "\n\r\x1b") {
				t.Errorf("a fault reads %q", text)
			}
		}
		if len(found) > 0 {
			return
		}
		accepted, err := gatherOnce(func(*reader) (Config, faults, error) { return once, nil, nil }, lookupIn(nil))
		if err != nil {
			t.Fatal(err)
		}
		read := accepted.reader.sum()
		_, err = judge(accepted, clock)
		_, errAgain := judge(accepted, clock)
		if diff := cmp.Diff(err, errAgain, compareAll); diff != "" {
			t.Fatalf("judged differently the second time:\n%s", diff)
		}
		if accepted.reader.sum() != read {
			t.Fatal("judging read a file that the revision's id does not cover")
		}
	})
}
