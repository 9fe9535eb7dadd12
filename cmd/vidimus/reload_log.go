package main

import (
	"errors"
	"time"
)

// report logs what is wrong, once for as long as it stays the same.
func (r *reloader) report(err error) {
	text := err.Error()
	if text != r.logged {
		r.logged = text
		r.logFaults(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Fault = text
}

func (r *reloader) logFaults(err error) {
	all, ok := errors.AsType[faults](err)
	if !ok {
		r.config.Log.Error("configuration cannot be read; the running one stays", "error", err)
		return
	}
	lines := make([]string, 0, min(len(all), maxFaults))
	for _, f := range all[:min(len(all), maxFaults)] {
		lines = append(lines, f.String())
	}
	r.config.Log.Error("configuration does not hold; the running one stays", "faults", lines)
}

// logExceptions says what is let through without evidence: at the start, and
// whenever a configuration takes effect or was asked to be read.
func (r *reloader) logExceptions() {
	now := time.Now()
	for _, e := range r.current.Load().Exceptions {
		if e.isActive(now) {
			r.config.Log.Warn("exception lets through without evidence", "match", e.about(), "digests", len(e.Digests),
				"until", momentText(e.Until), "reason", e.Reason, "at", e.where())
		} else {
			r.config.Log.Info("exception ended on "+momentText(e.Until)+", remove it", "match", e.about(), "reason", e.Reason, "at", e.where())
		}
	}
}
