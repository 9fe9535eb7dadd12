//go:build !linux

package main

import "errors"

// bytes returns the size; a share of a file system is known on Linux only.
func (s share) bytes(directory string) (int64, error) {
	if s.Percent == 0 || directory == "" {
		return s.Bytes, nil
	}
	return 0, errors.New("cache.maxSize: a share of the file system is known on Linux only; write a size like 50GiB")
}
