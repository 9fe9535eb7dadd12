package signer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// KeyFile is the content of a private key file and what was seen of the file.
type KeyFile struct {
	Data []byte
	// Exposed is the permission bits by which others than the owner may read
	// or write the file; zero when there are none, or when it is not a regular
	// file (a pipe, say). The password still protects the key, but only as
	// well as it resists guessing.
	Exposed fs.FileMode
}

// ReadKeyFile reads the file at path, at most MaxKeyFileSize bytes of it. A
// symbolic link is followed: it is the permissions of the file that count.
func ReadKeyFile(path string) (KeyFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return KeyFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return KeyFile{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxKeyFileSize+1))
	if err != nil {
		return KeyFile{}, err
	}
	if len(data) > MaxKeyFileSize {
		return KeyFile{}, fmt.Errorf("%s: %w: larger than %d bytes", path, ErrNotKeyFile, MaxKeyFileSize)
	}
	file := KeyFile{Data: data}
	if info.Mode().IsRegular() {
		file.Exposed = info.Mode().Perm() & 0o077
	}
	return file, nil
}

// OutputFile is a file to be written by WriteFiles.
type OutputFile struct {
	Path string
	Data []byte
	Mode fs.FileMode
}

// WriteFiles writes files so that each of them is, at any moment, what it was
// before or whole: all are written and synced under temporary names beside
// their places before the first takes its name, in the order given. With
// overwrite false a file that exists is an error that matches fs.ErrExist, and
// then none of the files is left behind. What is there and is no file (a pipe, a
// device, a link to one) is written into where it may be overwritten.
func WriteFiles(overwrite bool, files ...OutputFile) (err error) {
	var staged, placed []string
	defer func() {
		for _, name := range staged {
			if name != "" {
				err = errors.Join(err, ignoreMissing(os.Remove(name)))
			}
		}
		if err == nil || overwrite {
			return
		}
		for _, name := range placed {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	for _, file := range files {
		if overwrite && isNoFile(file.Path) {
			staged = append(staged, "")
			continue
		}
		name, err := stage(file)
		if name != "" {
			staged = append(staged, name)
		}
		if err != nil {
			return err
		}
	}
	for i, file := range files {
		if staged[i] == "" {
			if err := writeInto(file); err != nil {
				return err
			}
			continue
		}
		if err := place(staged[i], file.Path, overwrite); err != nil {
			return err
		}
		placed = append(placed, file.Path)
	}
	for i, file := range files {
		if staged[i] == "" {
			continue
		}
		if err := syncDirectory(filepath.Dir(file.Path)); err != nil {
			return err
		}
	}
	return nil
}

// isNoFile reports whether something is at path that is neither a file nor a directory.
func isNoFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

func writeInto(file OutputFile) (err error) {
	f, err := os.OpenFile(file.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(file.Data)
	return err
}

// stage writes file under a temporary name beside its place.
func stage(file OutputFile) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(file.Path), ".vidimus-*")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(file.Mode); err != nil {
		return f.Name(), err
	}
	if _, err := f.Write(file.Data); err != nil {
		return f.Name(), err
	}
	return f.Name(), f.Sync()
}

// place gives a staged file its name. A link, unlike a rename, fails when the
// name is taken, and so nothing that appears at the last moment is replaced.
func place(staged, path string, overwrite bool) error {
	if overwrite {
		return os.Rename(staged, path)
	}
	return os.Link(staged, path)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
