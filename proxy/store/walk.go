package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// visitor is told what a walk comes by.
type visitor struct {
	// content is told of each content. An error of it ends the walk.
	content func(record) error

	// stray is told the name, below the store's directory, of what lies where
	// content lies and is none. It may be nil.
	stray func(name string)

	// passed is told how many of the directories of content are behind. It may be
	// nil.
	passed func(seen, of int)
}

// walk tells v of the content of a store's directory in the order of digests; a
// record's use is the time at which it was stored. It holds one directory of
// content in memory, and none open while v is told, so that v may remove. What
// cannot be listed is passed over, and is its error in the end.
func walk(ctx context.Context, from files, v visitor) error {
	stray := func(name string) {
		if v.stray != nil {
			v.stray(name)
		}
	}
	var dirs []string
	if err := from.list(blobsDir, func(entry fs.DirEntry) bool {
		if entry.IsDir() && isPrefix(entry.Name()) {
			dirs = append(dirs, entry.Name())
		} else {
			stray(path.Join(blobsDir, entry.Name()))
		}
		return ctx.Err() == nil
	}); err != nil {
		return fmt.Errorf("store: list %s: %w", blobsDir, err)
	}
	slices.Sort(dirs)
	var found []record
	var failed error
	for i, dir := range dirs {
		var err error
		if found, err = listContent(ctx, from, dir, found[:0], stray); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("store: list %s: %w", path.Join(blobsDir, dir), err))
		}
		for _, r := range found {
			if ctx.Err() != nil {
				return errors.Join(context.Cause(ctx), failed)
			}
			if err := v.content(r); err != nil {
				return errors.Join(err, failed)
			}
		}
		if v.passed != nil {
			v.passed(i+1, len(dirs))
		}
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), failed)
	}
	return failed
}

// isPrefix reports whether name is how a directory of content is called.
func isPrefix(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == 1 && hex.EncodeToString(raw) == name
}

// listContent appends what one directory holds, sorted.
func listContent(ctx context.Context, from files, dir string, found []record, stray func(name string)) ([]record, error) {
	var failed error
	err := from.list(path.Join(blobsDir, dir), func(entry fs.DirEntry) bool {
		switch r, err := inspect(dir, entry); {
		case err == nil:
			found = append(found, r)
		case err == errStray:
			stray(path.Join(blobsDir, dir, entry.Name()))
		case !errors.Is(err, fs.ErrNotExist): // it may go away meanwhile
			failed = err
		}
		return ctx.Err() == nil
	})
	slices.SortFunc(found, func(a, b record) int { return bytes.Compare(a.key[:], b.key[:]) })
	return found, errors.Join(err, failed)
}

var errStray = errors.New("store: not content")

// inspect reads a directory entry that is where content of that name lies.
func inspect(dir string, entry fs.DirEntry) (record, error) {
	var it record
	name := entry.Name()
	if !entry.Type().IsRegular() || len(name) != hex.EncodedLen(len(it.key)) || name[:2] != dir {
		return it, errStray
	}
	if _, err := hex.Decode(it.key[:], []byte(name)); err != nil || it.key.hex() != name {
		return it, errStray
	}
	info, err := entry.Info()
	if err != nil {
		return it, err
	}
	if !info.Mode().IsRegular() {
		return it, errStray
	}
	it.size, it.used = info.Size(), info.ModTime().UnixNano()
	return it, nil
}
