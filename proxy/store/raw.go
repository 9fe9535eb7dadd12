package store

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// way is how a file is read.
type way int

const (
	cached  way = iota // as everybody does: it may come from the system's memory
	dropped            // the system was told to forget what it holds in memory
	direct             // past what the system holds in memory
)

// raw is a file of content as its medium holds it. It is read once, in order.
type raw interface {
	// next reads what follows into p, which came from rawBuffer, as io.Reader does.
	next(p []byte) (int, error)

	Stat() (fs.FileInfo, error)
	how() way
	Close() error
}

// rawSize is how much is read at a time.
const rawSize = 1 << 20

// rawFile is raw on what the system offers.
type rawFile struct {
	*os.File
	way    way
	offset int64
}

func (r *rawFile) how() way { return r.way }

// openRaw opens a file below root, which is one: nothing that a symbolic link
// points to, and no pipe. It matches fs.ErrNotExist when it is not.
func openRaw(root *os.Root, name string) (_ *rawFile, err error) {
	f, way, err := openPast(root, name, os.O_RDONLY|syscall.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	named, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !named.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file: %w", name, fs.ErrNotExist)
	}
	return &rawFile{File: f, way: way}, nil
}

// readCached is next through the system's memory.
func (r *rawFile) readCached(p []byte) (int, error) {
	n, err := r.ReadAt(p, r.offset)
	r.offset += int64(n)
	return n, err
}
