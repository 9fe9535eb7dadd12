package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// rawAlign is what offsets, lengths and addresses of direct reads are multiples
// of: no medium in use has larger blocks, and one that had would be read the
// other way.
const rawAlign = 4096

// rawBuffer returns memory that direct reads may go to.
func rawBuffer() (p []byte, free func(), err error) {
	p, err = unix.Mmap(-1, 0, rawSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	return p, func() { unix.Munmap(p) }, nil
}

// openPast opens a file for direct reads, where its file system has them, and
// without noting the time of access, where this user may ask for that.
func openPast(root *os.Root, name string, flags int) (*os.File, way, error) {
	var err error
	for _, extra := range []int{unix.O_DIRECT | unix.O_NOATIME, unix.O_DIRECT, unix.O_NOATIME, 0} {
		var f *os.File
		f, err = root.OpenFile(name, flags|extra, 0)
		if err == nil && extra&unix.O_DIRECT != 0 {
			return f, direct, nil
		}
		if err == nil {
			return f, forget(f), nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
			break
		}
	}
	return nil, cached, err
}

// forget makes the system forget what it holds of f in memory. What has not been
// written yet would stay, so it is written first.
func forget(f *os.File) way {
	if err := f.Sync(); err != nil {
		return cached
	}
	if err := control(f, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }); err != nil {
		return cached
	}
	return dropped
}

// next reads one aligned piece: an end that is none of a block comes as a short
// read, and there is nothing after it. The system itself writes what of the file
// it has not written yet, before a direct read.
func (r *rawFile) next(p []byte) (n int, err error) {
	if r.way != direct {
		return r.readCached(p)
	}
	if r.offset%rawAlign != 0 {
		if info, err := r.Stat(); err == nil && info.Size() <= r.offset {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("read %s: %w", r.Name(), io.ErrUnexpectedEOF)
	}
	err = control(r.File, func(fd int) (err error) {
		n, err = ignoringInterrupts(func() (int, error) { return unix.Pread(fd, p, r.offset) })
		return err
	})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		if err := r.giveUpDirect(); err != nil {
			return 0, err
		}
		return r.readCached(p)
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: r.Name(), Err: err}
	case n == 0:
		return 0, io.EOF
	}
	r.offset += int64(n)
	return n, nil
}

// giveUpDirect goes on without direct reads, which this file system does not have
// whatever it said when the file was opened.
func (r *rawFile) giveUpDirect() error {
	err := control(r.File, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
		}
		return err
	})
	if err != nil {
		return &os.PathError{Op: "read", Path: r.Name(), Err: err}
	}
	r.way = forget(r.File)
	return nil
}

// Close closes the file. What was read through the system's memory is not left
// there, where it would be in the way of what is used.
func (r *rawFile) Close() error {
	if r.way == dropped {
		forget(r.File)
	}
	return r.File.Close()
}

func ignoringInterrupts(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// control runs call on the descriptor of f.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}
