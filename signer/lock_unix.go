//go:build unix && !solaris && !illumos && !aix

package signer

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock on f, which closing f gives back; false when somebody
// else holds it.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}
