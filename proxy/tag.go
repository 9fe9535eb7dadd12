package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What a tag names changes, and only its upstream knows. It is asked once for all
// who ask at the same time, and for others than the manifest that is held
// (If-None-Match): 304 confirms that one, 200 is the new state, 404 forgets the
// tag. Nothing else says anything about it.
//
// While the upstream cannot be asked (mayServeStale), what it last confirmed
// stands for a while. Who can be answered so waits for it no longer than
// askPatience; then the tag is in doubt, and not asked about for askPause, or as
// long as the upstream asked to be left alone. After it one request tries, and the
// others need not wait with it: an upstream that hangs costs one wait, not one for
// each request. What the request brings that nobody waited for counts all the
// same: a refusal that comes late is waited for the next time. Doubt is about one
// tag, never about its upstream: or whoever finds one that fails could keep all
// others from being asked.
const (
	askPatience  = 5 * time.Second
	askPause     = 5 * time.Second
	longestPause = 5 * time.Minute
)

// Why a tag is answered without what its upstream says now.
var (
	errSlow   = errors.New("the upstream has not answered within " + askPatience.String())
	errSpared = errors.New("the upstream is not asked just now")
	errScarce = fmt.Errorf("%w: almost nothing is left of its rate limit", errSpared)
)

// demand is how fresh a tag has to be.
type demand struct {
	maxAge   time.Duration // the upstream is asked unless it confirmed the tag within this
	maxStale time.Duration // what it last confirmed stands this long while it cannot be asked
	insist   bool          // it is asked although the tag is in doubt, or little left of its rate limit
}

// resolved is what a tag meant.
type resolved struct {
	*manifest
	// stale is how long ago the upstream confirmed the tag, when it could not
	// be asked now; zero otherwise.
	stale time.Duration
	// unasked is why it could not be asked.
	unasked error
}

// tagDoubt is what came of asking about a tag that could have been answered from
// before, and until when it is not asked about again.
type tagDoubt struct {
	err   error
	until time.Time
}

// byTag resolves tag to a manifest.
func (v *view) byTag(ctx context.Context, tag string, maxAge, maxStale time.Duration) (resolved, error) {
	return v.resolveTag(ctx, tag, demand{maxAge: maxAge, maxStale: maxStale})
}

// resolveTag is byTag with all that can be demanded.
func (v *view) resolveTag(ctx context.Context, tag string, d demand) (resolved, error) {
	held, age := v.lastTagged(ctx, tag)
	switch {
	case held != nil && age < d.maxAge:
		return resolved{manifest: held}, nil
	case held == nil || age >= d.maxStale:
		m, err := v.askTag(ctx, tag, d.maxAge)
		return resolved{manifest: m}, err
	}
	m, err := v.askBriefly(ctx, tag, d)
	if err != nil && mayServeStale(err) {
		return resolved{manifest: held, stale: max(age, time.Second), unasked: err}, nil
	}
	return resolved{manifest: m}, err
}

// lastTagged returns what tag named when the upstream last confirmed it, and how
// long ago that was: longer than anything but for ever, when the clock was set back
// since. It returns nil when that is not known or not held.
func (v *view) lastTagged(ctx context.Context, tag string) (*manifest, time.Duration) {
	known, confirmed, err := v.proxy.index.Tag(ctx, v.name, tag)
	if err != nil || isZero(known) {
		return nil, 0
	}
	held, err := v.held(ctx, known)
	if err != nil {
		return nil, 0
	}
	if age := v.proxy.now().Sub(confirmed); age >= 0 {
		return held, age
	}
	return held, math.MaxInt64 - 1
}

// mayServeStale reports whether err says that the upstream could not be asked,
// rather than that it answered.
func mayServeStale(err error) bool {
	if errors.Is(err, errSlow) || errors.Is(err, errSpared) {
		return true
	}
	if f, ok := errors.AsType[Fault](err); ok {
		return f.Kind() == KindUnavailable || f.Kind() == KindRateLimited
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// askBriefly is askTag for who can be answered with what is known as well.
func (v *view) askBriefly(ctx context.Context, tag string, d demand) (*manifest, error) {
	return briefly(ctx, v, tag, d.insist, func(ctx context.Context) (*manifest, error) {
		return v.askTag(ctx, tag, d.maxAge)
	})
}

// briefly asks the upstream about what goes by name for who can be answered with
// what is known as well: unless it is to be spared, and no longer than askPatience.
// ask keeps the doubt about name.
func briefly[T any](ctx context.Context, v *view, name string, insist bool, ask func(context.Context) (T, error)) (T, error) {
	var zero T
	now := v.proxy.now()
	last, doubted := v.doubts.get(v.tagKey(name))
	switch {
	case doubted && now.Before(last.until) && !insist:
		return zero, fmt.Errorf("%w: %w", errSpared, last.err)
	case !insist && v.registered.Scarce != nil && v.registered.Scarce():
		return zero, errScarce
	case doubted && !mayServeStale(last.err):
		return ask(ctx)
	case doubted:
		v.doubts.add(v.tagKey(name), tagDoubt{last.err, now.Add(askPause)}) // this one tries
	}
	brief, cancel := context.WithTimeoutCause(ctx, askPatience, errSlow)
	defer cancel()
	answer, err := ask(brief)
	if errors.Is(err, errSlow) {
		v.doubtTag(name, err)
	}
	return answer, err
}

// askTag asks the upstream what tag names, once for all who ask at the same time
// for one confirmed within maxAge, and goes on when they leave.
func (v *view) askTag(ctx context.Context, tag string, maxAge time.Duration) (*manifest, error) {
	return flight(ctx, &v.fetches, v.tagKey(tag)+"\x00"+maxAge.String()+v.sincePush(), fetchTime, func(ctx context.Context) (*manifest, error) {
		held, age := v.lastTagged(ctx, tag)
		if held != nil && age < maxAge {
			return held, nil // others have just asked
		}
		asked := v.proxy.now() // not when the answer came: it may have changed on the way
		m, err := v.askManifest(ctx, tag, held, v1.Hash{})
		switch {
		case err == nil:
			v.setTag(ctx, tag, m.digest, asked)
			v.doubts.remove(v.tagKey(tag))
		case errors.Is(err, fs.ErrNotExist):
			// a tag that is gone stays gone, whatever is cached
			if _, _, err := v.proxy.index.Tag(ctx, v.name, tag); err == nil {
				v.setTag(ctx, tag, v1.Hash{}, time.Time{})
			}
			v.doubts.remove(v.tagKey(tag))
		case held != nil:
			v.doubtTag(tag, err)
		}
		return m, err
	})
}

func (v *view) tagKey(tag string) string { return v.name + "\x00" + tag }

func (v *view) setTag(ctx context.Context, tag string, digest v1.Hash, confirmed time.Time) {
	if err := v.proxy.index.SetTag(ctx, v.name, tag, digest, confirmed); err != nil {
		v.proxy.logger.Warn("cannot remember what a tag names", "repository", v.name, "tag", tag, "err", err)
	}
}

// doubtTag remembers that asking about tag led to err. Only what leaves the tag as
// it was keeps others from asking.
func (v *view) doubtTag(tag string, err error) {
	d := tagDoubt{err: err, until: v.proxy.now()}
	if mayServeStale(err) {
		pause := askPause
		if f, ok := errors.AsType[Fault](err); ok {
			pause = min(max(f.RetryAfter(), askPause), longestPause)
		}
		d.until = d.until.Add(pause)
		if _, before := v.doubts.get(v.tagKey(tag)); !before {
			v.proxy.logger.Warn("an upstream cannot be asked about a tag", "repository", v.name, "tag", tag, "err", err)
		}
	}
	v.doubts.add(v.tagKey(tag), d)
}
