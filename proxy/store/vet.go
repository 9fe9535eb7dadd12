package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// vet checks, before anything is read or written, that the pages of the index file that are
// in use are what bbolt (its package common, page.go and bucket.go) takes them for:
// that each ends within its place, and that they are a tree. bbolt believes them: it
// notes in memory as free what a page that it replaces says is its length, up to 2^32
// pages, copies values of any length that it is told, and follows a page that refers
// to itself until the process has no stack left.
func (d *database) vet() error {
	return d.db.View(func(tx *bbolt.Tx) error {
		size := int64(d.db.Info().PageSize)
		v := vetter{file: d.file, size: size, pages: uint64(tx.Size() / size), refers: make(map[uint64]bool), heads: make(map[uint64]bool)}
		if err := v.refer(uint64(tx.Cursor().Bucket().Root())); err != nil {
			return err
		}
		for n := uint64(2); n < v.pages; { // the first two have a sum
			info, err := tx.Page(int(n))
			if err != nil {
				return err
			}
			run := uint64(1)
			if info.Type != "free" {
				if run, err = v.look(n); err != nil {
					return fmt.Errorf("page %d: %w", n, err)
				}
			}
			n += run
		}
		for n := range v.refers {
			if !v.heads[n] {
				return fmt.Errorf("%w: page %d is referred to and is none", errDamaged, n)
			}
		}
		return nil
	})
}

// vetter checks pages. Its maps have a line for each page in use.
type vetter struct {
	file   *os.File
	size   int64 // of a page
	pages  uint64
	refers map[uint64]bool // pages that another one refers to
	heads  map[uint64]bool // pages that begin one or several
	data   []byte
}

const (
	indexHeader  = 16      // id 8, flags 2, count 2, further pages 4
	indexElement = 16      // in a branch position 4, key 4, page 8; in a leaf flags 4, position 4, key 4, value 4
	indexBucket  = 16      // root 8, sequence 8; where the root is 0 a page follows
	indexRun     = 1 << 10 // pages in a row, at most: as many as the free ones of the largest index take to be listed
)

// look checks page n, and returns in how many pages it is.
func (v *vetter) look(n uint64) (run uint64, err error) {
	if err := v.read(n, 1); err != nil {
		return 0, err
	}
	run = uint64(binary.NativeEndian.Uint32(v.data[12:])) + 1
	if binary.NativeEndian.Uint64(v.data) != n || run > indexRun || n+run > v.pages {
		return 0, fmt.Errorf("%w: it is elsewhere, or too long", errDamaged)
	}
	if run > 1 {
		if err := v.read(n, run); err != nil {
			return 0, err
		}
	}
	v.heads[n] = true
	return run, v.page(v.data)
}

// read reads a run of pages.
func (v *vetter) read(n, run uint64) error {
	v.data = slices.Grow(v.data[:0], int(run)*int(v.size))[:int(run)*int(v.size)]
	if _, err := v.file.ReadAt(v.data, int64(n)*v.size); err != nil {
		return errors.Join(errDamaged, err)
	}
	return nil
}

// page checks what a page holds.
func (v *vetter) page(data []byte) error {
	if len(data) < indexHeader {
		return fmt.Errorf("%w: a page within one is cut short", errDamaged)
	}
	count, rest := uint64(binary.NativeEndian.Uint16(data[10:])), data[indexHeader:]
	switch flags := binary.NativeEndian.Uint16(data[8:]); flags {
	case 0x01, 0x02:
		return v.elements(rest, count, flags == 0x02)
	case 0x10:
		return v.free(rest, count)
	default:
		return fmt.Errorf("%w: a page of kind %x", errDamaged, flags)
	}
}

// elements checks what a branch or a leaf holds. A position counts from the element
// that it is in.
func (v *vetter) elements(data []byte, count uint64, leaf bool) error {
	if count*indexElement > uint64(len(data)) || count == 0 && !leaf {
		return fmt.Errorf("%w: %d elements", errDamaged, count)
	}
	for i := range count {
		at := i * indexElement
		e := data[at:]
		position, key, value := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint32(0)
		if leaf {
			position, key, value = binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		}
		begin := at + uint64(position) + uint64(key)
		end := begin + uint64(value)
		if end > uint64(len(data)) {
			return fmt.Errorf("%w: element %d is too long", errDamaged, i)
		}
		var err error
		switch {
		case !leaf:
			err = v.refer(binary.NativeEndian.Uint64(e[8:]))
		case binary.NativeEndian.Uint32(e)&1 != 0:
			err = v.bucket(data[begin:end])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the value that is a table.
func (v *vetter) bucket(data []byte) error {
	if len(data) < indexBucket {
		return fmt.Errorf("%w: a table is cut short", errDamaged)
	}
	if root := binary.NativeEndian.Uint64(data); root != 0 {
		return v.refer(root)
	}
	return v.page(data[indexBucket:])
}

// refer hears that there is a page n, and whose it is. Where each page is one's only,
// and the first is nobody's else, they are a tree.
func (v *vetter) refer(n uint64) error {
	if n < 2 || n >= v.pages || v.refers[n] {
		return fmt.Errorf("%w: page %d is referred to twice, or is none", errDamaged, n)
	}
	v.refers[n] = true
	return nil
}

// free checks the list of free pages.
func (v *vetter) free(data []byte, count uint64) error {
	if count == 0xffff { // and more: how many is where the first would be
		count, data = binary.NativeEndian.Uint64(data), data[8:]
	}
	if count > uint64(len(data)/8) {
		return fmt.Errorf("%w: %d free pages", errDamaged, count)
	}
	for i := range count {
		if n := binary.NativeEndian.Uint64(data[8*i:]); n < 2 || n >= v.pages {
			return fmt.Errorf("%w: page %d is none, and free", errDamaged, n)
		}
	}
	return nil
}
