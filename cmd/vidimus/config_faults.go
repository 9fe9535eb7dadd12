package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxFaults is how many faults are printed; more help nobody.
const maxFaults = 100

// fault is one thing that is wrong with a configuration: where, what, and what
// to do about it.
type fault struct {
	pos
	What string
	Fix  string
	// Key is the path of the key file that cannot be used, when that is the
	// fault: it suspends the authorities that name the file.
	Key string
}

func (p pos) fault(what, fix string) fault { return fault{pos: p, What: what, Fix: fix} }

// String is file:line: key: what; fix.
func (f fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.What)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
}

// faults are all that is wrong, an error when there is at least one.
type faults []fault

func (fs *faults) add(f fault) { *fs = append(*fs, f) }

// err returns the faults in the order of files and lines, nil when there are
// none.
func (fs faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// sorted orders the faults of each file by line; files keep the order in which
// they were read.
func (fs faults) sorted() faults {
	files := make(map[string]int)
	for _, f := range fs {
		if _, ok := files[f.File]; !ok {
			files[f.File] = len(files)
		}
	}
	out := slices.Clone(fs)
	slices.SortStableFunc(out, func(a, b fault) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return slices.Compact(out)
}

func (fs faults) Error() string {
	lines := make([]string, 0, min(len(fs), maxFaults)+2)
	lines = append(lines, fmt.Sprintf("%d %s in the configuration", len(fs), plural(len(fs), "fault", "faults")))
	for _, f := range fs[:min(len(fs), maxFaults)] {
		lines = append(lines, f.String())
	}
	if more := len(fs) - maxFaults; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// configExit gives the error of loading a configuration its exit code: a
// configuration with faults does not hold; one that cannot be read, or that flags
// spell and spell wrong, is misuse.
func configExit(err error) error {
	found, ok := errors.AsType[faults](err)
	if ok && slices.ContainsFunc(found, func(f fault) bool { return f.File != commandLine && !strings.HasPrefix(f.File, "--") }) {
		return doesNotHold(err)
	}
	return misuse(err)
}
