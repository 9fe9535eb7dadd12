package store

import (
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// directory is an open directory of content. What it opens is a descriptor and
// nothing else: an os.File costs as much again as all else that is done for a
// small content.
type directory struct {
	mu     sync.RWMutex // held for writing by close
	file   *os.File
	closed bool
}

func openDirectory(root *os.Root, name string) (*directory, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &directory{file: file}, nil
}

// open opens for reading the file of that name, which has no slash, and follows
// no symbolic link.
func (d *directory) open(name string) (file, error) {
	if name == "" || path.Base(name) != name || name == ".." || name == "." {
		return nil, fs.ErrInvalid
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, fs.ErrClosed
	}
	var fd int
	err := again(func() (err error) {
		const flags = syscall.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
		fd, err = syscall.Openat(int(d.file.Fd()), name, flags, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	return &descriptor{fd: fd, name: name}, nil
}

func (d *directory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.file.Close()
}

// again calls f until it is not interrupted by a signal.
func again(f func() error) error {
	for {
		if err := f(); err != syscall.EINTR {
			return err
		}
	}
}

// descriptor is a file that is open for reading. It implements file; whoever
// opened it closes it, once, when nobody uses it any more.
type descriptor struct {
	fd   int
	name string
}

// ReadAt implements io.ReaderAt.
func (d *descriptor) ReadAt(p []byte, offset int64) (int, error) {
	read := 0
	for read < len(p) {
		var n int
		err := again(func() (err error) {
			n, err = syscall.Pread(d.fd, p[read:], offset+int64(read))
			return err
		})
		if err != nil {
			return read, &fs.PathError{Op: "read", Path: d.name, Err: err}
		}
		if n == 0 {
			return read, io.EOF
		}
		read += n
	}
	return read, nil
}

// Write fails: the file is open for reading.
func (d *descriptor) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: d.name, Err: syscall.EBADF}
}

// Sync makes the file's content durable.
func (d *descriptor) Sync() error {
	if err := again(func() error { return syscall.Fsync(d.fd) }); err != nil {
		return &fs.PathError{Op: "sync", Path: d.name, Err: err}
	}
	return nil
}

// Stat describes the file.
func (d *descriptor) Stat() (fs.FileInfo, error) {
	info := &fileInfo{name: d.name}
	if err := again(func() error { return syscall.Fstat(d.fd, &info.stat) }); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: d.name, Err: err}
	}
	return info, nil
}

// Close gives the descriptor back. It is not tried again when interrupted: on
// Linux it is closed all the same.
func (d *descriptor) Close() error { return syscall.Close(d.fd) }

// fileInfo is what fstat says.
type fileInfo struct {
	name string
	stat syscall.Stat_t
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.stat.Size }
func (i *fileInfo) ModTime() time.Time { return time.Unix(0, i.stat.Mtim.Nano()) }
func (i *fileInfo) IsDir() bool        { return i.Mode().IsDir() }
func (i *fileInfo) Sys() any           { return &i.stat }

// Mode tells the kinds of files apart as far as is needed here: what is no
// regular file is something else.
func (i *fileInfo) Mode() fs.FileMode {
	permissions := fs.FileMode(i.stat.Mode & 0o777)
	switch i.stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return permissions
	case syscall.S_IFDIR:
		return permissions | fs.ModeDir
	}
	return permissions | fs.ModeIrregular
}

// sameFile reports whether both describe one file.
func sameFile(a, b fs.FileInfo) bool {
	one, other := identify(a), identify(b)
	return one.dev == other.dev && one.ino == other.ino
}
