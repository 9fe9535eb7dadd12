package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"vidimus/verifier"
)

// maxCauses is how many causes of an inconclusive decision are kept.
const maxCauses = 8

const hintAgain = "try again; when it stays, look for this id in the log"

// errBusy says that a decision found no place among those under way.
var errBusy = errors.New("no place is free")

// doubt makes d inconclusive and returns the error that goes with it. What
// explained says goes to clients, which err's text does not.
func (d *Decision) doubt(explained, hint string, err error, causes ...string) error {
	d.deny(ReasonInconclusive, explained, Remedy{Do: hint})
	d.Remedies = append(d.Remedies, readable(d.Subject, err)...) // it may name hosts: for the record, not for clients
	d.Causes = bounded(causes)
	return fmt.Errorf("decide about %s@%s: %w", d.Subject.Repository, d.Subject.Digest, err)
}

// bounded makes causes fit for a record: each one once and on a line of its
// own, and only so many.
func bounded(causes []string) []string {
	var kept []string
	more := 0
	for _, cause := range causes {
		cause = clean(cause, maxDetail)
		switch {
		case slices.Contains(kept, cause):
		case len(kept) == maxCauses:
			more++
		default:
			kept = append(kept, cause)
		}
	}
	if more > 0 {
		kept = append(kept, fmt.Sprintf("and %d more", more))
	}
	return kept
}

// causesOf tells each failure in full.
func causesOf(failures []verifier.SourceFailure) []string {
	causes := make([]string, 0, len(failures))
	for _, f := range failures {
		causes = append(causes, f.Source+": "+f.Err.Error())
	}
	return causes
}

// joined is all failures as one error, on one line.
func joined(failures []verifier.SourceFailure) error {
	var all error
	for _, f := range failures {
		err := fmt.Errorf("%s: %w", f.Source, f.Err)
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	return all
}

// fault is an error of an upstream that says of what kind it is.
type fault interface {
	error
	Kind() string
}

// explainUnread says what could not be asked, and nothing of err's own words:
// these name hosts and addresses that are no client's business.
func explainUnread(subject Subject, err error) string {
	const could = "could not look for signatures: "
	upstream, _, _ := strings.Cut(subject.Repository, "/")
	upstream = "upstream " + clean(upstream, maxValue)
	kind := ""
	if f, ok := errors.AsType[fault](err); ok {
		kind = f.Kind()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return could + "who asked has left"
	case errors.Is(err, errBusy):
		return could + "too many decisions are under way"
	case errors.Is(err, context.DeadlineExceeded):
		return could + "no answer in time from " + upstream
	}
	switch kind { // the words of proxy.Fault
	case "unavailable":
		return could + upstream + " is unreachable or failing"
	case "unauthorized":
		return could + upstream + " asks for credentials (401)"
	case "forbidden":
		return could + upstream + " does not let Vidimus read them (403)"
	case "rate-limited":
		return could + upstream + " has had too many requests (429)"
	case "tls":
		return could + "no TLS connection to " + upstream + " can be made"
	case "refused":
		return could + upstream + " leads to an address that Vidimus does not dial"
	case "mismatch":
		return could + upstream + " answers with something malformed or too large"
	}
	return could + "they could not be read from " + upstream
}

// suspension says which authorities of p are suspended, and why.
func (s *Set) suspension(p *Policy) (names, causes []string) {
	return s.suspendedOf(p.authorities())
}

// allSuspended is suspension for every authority that there is.
func (s *Set) allSuspended() (names, causes []string) {
	return s.suspendedOf(slices.Sorted(maps.Keys(s.suspended)))
}

func (s *Set) suspendedOf(authorities []string) (names, causes []string) {
	for _, name := range authorities {
		if why, ok := s.suspended[name]; ok {
			names = append(names, name)
			causes = append(causes, clean(fmt.Sprintf("authority %s is suspended: %s", name, why), maxDetail))
		}
	}
	return names, causes
}

// hintSuspended says what would end a suspension: what p's authorities are known by.
func hintSuspended(p *Policy, names []string) string {
	what := "key file"
	if slices.ContainsFunc(names, func(name string) bool { return p.certified[name] != "" }) {
		what = "trust root"
	}
	if len(names) == 1 {
		return "put the " + what + " of " + list(names) + " back"
	}
	return "put the " + what + "s of " + list(names) + " back"
}
