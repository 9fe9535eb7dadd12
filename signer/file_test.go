package signer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadKeyFileTellsWhoElseMayRead(t *testing.T) {
	for mode, want := range map[fs.FileMode]fs.FileMode{
		0o600: 0, 0o400: 0, 0o700: 0, 0o640: 0o040, 0o644: 0o044, 0o604: 0o004, 0o620: 0o020,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
			link := path + ".link"
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{path, link} {
				got, err := ReadKeyFile(p)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(KeyFile{Data: []byte("x"), Exposed: want}, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestReadKeyFileRefuses(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, MaxKeyFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): fs.ErrNotExist,
		large:                         ErrNotKeyFile,
		"/dev/zero":                   ErrNotKeyFile,
	} {
		if _, err := ReadKeyFile(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := ReadKeyFile(dir); err == nil {
		t.Error("a directory: no error")
	}
}

// content returns the names, modes and content of a directory's files.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[entry.Name()] = info.Mode().String() + " " + string(data)
	}
	return got
}

func TestWriteFiles(t *testing.T) {
	pair := func(dir, key, pub string) []OutputFile {
		return []OutputFile{
			{filepath.Join(dir, "k.key"), []byte(key), 0o600},
			{filepath.Join(dir, "k.pub"), []byte(pub), 0o644},
		}
	}
	t.Run("new files have their modes and leave nothing else", func(t *testing.T) {
		dir := t.TempDir()
		if err := WriteFiles(false, pair(dir, "A", "a")...); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"k.key": "-rw------- A", "k.pub": "-rw-r--r-- a"}
		if diff := cmp.Diff(want, content(t, dir)); diff != "" {
			t.Error(diff)
		}
	})
	for _, existing := range []string{"k.key", "k.pub"} {
		t.Run("an existing "+existing+" stays, and alone", func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, existing), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := WriteFiles(false, pair(dir, "A", "a")...); !errors.Is(err, fs.ErrExist) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(map[string]string{existing: "-rw------- old"}, content(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("overwriting replaces both, modes too", func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"k.key", "k.pub"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if err := WriteFiles(true, pair(dir, "B", "b")...); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"k.key": "-rw------- B", "k.pub": "-rw-r--r-- b"}
		if diff := cmp.Diff(want, content(t, dir)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("when the second cannot be staged the first is not touched", func(t *testing.T) {
		dir := t.TempDir()
		files := pair(dir, "A", "a")
		files[1].Path = filepath.Join(dir, "missing", "k.pub")
		if err := WriteFiles(true, files...); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
		if got := content(t, dir); len(got) != 0 {
			t.Errorf("left behind %v", got)
		}
	})
	t.Run("a link is replaced, not followed", func(t *testing.T) {
		dir := t.TempDir()
		elsewhere := filepath.Join(t.TempDir(), "elsewhere")
		if err := errors.Join(os.WriteFile(elsewhere, []byte("old"), 0o644), os.Symlink(elsewhere, filepath.Join(dir, "k.key"))); err != nil {
			t.Fatal(err)
		}
		if err := WriteFiles(true, pair(dir, "A", "a")...); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(elsewhere); err != nil || strings.Contains(string(data), "A") {
			t.Errorf("%s, %v", data, err)
		}
	})
}

// What is no regular file is written into, and never replaced: --bundle /dev/stdout by
// root would make a file of the device.
func TestWriteFilesIntoWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, link} {
		reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		if err := WriteFiles(true, OutputFile{Path: path, Data: []byte("x"), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Type() != fs.ModeNamedPipe {
			t.Fatalf("%s is replaced: %v, %v", path, info.Mode(), err)
		}
		got := make([]byte, 1)
		if _, err := reader.Read(got); err != nil || string(got) != "x" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if err := WriteFiles(false, OutputFile{Path: fifo, Data: []byte("x"), Mode: 0o644}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("without leave to overwrite: %v", err)
	}
}
