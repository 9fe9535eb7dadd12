package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// diskDraft is content in a temporary file. One file serves its writer and all
// readers, so that it may be renamed and removed under them.
type diskDraft struct {
	file
	disk    *disk
	key     key
	name    string
	max     int64 // 0: unbounded
	written int64
	settled bool // committed or discarded
	pinned  bool // once committed: who read the draft read what is held
}

func (d *disk) draft(k key, size int64) (draft, error) {
	name := d.temp(k)
	f, err := d.files.create(name)
	if err != nil {
		d.discard(name)
		return nil, err
	}
	limit := d.max
	if size < 0 && (limit <= 0 || limit > d.limits.unsized) {
		limit = d.limits.unsized
	}
	return &diskDraft{file: f, disk: d, key: k, name: name, max: limit}, nil
}

func (f *diskDraft) Write(p []byte) (int, error) {
	if f.max > 0 && f.written+int64(len(p)) > f.max {
		return 0, errFull
	}
	n, err := f.file.Write(p)
	f.written += int64(n)
	f.disk.arrived(int64(n))
	return n, err
}

// commit renames the file to its digest, and has it made durable soon: until
// then a crash of the machine may lose it, or leave wrong bytes in its place,
// which are found out when they are first hashed.
func (f *diskDraft) commit() (identity, error) {
	if err := f.disk.admit(f); err != nil {
		f.discard()
		return identity{}, fmt.Errorf("store: keep %s: %w", f.key, err)
	}
	f.settle()
	f.disk.syncer.add(f.key)
	return identityOf(f.file)
}

// admit gives the draft its place. What may be there is replaced: it was found
// wanting, or is the same.
func (d *disk) admit(f *diskDraft) error {
	if info, err := d.files.stat(f.key.path()); err == nil && !info.Mode().IsRegular() {
		d.clear(f.key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.files.rename(f.name, f.key.path())
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.files.mkdir(f.key.dir()); err != nil {
			return err
		}
		err = d.files.rename(f.name, f.key.path())
	}
	if err != nil {
		return err
	}
	d.roster.note(f.key, f.written, time.Now())
	d.kept.Add(f.written)
	d.pins[f.key]++
	f.pinned = true
	return nil
}

func (f *diskDraft) discard() {
	if f.settled {
		return
	}
	f.settle()
	f.disk.discard(f.name)
}

// settle ends the draft's being counted as arriving.
func (f *diskDraft) settle() {
	f.settled = true
	f.disk.arrived(-f.written)
}

// Close closes the file. A draft that nobody committed leaves nothing.
func (f *diskDraft) Close() error {
	f.discard()
	if f.pinned {
		f.disk.unpin(f.key)
	}
	return f.file.Close()
}

// arrived counts bytes in drafts and wakes eviction when they, and what is
// held, are too much.
func (d *disk) arrived(n int64) {
	if d.arriving.Add(n)+d.kept.Load() > d.max && d.max > 0 {
		signal(d.kick)
	}
}
