package access

import (
	"fmt"
	"slices"
	"strings"

	"vidimus/policy"
)

// LintFault is an entry that does not do what it says.
type LintFault struct {
	Index   int // of the entry
	What    string
	Fix     string
	Subject string // the one at fault
}

// Lint finds the subjects of entries that an earlier entry decides about
// everywhere: which may do less, or more, than who wrote the entry believes. It
// does not add up what several earlier entries match.
func Lint(entries []Entry) []LintFault {
	var faults []LintFault
	for i, e := range entries {
		for k, subject := range e.Subjects {
			if slices.Contains(e.Subjects[:k], subject) {
				faults = append(faults, LintFault{i, "names " + subject + " twice", "remove one of the two", subject})
				continue
			}
			for j, before := range entries[:i] {
				if covers(before.Subjects, subject) && policy.Within(e.Match, before.Match) {
					faults = append(faults, LintFault{i,
						fmt.Sprintf("never decides about %s: entry %d (%s) comes before it and matches all that it does", subject, j+1, strings.Join(before.Subjects, ", ")),
						"put it before that one, or remove it", subject})
					break
				}
			}
		}
	}
	return faults
}

// covers reports whether whoever is meant by subject is meant by one of subjects.
func covers(subjects []string, subject string) bool {
	return slices.Contains(subjects, subject) ||
		subject != SubjectAnonymous && slices.Contains(subjects, SubjectAuthenticated)
}
