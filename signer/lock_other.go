//go:build !unix || solaris || illumos || aix

package signer

import (
	"errors"
	"os"
)

// tryLock says that there are no such locks: writers meet without taking
// turns, which costs them collisions and no signature.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
