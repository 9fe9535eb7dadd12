//go:build !unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// lock refuses: two processes in one directory would destroy each other's
// work, and only Unix locks are known here. A store in memory needs none.
func lock(root *os.Root) (*os.File, error) {
	return nil, fmt.Errorf("store: lock %s: %w on this system", root.Name(), errors.ErrUnsupported)
}

func entrust(*os.Root, fs.FileInfo, ...string) error { return nil }
