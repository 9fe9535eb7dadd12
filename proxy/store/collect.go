package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
)

// Collected is what Collect did.
type Collected struct {
	Swept        int // temporary files that a dead process left behind
	SweptBytes   int64
	Evicted      int
	EvictedBytes int64
	Held         Stats // what is left
}

// Collect does at once, and by itself, what a Store does when it opens
// config.Directory and in the background then: it sweeps temporary files,
// compares the roster with the directory, and evicts the least recently used
// content above config.MaxSize; evicted, unless it is nil, is told of each.
// It takes the directory for as long as it runs: ErrInUse says that another
// process has it, and is doing all that. It returns what was done, also with an
// error.
func Collect(ctx context.Context, config Config, evicted func(Content)) (did Collected, err error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	layout, err := openLayout(config.Directory) // lest one is made
	if err != nil {
		return did, err
	}
	layout.Close()
	d, err := takeDisk(config)
	if err != nil {
		return did, err
	}
	defer func() { err = errors.Join(err, d.entrust(), d.close()) }()
	if err := d.sweep(&did); err != nil {
		return did, fmt.Errorf("store: sweep %s: %w", config.Directory, err)
	}
	d.roster, _ = openRoster(d.root, config.Logger)
	if err := d.survey(ctx); err != nil {
		return did, err
	}
	for ctx.Err() == nil {
		gone, ok := d.evict()
		if !ok {
			break
		}
		did.Evicted++
		did.EvictedBytes += gone.size
		if evicted != nil {
			evicted(gone.content())
		}
	}
	bytes, count := d.stats()
	did.Held = Stats{Bytes: bytes, Contents: count}
	switch {
	case ctx.Err() != nil:
		return did, context.Cause(ctx)
	case d.roster.failed():
		return did, errors.New("store: the roster of what is held cannot be read or written")
	case d.max > 0 && bytes > d.max:
		return did, fmt.Errorf("store: %d bytes are held where %d may be, and nothing more can be removed", bytes, d.max)
	}
	return did, nil
}

// sweep is prepare, and counts what was in the way.
func (d *disk) sweep(did *Collected) error {
	err := d.files.list(tempDir, func(entry fs.DirEntry) bool {
		did.Swept++
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			did.SweptBytes += info.Size()
		}
		return true
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.prepare()
}

// entrust leaves the directory to the user of the Store.
func (d *disk) entrust() error {
	info, err := d.root.Lstat(blobsDir)
	if err == nil {
		err = entrust(d.root, info, lockFile, tempDir, rosterFile)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
