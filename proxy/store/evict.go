package store

import (
	"context"
	"time"
)

// surveyBatch is how much of what a survey finds is recorded at a time.
const surveyBatch = 256

// survey compares the roster with the directory. What the roster did not know
// counts as used when it was stored; what is not there is forgotten.
func (d *disk) survey(ctx context.Context) error {
	d.roster.beginSurvey()
	batch := make([]record, 0, surveyBatch)
	flush := func() {
		d.roster.recall(batch)
		batch = batch[:0]
	}
	err := walk(ctx, d.files, visitor{content: func(found record) error {
		batch = append(batch, found)
		if len(batch) == surveyBatch {
			flush()
		}
		return nil
	}})
	flush()
	for at, more := int64(0), err == nil; more; {
		if err = ctx.Err(); err != nil {
			break
		}
		at, more = d.roster.endSurvey(at)
	}
	if err != nil {
		d.roster.doubt()
	}
	return err
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
	_, ok := d.evict()
	return ok
}

// evict is evictOne, and returns what it removed.
func (d *disk) evict() (record, bool) {
	bytes, _ := d.roster.totals()
	d.kept.Store(bytes)
	if d.max <= 0 || bytes+d.arriving.Load() <= d.max {
		return record{}, false
	}
	oldest, ok := d.roster.oldest(d.pinned)
	if !ok {
		return record{}, false
	}
	away := d.displace(oldest.key)
	if away == "" {
		// What cannot be moved now keeps its place in line for later, not its turn.
		d.roster.note(oldest.key, oldest.size, time.Now())
		return record{}, false
	}
	d.discard(away)
	return oldest, true
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
