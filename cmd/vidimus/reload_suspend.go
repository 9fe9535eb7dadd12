package main

import (
	"maps"
	"time"
)

// suspendMissing suspends, without reading anything, the authorities of the
// running revision whose key files are gone. It never takes a suspension back:
// for that the keys must have been read.
func (r *reloader) suspendMissing(seen watched) {
	running := r.current.Load()
	trouble := maps.Clone(running.Suspended)
	for _, a := range running.Authorities {
		for _, f := range a.Value.Keys {
			if now := seen.files[f.Name]; trouble[a.Name] == "" && (now.missing || now.error) {
				if trouble == nil {
					trouble = make(map[string]string)
				}
				trouble[a.Name] = f.Name + " is gone"
			}
		}
	}
	r.suspend(trouble)
}

// keyTrouble returns the authorities of the running revision whose key files
// hold no keys, as reader finds them, and why.
func keyTrouble(running *revision, reader *reader) map[string]string {
	trouble := make(map[string]string)
	for _, a := range running.Authorities {
		for _, f := range a.Value.Keys {
			if _, what := readKey(reader, f.Name); what != "" && trouble[a.Name] == "" {
				trouble[a.Name] = what
			}
		}
	}
	return trouble
}

// suspend makes trouble the suspended authorities of the running revision.
func (r *reloader) suspend(trouble map[string]string) {
	running := r.current.Load()
	if sameKeys(trouble, running.Suspended) {
		return
	}
	next, err := running.loaded.build(r.config.Observers, trouble, running)
	if err == nil {
		err = r.use(next)
	}
	if err != nil {
		r.config.Log.Error("suspending authorities", "error", err)
		return
	}
	for name, why := range trouble {
		if _, before := running.Suspended[name]; !before {
			r.config.Log.Error("authority is suspended: its keys vouch for nothing until the file is back", "authority", name, "reason", why)
		}
	}
	for name := range running.Suspended {
		if _, still := trouble[name]; !still {
			r.config.Log.Info("authority is no longer suspended", "authority", name)
		}
	}
	r.current.Store(next)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Revision, r.status.Since, r.status.Suspended = next.ID, time.Now(), next.Suspended
}

func sameKeys(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			return false
		}
	}
	return true
}
