package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vidimus/proxy/store"
)

func TestSizesAreReadByPeople(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 1<<30 - 1: "1.0 GiB", 5 << 30: "5.0 GiB", 1 << 40: "1.0 TiB", 3 << 50: "3072.0 TiB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// onceWritten calls done at the first byte.
type onceWritten struct {
	bytes.Buffer
	done func()
}

func (w *onceWritten) Write(p []byte) (int, error) {
	w.done()
	return w.Buffer.Write(p)
}

func TestAScrubThatIsInterruptedSaysWhatItHasDone(t *testing.T) {
	for output, want := range map[string]string{
		"text": "not all was looked at: read 1 content, 5 B in ",
		"json": `{"complete":false,"contents":1,"bytes":5,"rotten":1,"removed":1,`,
	} {
		dir := t.TempDir()
		for _, digit := range []string{"a", "b"} {
			at := filepath.Join(dir, "blobs", "sha256", digit+digit, strings.Repeat(digit, 64))
			if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte("hallo"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		out := &onceWritten{done: cancel}
		root := newRootCommand()
		root.SetArgs([]string{"cache", "scrub", "--directory", dir, "--output", output})
		root.SetOut(out)
		root.SetErr(new(bytes.Buffer))
		err := root.ExecuteContext(ctx)
		if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitUnknown || err.Error() != "interrupted" {
			t.Errorf("%s: %v", output, err)
		}
		if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], want) {
			t.Errorf("%s: %q", output, lines)
		}
	}
}

func TestProgressIsALineOnATerminalAndNothingElsewhere(t *testing.T) {
	var quiet bytes.Buffer
	p := newScrubProgress(&quiet, time.Now())
	p.show(store.Scrubbed{Contents: 1}, 0.5)
	p.clear()
	if quiet.Len() > 0 {
		t.Errorf("%q on what is no terminal", &quiet)
	}

	var shown bytes.Buffer
	p = &scrubProgress{w: &shown, begin: time.Now().Add(-4 * time.Second)}
	p.clear()
	p.show(store.Scrubbed{Contents: 2, Bytes: 4 << 30}, 0.42)
	p.show(store.Scrubbed{Contents: 3, Bytes: 5 << 30}, 0.43) // too early
	p.clear()
	p.clear()
	if got := shown.String(); !strings.HasPrefix(got, "\r\x1b[K 42%  2 contents, 4.0 GiB, ") || !strings.HasSuffix(got, "/s\r\x1b[K") || strings.Count(got, "\r") != 2 {
		t.Errorf("%q", got)
	}
}
