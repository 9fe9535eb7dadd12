package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// layerOf writes a layer: name=content is a file, name/ a directory, name->target a
// symbolic link, name=>target a hard link.
func layerOf(t *testing.T, entries ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, entry := range entries {
		h := &tar.Header{Mode: 0o644}
		content := ""
		switch {
		case strings.Contains(entry, "=>"):
			h.Name, h.Linkname, _ = strings.Cut(entry, "=>")
			h.Typeflag = tar.TypeLink
		case strings.Contains(entry, "->"):
			h.Name, h.Linkname, _ = strings.Cut(entry, "->")
			h.Typeflag = tar.TypeSymlink
		case strings.Contains(entry, "="):
			h.Name, content, _ = strings.Cut(entry, "=")
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		case strings.HasSuffix(entry, "/"):
			h.Name, h.Typeflag = entry, tar.TypeDir
		default:
			h.Name, h.Typeflag = entry, tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return saved(t, b.Bytes())
}

func saved(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func gzipped(t *testing.T, layer string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	data, _ := os.ReadFile(layer)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return saved(t, b.Bytes())
}

func zstandard(t *testing.T, layer string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(layer)
	return saved(t, w.EncodeAll(data, nil))
}

// content is what the file at name holds in an image of layers.
func content(t *testing.T, name string, layers ...string) (string, error) {
	t.Helper()
	tree := newImageTree()
	for _, layer := range layers {
		if err := tree.add(t.Context(), layer); err != nil {
			return "", err
		}
	}
	entry, err := tree.find(name)
	if err != nil {
		return "", err
	}
	data, err := entry.read(t.Context(), layers[entry.layer])
	return string(data), err
}

func TestAFileOfAnImage(t *testing.T) {
	type layer = []string
	for _, tt := range []struct {
		name   string
		layers []layer
		path   string
		want   string // "" is no such file
	}{
		{"a file", []layer{{"etc/", "etc/a=1"}}, "/etc/a", "1"},
		{"a path without a slash in front", []layer{{"etc/a=1"}}, "etc/a", "1"},
		{"a path that is not clean", []layer{{"etc/a=1"}}, "/etc/../etc/./a", "1"},
		{"a name that is not clean", []layer{{"./etc//a=1"}}, "/etc/a", "1"},
		{"a name that leads out", []layer{{"../../etc/a=1"}}, "/etc/a", "1"},
		{"a path that leads out", []layer{{"etc/a=1"}}, "../../etc/a", "1"},
		{"no file", []layer{{"etc/a=1"}}, "/etc/b", ""},
		{"a directory", []layer{{"etc/a=1"}}, "/etc", ""},
		{"the root", []layer{{"etc/a=1"}}, "/", ""},
		{"nothing", []layer{{"etc/a=1"}}, "", ""},
		{"below a file", []layer{{"etc=1"}}, "/etc/a", ""},
		{"the upper layer's", []layer{{"a=1"}, {"a=2"}}, "/a", "2"},
		{"the last of a layer", []layer{{"a=1", "a=2"}}, "/a", "2"},
		{"removed", []layer{{"d/a=1"}, {"d/.wh.a"}}, "/d/a", ""},
		{"removed, and again there", []layer{{"d/a=1"}, {"d/.wh.a"}, {"d/a=3"}}, "/d/a", "3"},
		{"removed below and there in one layer", []layer{{"d/a=1"}, {"d/a=2", "d/.wh.a"}}, "/d/a", "2"},
		{"another one removed", []layer{{"d/a=1", "d/b=2"}, {"d/.wh.b"}}, "/d/a", "1"},
		{"its directory removed", []layer{{"d/e/a=1"}, {".wh.d"}}, "/d/e/a", ""},
		{"its directory emptied", []layer{{"d/a=1"}, {"d/.wh..wh..opq"}}, "/d/a", ""},
		{"its directory emptied, and it made anew", []layer{{"d/a=1", "d/b=1"}, {"d/a=2", "d/.wh..wh..opq"}}, "/d/a", "2"},
		{"its directory replaced by a file", []layer{{"d/a=1"}, {"d=2"}}, "/d/a", ""},
		{"a file replaced by a directory", []layer{{"d=1"}, {"d/a=2"}}, "/d/a", "2"},
		{"a directory that is there again", []layer{{"d/a=1"}, {"d/"}}, "/d/a", "1"},
		{"a marker is no file", []layer{{"d/.wh.a=1"}}, "/d/.wh.a", ""},
		{"by a link beside it", []layer{{"etc/a=1", "etc/b->a"}}, "/etc/b", "1"},
		{"by a link that is absolute", []layer{{"usr/a=1", "etc/b->/usr/a"}}, "/etc/b", "1"},
		{"by a link that goes up", []layer{{"usr/lib/os-release=1", "etc/os-release->../usr/lib/os-release"}}, "/etc/os-release", "1"},
		{"by a link that leads out", []layer{{"a=1", "etc/b->../../../../a"}}, "/etc/b", "1"},
		{"by a directory that is a link", []layer{{"usr/bin/sh=1", "bin->usr/bin"}}, "/bin/sh", "1"},
		{"by a link through a link", []layer{{"usr/x/sh=1", "usr/bin->x", "bin->usr/bin", "sh->bin/sh"}}, "/sh", "1"},
		{"up from where a link leads", []layer{{"x/y/z/", "x/y/a=1", "d->x/y/z", "b->d/../a"}}, "/b", "1"},
		{"put into a directory that is a link", []layer{{"usr/bin/", "bin->usr/bin"}, {"bin/sh=1"}}, "/usr/bin/sh", "1"},
		{"a link to nothing", []layer{{"b->a"}}, "/b", ""},
		{"a link to a directory", []layer{{"d/a=1", "b->d"}}, "/b", ""},
		{"links in a circle", []layer{{"a->b", "b->a"}}, "/a", ""},
		{"directories in a circle", []layer{{"a->b/c", "b->a/c"}}, "/a/x", ""},
		{"a link to itself from inside", []layer{{"a->a/b"}}, "/a/b", ""},
		{"by a hard link", []layer{{"a=1", "b=>a"}}, "/b", "1"},
		{"by a hard link to a file of another layer", []layer{{"a=1"}, {"b=>a"}, {".wh.a"}}, "/b", "1"},
		{"by a hard link to nothing", []layer{{"b=>a"}}, "/b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, packed := range []func(*testing.T, string) string{gzipped, zstandard, func(_ *testing.T, layer string) string { return layer }} {
				var layers []string
				for _, entries := range tt.layers {
					layers = append(layers, packed(t, layerOf(t, entries...)))
				}
				got, err := content(t, tt.path, layers...)
				if got != tt.want || tt.want == "" && !errors.Is(err, fs.ErrNotExist) || tt.want != "" && err != nil {
					t.Errorf("%q, %v; want %q", got, err, tt.want)
				}
			}
		})
	}
}

func TestFilesOfAnImageAreBounded(t *testing.T) {
	large := layerOf(t, "a="+strings.Repeat("x", maxFileInImage), "b="+strings.Repeat("x", maxFileInImage+1))
	if got, err := content(t, "/a", large); len(got) != maxFileInImage || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := content(t, "/b", large); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "of which at most") {
		t.Error(err)
	}
	t.Run("a bomb", func(t *testing.T) {
		bomb := gzipped(t, layerOf(t, "a="+strings.Repeat("\x00", 4<<20)))
		tree := newImageTree()
		tree.content = 1 << 20
		if err := tree.add(t.Context(), bomb); err == nil || !strings.Contains(err.Error(), "it unpacks to more than") {
			t.Error(err)
		}
	})
	t.Run("many files", func(t *testing.T) {
		tree := newImageTree()
		tree.entries = maxTreeEntries - 2
		if err := tree.add(t.Context(), layerOf(t, "a/b/c=1")); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Error(err)
		}
	})
	t.Run("no archive", func(t *testing.T) {
		for _, data := range []string{"hello, this is no archive at all", "\x1f\x8bhello", "\x28\xb5\x2f\xfdhello"} {
			if _, err := content(t, "/a", saved(t, []byte(data))); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", data, err)
			}
		}
		if _, err := content(t, "/a", saved(t, nil)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an empty layer: %v", err)
		}
	})
}

// FuzzImageTree: a layer of any bytes neither panics nor holds more than it may.
func FuzzImageTree(f *testing.F) {
	f.Add([]byte("a\x00"), "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		layer := saved(t, data)
		got, err := content(t, name, layer, layer)
		if err == nil && len(got) > maxFileInImage {
			t.Error(fmt.Sprint(len(got), " bytes"))
		}
	})
}
