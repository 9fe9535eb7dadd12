package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"vidimus/verifier"
)

// counting is one way in which a signature counts: who made it, for which authority,
// and until when.
type counting struct {
	signer, authority string
	until             time.Time // zero: it does not end
}

// assign lets each signer count for one authority, so that as many authorities as can
// be have a signer of their own, and returns these, sorted. Somebody whose identity is
// in two authorities has not signed twice. What is added to ways takes no authority
// away.
func assign(ways []counting) []string {
	of := make(map[string]string) // by authority: its signer
	var names []string
	for _, w := range ways {
		if !slices.Contains(names, w.authority) {
			names = append(names, w.authority)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		find(ways, name, of, make(map[string]bool))
	}
	return slices.DeleteFunc(names, func(name string) bool { return of[name] == "" })
}

// find finds a signer for an authority, letting others have another one.
func find(ways []counting, authority string, of map[string]string, tried map[string]bool) bool {
	for _, w := range ways {
		if w.authority != authority || tried[w.signer] {
			continue
		}
		tried[w.signer] = true
		taken := ""
		for other, signer := range of {
			if signer == w.signer {
				taken = other
			}
		}
		if taken == "" || find(ways, taken, of, tried) {
			of[authority] = w.signer
			return true
		}
	}
	return false
}

// lasting returns until when ways suffice for so many authorities; zero is for ever.
// They do suffice now.
func lasting(ways []counting, atLeast int) time.Time {
	ends := make([]time.Time, 0, len(ways))
	for _, w := range ways {
		ends = append(ends, w.until)
	}
	slices.SortFunc(ends, func(a, b time.Time) int { return -compareEnds(a, b) })
	for _, end := range slices.CompactFunc(ends, time.Time.Equal) {
		longer := slices.DeleteFunc(slices.Clone(ways), func(w counting) bool { return compareEnds(w.until, end) < 0 })
		if len(assign(longer)) >= atLeast {
			return end
		}
	}
	return time.Time{}
}

// compareEnds orders ends, of which the zero one is the last.
func compareEnds(a, b time.Time) int {
	if a.IsZero() || b.IsZero() {
		return cmp.Compare(boolInt(a.IsZero()), boolInt(b.IsZero()))
	}
	return a.Compare(b)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// earlier returns the earlier of two ends.
func earlier(a, b time.Time) time.Time {
	if compareEnds(a, b) <= 0 {
		return a
	}
	return b
}

// timely says whether e, which authority has signed, counts at a moment, and until
// when; or why it does not: too old for maxAge, too young for minAge, or made when its
// key does not count. maxAge and minAge want a proven time. The window of a key is
// compared with that, and without one with the moment itself, so that who has stolen an
// old key cannot sign with it any more.
func (p *Policy) timely(e verifier.Evidence, authority string, at time.Time) (until time.Time, why string) {
	if until, why = p.lasts(e, e.KeyID(), authority, at); why != "" {
		return until, why
	}
	signed, proven := e.SignedAt()
	if (p.MaxAge > 0 || p.MinAge > 0) && !proven {
		return until, "without a proven time, which the policy asks for: " + clean(e.Untimed(), maxDetail)
	}
	if p.MaxAge > 0 {
		end := signed.Add(p.MaxAge)
		if !at.Before(end) {
			return until, fmt.Sprintf("on %s, longer ago than %s", day(signed), span(p.MaxAge))
		}
		until = earlier(until, end)
	}
	if begin := signed.Add(p.MinAge); p.MinAge > 0 && at.Before(begin) {
		return until, fmt.Sprintf("on %s, less than %s ago: it counts from %s on", moment(signed), span(p.MinAge), moment(begin))
	}
	return until, ""
}

// lasts says until when what this key, or a certificate when there is none, has signed
// counts for an authority; zero is for ever. Why not, when it does not, is for after
// "signed".
func (p *Policy) lasts(e verifier.Evidence, keyID, authority string, at time.Time) (until time.Time, why string) {
	signed, proven := e.SignedAt()
	until = e.Until()
	if !until.IsZero() && !at.Before(until) {
		return until, "with a certificate that has ended on " + day(until)
	}
	if window, ok := p.windows[authority][keyID]; ok && keyID != "" {
		moment := signed
		if !proven {
			moment = at
			until = earlier(until, window.Until)
		}
		if !window.Contains(moment) {
			return until, explainWindow(window, signed, proven, e.Untimed())
		}
	}
	return until, ""
}

func explainWindow(w verifier.Window, signed time.Time, proven bool, untimed string) string {
	counts := "always"
	switch {
	case w.Until.IsZero():
		counts = "from " + day(w.From) + " on"
	case w.From.IsZero():
		counts = "until " + day(w.Until)
	default:
		counts = "from " + day(w.From) + " until " + day(w.Until)
	}
	if !proven {
		return fmt.Sprintf("with a key that counts %s, and at no proven time: %s", counts, clean(untimed, maxDetail))
	}
	return fmt.Sprintf("on %s, with a key that counts %s", day(signed), counts)
}

func day(t time.Time) string    { return t.UTC().Format(time.DateOnly) }
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span is a duration as the configuration has it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// readsTime reports whether what p decides depends on when something was signed.
func (p *Policy) readsTime() bool { return p.MaxAge > 0 || p.MinAge > 0 }
