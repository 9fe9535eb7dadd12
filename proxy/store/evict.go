package store

import (
	"context"
	"encoding/hex"
	"io/fs"
	"path"
	"slices"
)

// found is content that the start-up scan came across.
type found struct {
	key  key
	size int64
	time int64
}

// scan fills the ledger from the file system. What it finds counts as used
// when it was stored, and longer ago than anything that was used meanwhile.
func (d *disk) scan(ctx context.Context) {
	var all []found
	err := d.files.list(blobsDir, func(dir fs.DirEntry) bool {
		if !dir.IsDir() {
			return ctx.Err() == nil
		}
		if err := d.files.list(path.Join(blobsDir, dir.Name()), func(entry fs.DirEntry) bool {
			if it, ok := inspect(dir.Name(), entry); ok {
				all = append(all, it)
			}
			return ctx.Err() == nil
		}); err != nil {
			d.log.Warn("stored content cannot be listed", "directory", dir.Name(), "error", err)
		}
		return ctx.Err() == nil
	})
	if err != nil {
		d.log.Warn("stored content cannot be listed", "error", err)
	}
	slices.SortFunc(all, func(a, b found) int { return int(min(max(b.time-a.time, -1), 1)) })
	for batch := range slices.Chunk(all, 1000) {
		d.mu.Lock()
		for _, it := range batch {
			d.ledger.recall(it.key, it.size)
		}
		d.mu.Unlock()
	}
}

// inspect reads a directory entry that is where content of that name lies.
func inspect(dir string, entry fs.DirEntry) (found, bool) {
	var it found
	name := entry.Name()
	if !entry.Type().IsRegular() || len(name) != hex.EncodedLen(len(it.key)) || name[:2] != dir {
		return it, false
	}
	if _, err := hex.Decode(it.key[:], []byte(name)); err != nil || it.key.hex() != name {
		return it, false
	}
	info, err := entry.Info()
	if err != nil {
		return it, false
	}
	it.size, it.time = info.Size(), info.ModTime().UnixNano()
	return it, true
}

// evict keeps the content within its bound, off every request's path.
func (d *disk) evict(ctx context.Context) {
	for {
		for d.max > 0 && d.evictOne() && ctx.Err() == nil {
		}
		select {
		case <-d.kick:
		case <-ctx.Done():
			return
		}
	}
}

// evictOne removes the least recently used content when there is too much, and
// reports whether it did.
func (d *disk) evictOne() bool {
	away := d.displace()
	if away == "" {
		return false
	}
	d.discard(away)
	return true
}

func (d *disk) displace() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ledger.bytes+d.arriving.Load() <= d.max {
		return ""
	}
	at := d.ledger.oldest()
	if at == nil {
		return ""
	}
	return d.takeAway(at.key)
}
