package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// disk is a shelf in a directory. For content the file system is the truth;
// the roster only knows sizes and when each was used.
type disk struct {
	root   *os.Root
	locked *os.File
	files  files
	log    *slog.Logger
	max    int64 // 0: unbounded
	limits limits
	roster *roster
	syncer *syncer

	serial   atomic.Uint64 // names temporary files
	arriving atomic.Int64  // bytes in drafts
	kept     atomic.Int64  // bytes held when they were counted last, and committed since

	mu   sync.Mutex  // held over renames to and from blobs, not over other access
	pins map[key]int // how often each content is open

	kick    chan struct{} // wakes eviction
	stop    context.CancelFunc
	workers sync.WaitGroup
}

// openDisk takes the directory, which it makes when there is none, sweeps what a
// dead process left behind and, when one did not close it, begins to look through
// the content.
func openDisk(config Config) (*disk, error) {
	if err := os.MkdirAll(config.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	d, err := takeDisk(config)
	if err != nil {
		return nil, err
	}
	if err := d.prepare(); err != nil {
		d.close()
		return nil, fmt.Errorf("store: prepare %s: %w", config.Directory, err)
	}
	var survey bool
	d.roster, survey = openRoster(d.root, d.log)
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.workers.Go(func() {
		if survey {
			if err := d.survey(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("stored content cannot be listed", "error", err)
			}
		}
		d.tend(ctx)
	})
	d.workers.Go(func() { d.syncer.run(ctx) })
	return d, nil
}

// takeDisk takes the directory for this process, and does nothing in it yet.
func takeDisk(config Config) (*disk, error) {
	root, err := os.OpenRoot(config.Directory)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	locked, err := lock(root)
	if err != nil {
		root.Close()
		return nil, err
	}
	d := &disk{
		root: root, locked: locked, files: newRooted(root), log: config.Logger,
		max: config.MaxSize, limits: config.limits,
		pins: make(map[key]int), kick: make(chan struct{}, 1), stop: func() {},
	}
	if config.files != nil {
		d.files = config.files(d.files)
	}
	d.syncer = newSyncer(d)
	return d, nil
}

// prepare makes the layout, which becomes durable with the first content. Whatever
// is in the temporary directory belonged to a process that is dead, for this one
// has the lock.
func (d *disk) prepare() error {
	if err := d.files.remove(tempDir); err != nil {
		return err
	}
	if err := d.files.mkdir(tempDir); err != nil {
		return err
	}
	return d.files.mkdir(blobsDir)
}

func (d *disk) open(k key) (content, error) {
	d.pin(k)
	begun := time.Now()
	f, info, err := d.openFile(k)
	if err != nil {
		d.unpin(k)
		if errors.Is(err, fs.ErrNotExist) {
			d.roster.note(k, -1, begun) // unless it came to be held since
		}
		return nil, err
	}
	d.roster.note(k, info.Size(), begun)
	return &diskContent{file: f, opened: info, disk: d, key: k}, nil
}

// pin keeps k from eviction until unpin.
func (d *disk) pin(k key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pins[k]++
}

func (d *disk) unpin(k key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pins[k]--; d.pins[k] == 0 {
		delete(d.pins, k)
	}
}

func (d *disk) pinned(k key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pins[k] > 0
}

// openFile opens the file of k. What is in its place without being a file is
// put out of the way.
func (d *disk) openFile(k key) (file, fs.FileInfo, error) {
	f, err := d.files.open(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		// A symbolic link that leads nowhere is in the way, too.
		if info, err := d.files.stat(k.path()); err == nil && !info.Mode().IsRegular() {
			d.clear(k)
		}
		return nil, nil, k.missing()
	}
	if err != nil {
		if info, err := d.files.stat(k.path()); err == nil && !info.Mode().IsRegular() {
			d.clear(k)
			return nil, nil, k.missing()
		}
		return nil, nil, fmt.Errorf("store: open %s: %w", k, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("store: open %s: %w", k, err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		d.clear(k)
		return nil, nil, k.missing()
	}
	return f, info, nil
}

// clear removes what is in the place of k and is no file.
func (d *disk) clear(k key) {
	d.log.Warn("what is no file lies in the place of content and is removed", "digest", k.String())
	d.remove(k, func(now fs.FileInfo) bool { return !now.Mode().IsRegular() })
}

func (d *disk) drop(k key, c io.ReaderAt) {
	switch c := c.(type) {
	case *diskContent:
		d.dropFile(k, c.file)
	case *diskDraft:
		d.dropFile(k, c.file)
	}
}

// dropFile removes f when it is what lies in the place of k.
func (d *disk) dropFile(k key, f file) {
	read, err := f.Stat()
	if err != nil {
		return
	}
	d.remove(k, func(now fs.FileInfo) bool { return sameFile(now, read) || !now.Mode().IsRegular() })
}

// remove removes what lies in the place of k when it is what is meant.
func (d *disk) remove(k key, meant func(now fs.FileInfo) bool) {
	d.mu.Lock()
	away := ""
	if now, err := d.files.stat(k.path()); err == nil && meant(now) {
		away = d.takeAway(k)
	}
	d.mu.Unlock()
	if away != "" {
		d.discard(away)
	}
}

// takeAway moves k out of its place, with the mutex held, and returns what is
// left to discard without it: a rename is quick, the removal of a large file
// is not. It returns nothing when k stays.
func (d *disk) takeAway(k key) string {
	away := d.temp(k)
	if err := d.files.rename(k.path(), away); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("content cannot be removed", "digest", k.String(), "error", err)
		return ""
	}
	d.roster.note(k, -1, time.Now())
	return away
}

// discard removes a temporary file. What stays is swept at the next start.
func (d *disk) discard(name string) {
	if err := d.files.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("temporary file cannot be removed", "name", name, "error", err)
	}
}

// temp is a name that this process has not used before.
func (d *disk) temp(k key) string {
	return path.Join(tempDir, k.hex()+"."+strconv.FormatUint(d.serial.Add(1), 36))
}

func (d *disk) takes(size int64) bool { return d.max <= 0 || size <= d.max }

func (d *disk) stats() (int64, int) {
	bytes, count := d.roster.totals()
	return bytes, int(count)
}

func (d *disk) close() error {
	d.stop()
	d.workers.Wait()
	var err error
	if d.roster != nil {
		err = d.roster.close()
	}
	return errors.Join(err, d.files.close(), d.locked.Close(), d.root.Close())
}

// diskContent is an open file, whose content stays while it is open.
type diskContent struct {
	file
	opened fs.FileInfo
	disk   *disk
	key    key
}

func (c *diskContent) size() int64 { return c.opened.Size() }

func (c *diskContent) found() identity { return identify(c.opened) }

func (c *diskContent) identity() (identity, error) { return identityOf(c.file) }

func (c *diskContent) Close() error {
	c.disk.unpin(c.key)
	return c.file.Close()
}

func identityOf(f file) (identity, error) {
	info, err := f.Stat()
	if err != nil {
		return identity{}, err
	}
	return identify(info), nil
}
