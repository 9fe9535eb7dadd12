//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lock takes the directory for this process. It is given back when the file is
// closed, or the process ends in whatever way.
func lock(root *os.Root) (*os.File, error) {
	f, err := root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, root.Name())
	}
	return nil, fmt.Errorf("store: lock %s: %w", root.Name(), err)
}

// entrust gives what root may have made in the directory of another user's store
// to that user, who could not open it otherwise.
func entrust(root *os.Root, owned fs.FileInfo, names ...string) error {
	owner, ok := owned.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	var failed error
	for _, name := range names {
		if err := root.Lchown(name, int(owner.Uid), int(owner.Gid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
