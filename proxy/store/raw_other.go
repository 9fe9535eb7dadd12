//go:build !linux

package store

import "os"

func rawBuffer() (p []byte, free func(), err error) { return make([]byte, rawSize), func() {}, nil }

// openPast opens a file as everybody does: direct reads are known on Linux only.
func openPast(root *os.Root, name string, flags int) (*os.File, way, error) {
	f, err := root.OpenFile(name, flags, 0)
	return f, cached, err
}

func (r *rawFile) next(p []byte) (int, error) { return r.readCached(p) }
