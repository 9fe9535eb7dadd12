package main

import (
	"os"
	"path/filepath"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
)

// sizes are the sizes of what is pulled, scaled. Nothing is smaller than 1 KiB.
type sizes float64

func (b *bench) sizes() sizes { return sizes(b.scale) }

func (s sizes) of(size int64) int64 { return max(kib, int64(float64(size)*float64(s))) }

// largest is the size of the largest blob.
func (s sizes) largest() int64 { return s.of(256 * mib) }

// layers returns n layers of one size.
func (s sizes) layers(n int, size int64) []int64 {
	layers := make([]int64, n)
	for i := range layers {
		layers[i] = s.of(size)
	}
	return layers
}

// touch writes and removes a large file where the caches are. A guest's memory
// that was never used is slow at its first touch, and would make the first of
// several servers look bad. What was written before goes to the disk first, so
// that nobody pays for what another left to be written.
func (b *bench) touch() error {
	flushDisks()
	file, err := os.Create(filepath.Join(b.dir, "touch"))
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	piece := make([]byte, mib)
	for left := b.sizes().of(256 * mib); left > 0; left -= int64(len(piece)) {
		if _, err := file.Write(piece[:min(left, int64(len(piece)))]); err != nil {
			return err
		}
	}
	return nil
}
