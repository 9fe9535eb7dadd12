package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Directory is the directory of a Store, for a person to look at and to tidy,
// while a process has it open or none has. It takes no lock, and makes, moves and
// removes nothing but what it is told to. A Store takes for missing what was
// removed beside it; who reads it then reads on.
//
// It belongs to one goroutine at a time.
type Directory struct {
	root   *os.Root
	files  files
	roster *slotFile // nil: there is none that can be read
	marked bool      // the roster is in doubt
	open   func(name string) (raw, error)
}

// Content is what a Directory holds under a digest. Whether it hashes to that is
// for Scrub to say.
type Content struct {
	Digest v1.Hash
	Size   int64
	Used   time.Time // last, as of a second ago or so; when it was stored, as long as no use is known
}

// OpenDirectory opens the directory of a Store. It matches fs.ErrNotExist when
// there is none of this name, or when it has not the layout of one.
func OpenDirectory(name string) (*Directory, error) {
	root, err := openLayout(name)
	if err != nil {
		return nil, err
	}
	d := &Directory{root: root, files: newRooted(root), open: func(name string) (raw, error) { return openRaw(root, name) }}
	if d.roster, err = readRoster(root); err != nil {
		d.roster = nil // which a Store would begin anew
	}
	return d, nil
}

// openLayout opens a directory in which content lies, or could.
func openLayout(name string) (*os.Root, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	info, err := root.Lstat(blobsDir)
	if err == nil && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("store: %s is not the directory of a store: %s: %w", name, blobsDir, err)
	}
	return root, nil
}

// readRoster opens the roster for reading. Another process may write it: a slot
// that is half written does not hold, and one that is replaced stays as it was.
func readRoster(root *os.Root) (*slotFile, error) {
	info, err := root.Lstat(rosterFile)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	file, err := root.Open(rosterFile)
	if err != nil {
		return nil, err
	}
	t := &slotFile{file: file}
	if !t.load() {
		file.Close()
		return nil, fs.ErrInvalid
	}
	return t, nil
}

// Close lets go of the directory.
func (d *Directory) Close() error {
	err := errors.Join(d.files.close(), d.root.Close())
	if d.roster != nil {
		err = errors.Join(err, d.roster.file.Close())
	}
	return err
}

// KnowsUse reports whether the roster of use can be read. When it cannot, Used is
// the time at which content was stored.
func (d *Directory) KnowsUse() bool { return d.roster != nil }

// Contents calls show for each content, in the order of digests, and stray, when
// it is not nil, with the name of whatever else lies where content lies. Memory
// is bounded. show may remove what it is shown; an error of it ends the walk.
// Other errors are about what could not be listed; all else has been shown then.
func (d *Directory) Contents(ctx context.Context, show func(Content) error, stray func(name string)) error {
	return walk(ctx, d.files, visitor{stray: stray, content: func(r record) error {
		return show(d.recognise(r).content())
	}})
}

// ContentsByUse is Contents in the order of use, the latest first. It takes up to
// 200 bytes of memory for each content.
func (d *Directory) ContentsByUse(ctx context.Context, show func(Content) error, stray func(name string)) error {
	var all []record
	if d.roster != nil {
		all = make([]record, 0, min(d.roster.count, d.roster.pages*slotsPerPage))
	}
	err := walk(ctx, d.files, visitor{stray: stray, content: func(r record) error {
		all = append(all, d.recognise(r))
		return nil
	}})
	if ctx.Err() != nil {
		return err
	}
	slices.SortFunc(all, func(a, b record) int {
		return cmp.Or(cmp.Compare(b.used, a.used), bytes.Compare(a.key[:], b.key[:]))
	})
	for _, r := range all {
		if shown := show(r.content()); shown != nil {
			return errors.Join(shown, err)
		}
	}
	return err
}

// recognise adds what the roster knows of r.
func (d *Directory) recognise(r record) record {
	if d.roster == nil {
		return r
	}
	if at, _, known, err := d.roster.find(r.key); err == nil && at >= 0 {
		r.used = known.used
	}
	return r
}

func (r record) content() Content {
	return Content{Digest: r.key.digest(), Size: r.size, Used: time.Unix(0, r.used)}
}

// Remove removes the content of digest and returns its size. It matches
// fs.ErrNotExist when there is none. What lies in its place without being a file
// stays.
func (d *Directory) Remove(digest v1.Hash) (int64, error) {
	k, err := parseDigest(digest)
	if err != nil {
		return 0, err
	}
	info, err := d.files.stat(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, k.missing()
	}
	if err != nil {
		return 0, fmt.Errorf("store: remove %s: %w", k, err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("store: what lies in the place of %s is no file: %w", k, fs.ErrNotExist)
	}
	if err := d.mark(); err != nil {
		return 0, fmt.Errorf("store: remove %s: %w", k, err)
	}
	if err := d.root.Remove(k.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("store: remove %s: %w", k, err)
	}
	return info.Size(), nil
}

// mark sees to it that the next Store compares its roster with the directory. The
// present one, if there is one, corrects an entry when it meets it.
func (d *Directory) mark() error {
	if d.marked {
		return nil
	}
	f, err := d.root.OpenFile(doubtFile, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	d.marked = true
	return f.Close()
}

// removeRead removes from the place of k the file that read describes, and no
// other: a Store may put a new one there at any moment. A name cannot be removed
// on the condition of what it names, so the file is moved aside and looked at
// there. What should have stayed goes back, over what may have come meanwhile,
// which is as new.
func (d *Directory) removeRead(k key, read fs.FileInfo) error {
	aside, err := d.moveAside(k, read)
	if err != nil {
		return fmt.Errorf("store: remove %s: %w", k, err)
	}
	if aside == "" {
		return nil
	}
	if moved, seen := d.files.stat(aside); seen == nil && !os.SameFile(moved, read) {
		err = d.files.rename(aside, k.path())
	} else {
		err = d.root.Remove(aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a Store that starts sweeps
		return fmt.Errorf("store: remove %s: %w", k, err)
	}
	return nil
}

// moveAside moves the file of k away, if it is the one that read describes, and
// returns where to; "" when it is gone already.
func (d *Directory) moveAside(k key, read fs.FileInfo) (aside string, err error) {
	if err := d.mark(); err != nil {
		return "", err
	}
	for range 3 { // the directory for temporary files may be made anew just now
		now, err := d.files.stat(k.path())
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, read) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if err := d.files.mkdir(tempDir); err != nil {
			return "", err
		}
		aside = path.Join(tempDir, k.hex()+"."+rand.Text())
		err = d.files.rename(k.path(), aside)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return aside, err
		}
	}
	return "", fmt.Errorf("%s comes and goes", tempDir)
}
