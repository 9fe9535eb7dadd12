package main

import (
	"fmt"
	"strings"
	"time"
)

// isActive reports whether e lets anything through at now. Who it concerns is
// told everywhere for as long: when it is loaded, in /readyz, in the metrics and
// by config check.
func (e exceptionConfig) isActive(now time.Time) bool { return now.Before(e.Until) }

func (e exceptionConfig) about() string { return strings.Join(e.Match, " ") }

// where is the file and line of e.
func (e exceptionConfig) where() string { return fmt.Sprintf("%s:%d", e.File, e.Line) }

// momentText is how people write t: a day when it is the beginning of one.
func momentText(t time.Time) string {
	t = t.UTC()
	if t.Equal(t.Truncate(24 * time.Hour)) {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}
