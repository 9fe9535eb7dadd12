package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// imageTree is the file system that the layers of an image make, without the files'
// content. Source of its rules: OCI image-spec layer.md.
type imageTree struct {
	root    *imageEntry
	layers  int
	entries int
	content int64 // unpacked bytes that may still be read
}

// imageEntry is a directory, a symbolic link, a file, or something else that has no
// content.
type imageEntry struct {
	children map[string]*imageEntry // of a directory
	target   string                 // of a symbolic link
	layer    int                    // where a file's content is, and as which entry of it
	index    int
	size     int64
	file     bool
}

func newDirectory() *imageEntry { return &imageEntry{children: make(map[string]*imageEntry)} }

func newImageTree() *imageTree { return &imageTree{root: newDirectory(), content: maxLayerContent} }

// Names of whiteouts: what a layer removes from those below it.
const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// cleaned is a name of an archive or a link as components below the root: what leads
// out of the root stays in it, as for a process that is rooted there.
func cleaned(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// add puts the layer in file on top of those before.
func (t *imageTree) add(ctx context.Context, file string) error {
	// What a layer removes is removed from the layers below, wherever in it that stands.
	if err := t.walk(ctx, file, func(h *tar.Header, _ int) error {
		dir, base := path.Split("/" + strings.TrimSuffix(h.Name, "/"))
		if !strings.HasPrefix(base, whiteout) {
			return nil
		}
		parent, err := t.directory(cleaned(dir), false)
		switch {
		case err != nil || parent == nil:
			return err
		case base == whiteoutOpaque:
			clear(parent.children)
		default:
			delete(parent.children, strings.TrimPrefix(base, whiteout))
		}
		return nil
	}); err != nil {
		return err
	}
	err := t.walk(ctx, file, t.put)
	t.layers++
	return err
}

// put adds one entry of the layer that is being added.
func (t *imageTree) put(h *tar.Header, index int) error {
	name := cleaned(h.Name)
	if len(name) == 0 || strings.HasPrefix(name[len(name)-1], whiteout) {
		return nil
	}
	parent, err := t.directory(name[:len(name)-1], true)
	if err != nil || parent == nil {
		return err
	}
	base := name[len(name)-1]
	entry := &imageEntry{layer: t.layers, index: index}
	switch h.Typeflag {
	case tar.TypeDir:
		if there := parent.children[base]; there != nil && there.children != nil {
			return nil
		}
		entry = newDirectory()
	case tar.TypeReg:
		entry.file, entry.size = true, h.Size
	case tar.TypeSymlink:
		entry.target = h.Linkname
	case tar.TypeLink:
		linked := cleaned(h.Linkname)
		if len(linked) == 0 {
			return nil
		}
		from, err := t.directory(linked[:len(linked)-1], false)
		if err != nil || from == nil {
			return err
		}
		if entry = from.children[linked[len(linked)-1]]; entry == nil || entry.children != nil {
			return nil // a link to nothing, or to a directory, which there cannot be
		}
	}
	if t.entries++; t.entries > maxTreeEntries {
		return fmt.Errorf("the image has more than %d files", maxTreeEntries)
	}
	parent.children[base] = entry
	return nil
}

// directory returns the directory at a path, of which links are followed; nil when
// there is none. With make it is made, in place of what is no directory.
func (t *imageTree) directory(name []string, make bool) (*imageEntry, error) {
	links := 0
	at := []*imageEntry{t.root} // the way, for ..
	for len(name) > 0 {
		base := name[0]
		name = name[1:]
		here := at[len(at)-1]
		if base == ".." {
			at = at[:max(1, len(at)-1)]
			continue
		}
		next := here.children[base]
		if next != nil && next.target != "" {
			if links++; links > maxLinks {
				return nil, nil
			}
			if strings.HasPrefix(next.target, "/") {
				at = at[:1]
			}
			name = append(components(next.target), name...)
			continue
		}
		if next == nil || next.children == nil {
			if !make {
				return nil, nil
			}
			if t.entries++; t.entries > maxTreeEntries {
				return nil, fmt.Errorf("the image has more than %d files", maxTreeEntries)
			}
			next = newDirectory()
			here.children[base] = next
		}
		at = append(at, next)
	}
	return at[len(at)-1], nil
}

// components are those of a link's target, with its "..", which depend on where the
// link stands.
func components(target string) []string {
	var all []string
	for c := range strings.SplitSeq(target, "/") {
		if c != "" && c != "." {
			all = append(all, c)
		}
	}
	return all
}

// find returns the file at a path.
func (t *imageTree) find(name string) (*imageEntry, error) {
	way := cleaned(name)
	var dir []string
	for range maxLinks {
		if len(way) == 0 {
			return nil, errNoFile
		}
		dir = append(dir, way[:len(way)-1]...)
		parent, err := t.directory(dir, false)
		if err != nil {
			return nil, err
		}
		if parent == nil {
			return nil, errNoFile
		}
		entry := parent.children[way[len(way)-1]]
		switch {
		case entry == nil || entry.children != nil:
			return nil, errNoFile
		case entry.file:
			return entry, nil
		case entry.target == "":
			return nil, errNoFile // a device, or the like
		}
		way = components(entry.target)
		if strings.HasPrefix(entry.target, "/") {
			dir = nil
		}
		if len(way) > 0 && way[len(way)-1] == ".." {
			return nil, errNoFile // it ends in a directory
		}
	}
	return nil, errNoFile
}

// read returns the content of a file, which is in a layer.
func (e *imageEntry) read(ctx context.Context, layer string) (content []byte, err error) {
	if e.size > maxFileInImage {
		return nil, fmt.Errorf("the file has %d bytes, of which at most %d are read", e.size, maxFileInImage)
	}
	done := errors.New("done")
	t := newImageTree()
	err = t.stream(ctx, layer, func(r *tar.Reader, h *tar.Header, index int) error {
		if index != e.index {
			return nil
		}
		if content, err = io.ReadAll(io.LimitReader(r, maxFileInImage+1)); err != nil {
			return err
		}
		return done
	})
	if err == done {
		return content, nil
	}
	return nil, errors.Join(err, errors.New("the layer changed while it was read"))
}

// walk calls visit with the header of each entry of a layer.
func (t *imageTree) walk(ctx context.Context, layer string, visit func(h *tar.Header, index int) error) error {
	return t.stream(ctx, layer, func(_ *tar.Reader, h *tar.Header, index int) error { return visit(h, index) })
}

func (t *imageTree) stream(ctx context.Context, layer string, visit func(r *tar.Reader, h *tar.Header, index int) error) error {
	f, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer f.Close()
	unpacked, free, err := unpack(bufio.NewReader(f))
	if err != nil {
		return err
	}
	defer free()
	r := tar.NewReader(&meter{ctx: ctx, from: unpacked, left: &t.content})
	for index := 0; ; index++ {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = visit(r, h, index)
		}
		if err != nil {
			return err
		}
	}
}

// unpack tells by the first bytes how a layer is compressed, if it is.
func unpack(packed *bufio.Reader) (r io.Reader, free func(), err error) {
	magic, _ := packed.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		unpacked, err := gzip.NewReader(packed)
		return unpacked, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		unpacked, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return unpacked, unpacked.Close, nil
	}
	return packed, func() {}, nil
}

// meter ends a reading when there was enough of it, or nobody waits.
type meter struct {
	ctx  context.Context // of one reading
	from io.Reader
	left *int64
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.from.Read(p)
	if *m.left -= int64(n); *m.left < 0 {
		return 0, fmt.Errorf("it unpacks to more than %d GiB", maxLayerContent>>30)
	}
	return n, err
}
