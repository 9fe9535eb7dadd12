package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
)

// files is the part of a file system that content goes through. Names are
// slash-separated and relative to the store's directory. It is the seam at
// which tests make things fail.
type files interface {
	// create makes a file that did not exist.
	create(name string) (file, error)

	// open opens for reading. It does not wait for a pipe's other end.
	open(name string) (file, error)

	// stat describes what name is, without following a symbolic link.
	stat(name string) (fs.FileInfo, error)

	rename(old, to string) error
	remove(name string) error // with all below it
	mkdir(name string) error  // with its parents

	// syncDir makes the entries of a directory durable.
	syncDir(name string) error

	// list calls yield for the entries of a directory until it returns false.
	list(name string, yield func(fs.DirEntry) bool) error

	// close lets go of what is held to be quick. The files stay usable.
	close() error
}

type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

// rooted is the real file system below a root. It keeps the directories of
// content open, so that opening a content is one system call and not one for
// each directory on the way.
type rooted struct {
	root *os.Root

	mu   sync.RWMutex
	dirs map[string]*directory
}

func newRooted(root *os.Root) *rooted {
	return &rooted{root: root, dirs: make(map[string]*directory)}
}

func (r *rooted) create(name string) (file, error) {
	return unwrap(r.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
}

func (r *rooted) open(name string) (file, error) {
	dir, base := path.Split(name)
	r.mu.RLock()
	near := r.dirs[dir]
	r.mu.RUnlock()
	if near != nil {
		if f, err := near.open(base); err == nil {
			return f, nil
		}
		// Perhaps the directory is another one by now.
	}
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		r.approach(dir)
	}
	return unwrap(f, err)
}

// approach keeps dir open, in the place of the one that had this name before.
func (r *rooted) approach(dir string) {
	near, err := openDirectory(r.root, dir)
	if err != nil {
		return
	}
	r.mu.Lock()
	old := r.dirs[dir]
	r.dirs[dir] = near
	r.mu.Unlock()
	if old != nil {
		old.close() // who is in it just now goes the long way
	}
}

func (r *rooted) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for dir, near := range r.dirs {
		errs = append(errs, near.close())
		delete(r.dirs, dir)
	}
	return errors.Join(errs...)
}

// unwrap keeps a nil *os.File from becoming a file that is not nil.
func unwrap(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (r *rooted) stat(name string) (fs.FileInfo, error) { return r.root.Lstat(name) }

func (r *rooted) rename(old, to string) error { return r.root.Rename(old, to) }

func (r *rooted) remove(name string) error { return r.root.RemoveAll(name) }

func (r *rooted) mkdir(name string) error { return r.root.MkdirAll(name, 0o700) }

func (r *rooted) syncDir(name string) error {
	d, err := r.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (r *rooted) list(name string, yield func(fs.DirEntry) bool) error {
	d, err := r.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(1000)
		for _, entry := range entries {
			if !yield(entry) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const (
	blobsDir  = "blobs/sha256"
	tempDir   = "tmp"
	lockFile  = "lock"
	indexFile = "index.db"
)

// path is where content lies. A key has no other spelling.
func (k key) path() string { return path.Join(k.dir(), k.hex()) }

func (k key) dir() string { return path.Join(blobsDir, k.hex()[:2]) }
