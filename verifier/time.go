package verifier

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// maxSkew is how far ahead of our clock a log's or a timestamp authority's may be. In
// the other direction nothing is granted: what has expired has expired.
const maxSkew = time.Minute

// Window is when a key counts: from From on until Until begins. A zero end is none.
type Window struct {
	From, Until time.Time
}

// Contains reports whether at is in the window.
func (w Window) Contains(at time.Time) bool {
	return !at.Before(w.From) && (w.Until.IsZero() || at.Before(w.Until))
}

// datum is a proven time, and what proves it.
type datum struct {
	time.Time
	by   string
	held checkSet // everything that holds, not only what proves this time
}

func loggedAt(t time.Time) datum  { return datum{t, ProvenByLog, heldLog} }
func stampedAt(t time.Time) datum { return datum{t, ProvenByTimestamp, heldTimestamp} }

// earliest returns the earliest of proven times: that it existed is proven from then
// on. One that is yet to come says that a clock is wrong, ours or theirs, and nothing is
// proven.
func earliest(times []datum, now time.Time) (datum, error) {
	if len(times) == 0 {
		return datum{}, errors.New("no time is proven")
	}
	first := times[0]
	for _, t := range times {
		if t.After(now.Add(maxSkew)) {
			return datum{}, fmt.Errorf("its proven time is yet to come: %s", t.UTC().Format(time.RFC3339))
		}
		held := first.held | t.held
		if t.Before(first.Time) {
			first = t
		}
		first.held = held
	}
	return first, nil
}

// times returns the earliest time that log entries and timestamps prove. It is for
// signatures that count without one: an entry or timestamp that does not hold proves
// nothing, and takes nothing away.
func (r *Root) times(p *proven, material root.TrustedMaterial, now time.Time) (datum, error) {
	var times []datum
	var problem error
	err := guarded(func() error {
		if p.old != nil && r.HasLogs() {
			at, err := p.old.time(p, r, material)
			if err == nil {
				times = append(times, loggedAt(at))
			}
			return err
		}
		if !r.HasLogs() || len(p.entity.GetVerificationMaterial().GetTlogEntries()) == 0 {
			return nil
		}
		entries, err := verify.VerifyTlogEntry(p.entity, material, 1, true)
		for _, t := range entries {
			times = append(times, loggedAt(t.Time))
		}
		return err
	})
	if err != nil {
		problem, times = err, nil
	}
	err = guarded(func() error {
		if len(r.material.TimestampingAuthorities()) == 0 {
			return nil
		}
		stamped, faults, err := verify.VerifySignedTimestamp(p.entity, p.stamps(material))
		for _, t := range stamped {
			times = append(times, stampedAt(t.Time))
		}
		return errors.Join(append(faults, err)...)
	})
	if problem == nil {
		problem = err
	}
	if len(times) == 0 && problem != nil {
		return datum{}, problem
	}
	return earliest(times, now)
}

// hasLogged checks that a log of r has an entry about p, whatever time that proves.
func (r *Root) hasLogged(p *proven) error {
	if p.old != nil {
		_, err := p.old.time(p, r, r.material)
		return err
	}
	_, err := verify.VerifyTlogEntry(p.entity, r.material, 1, false)
	return err
}

// timed adds to e, which a key has signed, when that was, as far as the trust roots of
// the key's authorities prove it. Where they differ in that, nothing is proven.
func (v *verification) timed(e Evidence, holder trusted, get func() (*proven, error)) Evidence {
	e.untimed = "no trust root is configured"
	var p *proven
	var err error
	for i, r := range holder.roots {
		if r == nil || !r.HasTimes() {
			return e.untimedFor(e.untimed)
		}
		if i > 0 && r == holder.roots[0] {
			continue
		}
		if p == nil {
			if p, err = get(); err != nil {
				e.untimed = plain(err)
				return e
			}
		}
		at, err := r.times(p, keyMaterial{r.material, holder.key}, v.now)
		switch {
		case err != nil:
			return e.untimedFor(plain(err))
		case i > 0 && !at.Equal(e.signedAt):
			return e.untimedFor("the trust roots of its authorities differ about it")
		}
		e.signedAt, e.timeBy, e.untimed = at.Time, at.by, ""
		e = e.holds(at.held)
	}
	return e
}

// untimedFor returns e with no proven time, and why.
func (e Evidence) untimedFor(why string) Evidence {
	e.signedAt, e.timeBy, e.untimed = time.Time{}, "", why
	e.held &^= heldLog | heldTimestamp
	return e
}

// keyMaterial is a trust root to which one key was added, whatever it is called.
type keyMaterial struct {
	root.TrustedMaterial
	key Key
}

// PublicKeyVerifier implements root.TrustedMaterial.
func (m keyMaterial) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	verifier, err := signature.LoadVerifier(m.key.public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
}
