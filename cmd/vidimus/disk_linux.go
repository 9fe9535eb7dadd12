package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// bytes returns the share of the file system that directory is on, or will be
// on once it is made.
func (s share) bytes(directory string) (int64, error) {
	if s.Percent == 0 || directory == "" {
		return s.Bytes, nil
	}
	at := directory
	for {
		_, err := os.Stat(at)
		if err == nil || filepath.Dir(at) == at {
			break
		}
		at = filepath.Dir(at)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(at, &stat); err != nil {
		return 0, fmt.Errorf("cache.maxSize: size of the file system of %s: %w", at, err)
	}
	return int64(stat.Blocks) * int64(stat.Bsize) / 100 * int64(s.Percent), nil
}
