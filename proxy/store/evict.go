package store

import (
	"context"
	"encoding/hex"
	"io/fs"
	"path"
	"time"
)

// surveyBatch is how much of what a survey finds is recorded at a time.
const surveyBatch = 256

// survey compares the roster with the directory. What the roster did not know
// counts as used when it was stored; what is not there is forgotten.
func (d *disk) survey(ctx context.Context) {
	d.roster.beginSurvey()
	batch := make([]record, 0, surveyBatch)
	flush := func() {
		d.roster.recall(batch)
		batch = batch[:0]
	}
	whole := true
	err := d.files.list(blobsDir, func(dir fs.DirEntry) bool {
		if !dir.IsDir() {
			return ctx.Err() == nil
		}
		if err := d.files.list(path.Join(blobsDir, dir.Name()), func(entry fs.DirEntry) bool {
			if found, ok := inspect(dir.Name(), entry); ok {
				batch = append(batch, found)
			}
			if len(batch) == surveyBatch {
				flush()
			}
			return ctx.Err() == nil
		}); err != nil {
			whole = false
			d.log.Warn("stored content cannot be listed", "directory", dir.Name(), "error", err)
		}
		return ctx.Err() == nil
	})
	flush()
	if err != nil {
		d.log.Warn("stored content cannot be listed", "error", err)
	}
	if err != nil || !whole || ctx.Err() != nil {
		d.roster.doubt()
		return
	}
	for at, more := int64(0), true; more && ctx.Err() == nil; {
		at, more = d.roster.endSurvey(at)
	}
}

// inspect reads a directory entry that is where content of that name lies.
func inspect(dir string, entry fs.DirEntry) (record, bool) {
	var it record
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
	it.size, it.used = info.Size(), info.ModTime().UnixNano()
	return it, true
}

// tend writes news of the roster, and keeps the content within its bound, off
// every request's path.
func (d *disk) tend(ctx context.Context) {
	for {
		for d.evictOne() && ctx.Err() == nil {
		}
		select {
		case <-d.kick:
			continue
		case <-d.roster.kick:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(newsDelay)
		select {
		case <-timer.C:
		case <-d.roster.full:
		case <-d.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// evictOne removes the least recently used content when there is too much, and
// reports whether it did.
func (d *disk) evictOne() bool {
	bytes, _ := d.roster.totals()
	d.kept.Store(bytes)
	if d.max <= 0 || bytes+d.arriving.Load() <= d.max {
		return false
	}
	oldest, ok := d.roster.oldest(d.pinned)
	if !ok {
		return false
	}
	away := d.displace(oldest.key)
	if away == "" {
		// What cannot be moved now keeps its place in line for later, not its turn.
		d.roster.note(oldest.key, oldest.size, time.Now())
		return false
	}
	d.discard(away)
	return true
}

// displace moves k out of its place unless somebody has opened it meanwhile.
func (d *disk) displace(k key) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pins[k] > 0 {
		return ""
	}
	return d.takeAway(k)
}
