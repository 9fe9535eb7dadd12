//go:build !linux

package store

import (
	"io/fs"
	"os"
	"syscall"
)

// directory is an open directory of content.
type directory struct{ root *os.Root }

func openDirectory(root *os.Root, name string) (*directory, error) {
	near, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &directory{near}, nil
}

// open opens for reading the file of that name.
func (d *directory) open(name string) (file, error) {
	return unwrap(d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0))
}

func (d *directory) close() error { return d.root.Close() }

// sameFile reports whether both describe one file.
func sameFile(a, b fs.FileInfo) bool { return os.SameFile(a, b) }
