package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// TestRevisionIsTakenWhenTwoReadingsAgree reads a configuration that is written
// while it is read.
func TestRevisionIsTakenWhenTwoReadingsAgree(t *testing.T) {
	for _, row := range []struct {
		changes int
		taken   bool
	}{{0, true}, {1, true}, {5, true}, {1000, false}} {
		t.Run(fmt.Sprintf("%d changes", row.changes), func(t *testing.T) {
			inDirectory(t, nil)
			synctest.Test(t, func(t *testing.T) {
				readings := 0
				g, err := gather(func(r *reader) (Config, faults, error) {
					writeFile(t, "file", fmt.Sprint(min(readings, row.changes)))
					readings++
					data, err := r.read("file")
					return Config{pos: pos{File: string(data)}}, nil, err
				}, lookupIn(nil))
				switch {
				case !row.taken && (err == nil || !strings.Contains(err.Error(), "changes while it is read")):
					t.Errorf("taken after %d readings, of which no two agreed; error %v", readings, err)
				case row.taken && (err != nil || g.config.File != fmt.Sprint(row.changes)):
					t.Errorf("taken was %q, error %v; want what the last two readings agree on, %d", g.config.File, err, row.changes)
				case row.taken && readings < 2:
					t.Error("taken after a single reading")
				}
				if g.reader == nil {
					t.Error("the reader is missing, and with it what was seen")
				}
			})
		})
	}
}

func TestFileIsReadOnceForARevision(t *testing.T) {
	inDirectory(t, map[string]string{"file": "before"})
	r := newReader(lookupIn(nil))
	before, _ := r.read("file")
	writeFile(t, "file", "after")
	if again, _ := r.read("file"); string(again) != string(before) {
		t.Errorf("one revision read %q and %q from one file", before, again)
	}
	if r.seen().now().equal(r.seen()) {
		t.Error("the file changed after it was read, and looks the same")
	}
}

func TestGlobsFindWhatPeopleMean(t *testing.T) {
	inDirectory(t, map[string]string{
		"d/b.yaml": "", "d/a.yaml": "", "d/.hidden.yaml": "", "d/notes.txt": "", "e/x/c.yaml": "",
	})
	for _, row := range []struct {
		pattern, want string
	}{
		{"d/*.yaml", "[d/a.yaml d/b.yaml]"},
		{"d/.*.yaml", "[d/.hidden.yaml]"},
		{"d/*.json", "[]"},
		{"*/x/c.yaml", "[e/x/c.yaml]"},
		{"d/missing.yaml", "[d/missing.yaml]"},
	} {
		if names, err := globFiles(row.pattern); err != nil || fmt.Sprint(names) != row.want {
			t.Errorf("%s names %v, %v; want %s", row.pattern, names, err, row.want)
		}
	}
	if _, err := globFiles("missing/*.yaml"); !os.IsNotExist(err) {
		t.Errorf("the directory is missing, and the error is %v", err)
	}
}
