package carrier

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// saved is a world in a directory.
func saved(t *testing.T) (world, string) {
	t.Helper()
	w, dir := newWorld(t), filepath.Join(t.TempDir(), "saved")
	g, err := Find(t.Context(), w, nil, "v1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Save(t.Context(), g, dir, "v1", nil); err != nil {
		t.Fatal(err)
	}
	return w, dir
}

// load copies what is in a directory to a target.
func load(t *testing.T, dir string, target *memory) error {
	t.Helper()
	l, err := OpenLayout(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	g, err := Find(t.Context(), l, nil, l.Image().String(), Options{})
	if err != nil {
		return err
	}
	if err := Check(t.Context(), g); err != nil {
		return err
	}
	_, err = Copy(t.Context(), g, Plan{Image: target, Tag: "v2"})
	return err
}

func TestWhatIsSavedIsLoadedToTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := saved(t)
		target := newMemory("target")
		if err := load(t, dir, target); err != nil {
			t.Fatal(err)
		}
		for _, reference := range []string{w.index.String(), w.child.String(), Tag(w.child, ".sig"), Tag(w.index, ".sig"), w.artifact.String(), w.aboutArtifact.String()} {
			if string(target.manifests[reference].Data) != string(w.manifests[reference].Data) {
				t.Errorf("%s is %q", reference, target.manifests[reference].Data)
			}
		}
		// saved again it is the same, and a file that was damaged is mended
		index, err := os.ReadFile(filepath.Join(dir, indexFile))
		if err != nil {
			t.Fatal(err)
		}
		layer := filepath.Join(dir, blobsFolder, digestOf([]byte("layer of child")).Hex)
		if err := os.WriteFile(layer, []byte("damaged"), 0o666); err != nil {
			t.Fatal(err)
		}
		g, err := Find(t.Context(), w, nil, "v1", Options{})
		if err != nil {
			t.Fatal(err)
		}
		done, err := Save(t.Context(), g, dir, "v1", nil)
		again, _ := os.ReadFile(filepath.Join(dir, indexFile))
		if err != nil || done.Blobs != 1 || string(again) != string(index) {
			t.Errorf("again: %+v, %v", done, err)
		}
		if err := load(t, dir, newMemory("target")); err != nil {
			t.Error(err)
		}
	})
}

// Nothing of a directory that is not what it says, or leads out of it, is loaded.
func TestADirectoryThatLiesIsRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("layer of child"), 0o666); err != nil {
		t.Fatal(err)
	}
	rewrite := func(t *testing.T, file string, change func(string) string) {
		t.Helper()
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.Remove(file)
		}
		if err == nil {
			err = os.WriteFile(file, []byte(change(string(data))), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, w world, dir string)
		want  string
	}{
		{"other bytes of a layer", func(t *testing.T, _ world, dir string) {
			rewrite(t, filepath.Join(dir, blobsFolder, digestOf([]byte("layer of child")).Hex), strings.ToUpper)
		}, "other bytes"},
		{"other bytes of a manifest", func(t *testing.T, w world, dir string) {
			rewrite(t, filepath.Join(dir, blobsFolder, w.child.Hex), func(s string) string { return s + " " })
		}, "other bytes"},
		{"a layer that is missing", func(t *testing.T, _ world, dir string) {
			if err := os.Remove(filepath.Join(dir, blobsFolder, digestOf([]byte("layer of child")).Hex)); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"a link that leads out, to the right bytes", func(t *testing.T, _ world, dir string) {
			file := filepath.Join(dir, blobsFolder, digestOf([]byte("layer of child")).Hex)
			if err := errors.Join(os.Remove(file), os.Symlink(outside, file)); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
		{"a folder of blobs elsewhere", func(t *testing.T, _ world, dir string) {
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			if err := errors.Join(os.Rename(filepath.Join(dir, "blobs"), elsewhere), os.Symlink(elsewhere, filepath.Join(dir, "blobs"))); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
		{"a digest that is a path", func(t *testing.T, w world, dir string) {
			rewrite(t, filepath.Join(dir, indexFile), func(s string) string {
				return strings.Replace(s, w.index.Hex, "../../../../etc/passwd", 1)
			})
		}, "not an image layout"},
		{"two images", func(t *testing.T, _ world, dir string) {
			rewrite(t, filepath.Join(dir, indexFile), func(s string) string { return strings.ReplaceAll(s, kindSignatures, kindImage) })
		}, "names 2"},
		{"no index", func(t *testing.T, _ world, dir string) {
			if err := os.Remove(filepath.Join(dir, indexFile)); err != nil {
				t.Fatal(err)
			}
		}, "not an image layout"},
		{"another version", func(t *testing.T, _ world, dir string) {
			rewrite(t, filepath.Join(dir, layoutFile), func(string) string { return `{"imageLayoutVersion":"2.0.0"}` })
		}, "want 1.0.0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w, dir := saved(t)
			row.spoil(t, w, dir)
			target := newMemory("target")
			if err := load(t, dir, target); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if len(target.written) > 0 {
				t.Errorf("written: %v", target.written)
			}
		})
	}
}

func TestADirectoryOfOtherThingsIsNotWrittenTo(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	g, err := Find(t.Context(), w, nil, "v1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Save(t.Context(), g, dir, "", nil); !errors.Is(err, ErrNotLayout) {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files", len(entries))
	}
}
