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
)

// disk is a shelf in a directory. For content the file system is the truth;
// the ledger only knows sizes and the order of use.
type disk struct {
	root   *os.Root
	locked *os.File
	files  files
	log    *slog.Logger
	max    int64 // 0: unbounded
	limits limits

	serial   atomic.Uint64 // names temporary files
	arriving atomic.Int64  // bytes in drafts

	mu     sync.Mutex // held over renames to and from blobs, not over other access
	ledger *ledger[key]

	kick    chan struct{} // wakes eviction
	stop    context.CancelFunc
	workers sync.WaitGroup
}

// openDisk takes the directory, sweeps what a dead process left behind and
// begins to look through the content.
func openDisk(config Config) (_ *disk, err error) {
	if err := os.MkdirAll(config.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	root, err := os.OpenRoot(config.Directory)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	locked, err := lock(root)
	if err != nil {
		return nil, err
	}
	d := &disk{
		root: root, locked: locked, files: rooted{root}, log: config.Logger,
		max: config.MaxSize, limits: config.limits,
		ledger: newLedger[key](), kick: make(chan struct{}, 1),
	}
	if config.files != nil {
		d.files = config.files(d.files)
	}
	if err := d.prepare(); err != nil {
		locked.Close()
		return nil, fmt.Errorf("store: prepare %s: %w", config.Directory, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.workers.Go(func() {
		d.scan(ctx)
		d.evict(ctx)
	})
	return d, nil
}

// prepare makes the layout. Whatever is in the temporary directory belonged to
// a process that is dead, for this one has the lock.
func (d *disk) prepare() error {
	if err := d.files.remove(tempDir); err != nil {
		return err
	}
	if err := d.files.mkdir(tempDir); err != nil {
		return err
	}
	if err := d.files.mkdir(blobsDir); err != nil {
		return err
	}
	return errors.Join(d.files.syncDir(path.Dir(blobsDir)), d.files.syncDir("."))
}

func (d *disk) open(k key) (content, error) {
	d.mu.Lock()
	pin := d.ledger.pin(k)
	d.mu.Unlock()
	f, size, err := d.openFile(k)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && pin.kept {
			d.reconcile(k, pin)
		}
		d.ledger.unpin(pin)
		return nil, err
	}
	if pin.at != nil {
		d.ledger.note(k, size)
	}
	return &diskContent{file: f, length: size, disk: d, pin: pin}, nil
}

func (d *disk) unpin(pin *line[key]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ledger.unpin(pin)
}

// reconcile forgets a line whose file has gone without our doing.
func (d *disk) reconcile(k key, at *line[key]) {
	if _, err := d.files.stat(k.path()); errors.Is(err, fs.ErrNotExist) {
		d.ledger.forget(at)
	}
}

// openFile opens the file of k. What is in its place without being a file is
// put out of the way.
func (d *disk) openFile(k key) (file, int64, error) {
	f, err := d.files.open(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		// A symbolic link that leads nowhere is in the way, too.
		if info, err := d.files.stat(k.path()); err == nil && !info.Mode().IsRegular() {
			d.clear(k)
		}
		return nil, 0, k.missing()
	}
	if err != nil {
		if info, err := d.files.stat(k.path()); err == nil && !info.Mode().IsRegular() {
			d.clear(k)
			return nil, 0, k.missing()
		}
		return nil, 0, fmt.Errorf("store: open %s: %w", k, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("store: open %s: %w", k, err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		d.clear(k)
		return nil, 0, k.missing()
	}
	return f, info.Size(), nil
}

// clear removes what is in the place of k and is no file.
func (d *disk) clear(k key) {
	d.log.Warn("what is no file lies in the place of content and is removed", "digest", k.String())
	d.remove(k, func(now fs.FileInfo) bool { return !now.Mode().IsRegular() })
}

func (d *disk) drop(k key, c io.ReaderAt) {
	var f file
	switch c := c.(type) {
	case *diskContent:
		f = c.file
	case *diskDraft:
		f = c.file
	default:
		return
	}
	read, err := f.Stat()
	if err != nil {
		return
	}
	d.remove(k, func(now fs.FileInfo) bool { return os.SameFile(now, read) || !now.Mode().IsRegular() })
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
	if at := d.ledger.lines[k]; at != nil {
		d.ledger.forget(at)
	}
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
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.bytes, d.ledger.count
}

func (d *disk) close() error {
	d.stop()
	d.workers.Wait()
	return errors.Join(d.locked.Close(), d.root.Close())
}

// diskContent is an open file and the pin that keeps it from eviction.
type diskContent struct {
	file
	length int64
	disk   *disk
	pin    *line[key]
}

func (c *diskContent) size() int64 { return c.length }

func (c *diskContent) Close() error {
	c.disk.unpin(c.pin)
	return c.file.Close()
}
