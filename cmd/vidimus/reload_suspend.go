package main

import (
	"maps"
	"time"

	"vidimus/verifier"
)

// suspendMissing suspends, without reading anything, the authorities of the
// running revision whose files, keys or the trust root that they depend on, are gone.
// It never takes a suspension back: for that the files must have been read.
func (r *reloader) suspendMissing(seen watched) {
	running := r.current.Load()
	trouble := make(map[string]string)
	maps.Copy(trouble, running.Suspended)
	for _, a := range running.Authorities {
		names := make([]string, 0, len(a.Value.Keys)+1)
		for _, f := range a.Value.Keys {
			names = append(names, f.Name)
		}
		if running.needsRoot(a) {
			names = append(names, running.root(a.Value).Name)
		}
		for _, name := range names {
			if why := seen.files[name].trouble; why != "" && trouble[a.Name] == "" {
				trouble[a.Name] = why
			}
		}
		if s := a.Value.Signer; s != nil && seen.files[s.Key.Name].trouble != "" {
			trouble[signerOf(a.Name)] = seen.files[s.Key.Name].trouble
		}
	}
	r.suspend(trouble)
}

// signerOf is what the signer of an authority goes by among what is suspended. No
// authority is called so.
func signerOf(authority string) string { return "signer of " + authority }

// keyTrouble returns the authorities of the running revision whose files do
// not hold, as reader finds them, the very keys and trust roots that it runs with, and
// why. A file with another key tells that the operator has withdrawn the old one; what
// the new one may do is for a configuration to say that holds.
func keyTrouble(running *revision, reader *reader) map[string]string {
	trouble := make(map[string]string)
	maps.Copy(trouble, running.unreachable())
	for i, a := range running.Authorities {
		if trouble[a.Name] != "" {
			continue // and it has fewer keys than names of keys
		}
		for n, f := range a.Value.Keys {
			if why := withdrawn(reader, f.Name, running.Policy.Authorities[i].Keys[n]); why != "" && trouble[a.Name] == "" {
				trouble[a.Name] = why
			}
		}
		if s := a.Value.Signer; s != nil {
			if _, err := reader.readSecret(s.Key.Name); err != nil {
				trouble[signerOf(a.Name)] = plainError(err)
			}
		}
		root := running.root(a.Value)
		if trouble[a.Name] != "" || root.Name == "" || !running.needsRoot(a) {
			continue
		}
		if why := replaced(reader, root, a.Value.PrivatePKI, running.Policy.Authorities[i].Root); why != "" {
			trouble[a.Name] = why
		}
	}
	return trouble
}

// replaced says why the file of a trust root does not hold the one that runs any more,
// "" when it does.
func replaced(r *reader, c rootConfig, private bool, running *verifier.Root) string {
	now, what := readRoot(r, c, private)
	if what == "" && now.ID() != running.ID() {
		return c.Name + " holds another trust root, and the configuration does not hold"
	}
	return what
}

// withdrawn says why the file name does not vouch for key any more, "" when it
// does.
func withdrawn(r *reader, name string, key verifier.Key) string {
	now, what := readKey(r, name)
	if what == "" && now.ID() != key.ID() {
		return name + " holds another key, and the configuration does not hold"
	}
	return what
}

// suspend makes trouble the suspended authorities of the running revision.
func (r *reloader) suspend(trouble map[string]string) {
	running := r.current.Load()
	if maps.Equal(trouble, running.Suspended) {
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
	r.current.Store(next)
	r.logSuspended(running.Suspended)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Revision, r.status.Since, r.status.Suspended = next.ID, time.Now(), next.Suspended
}

// logSuspended says which authorities of the running revision are suspended that were
// not before, and the other way round.
func (r *reloader) logSuspended(before map[string]string) {
	now := r.current.Load().Suspended
	for name, why := range now {
		if before[name] != why {
			r.config.Log.Error("authority is suspended: its keys vouch for nothing until they are there again, or a configuration holds",
				"authority", name, "reason", why)
		}
	}
	for name := range before {
		if _, still := now[name]; !still {
			r.config.Log.Info("authority is no longer suspended", "authority", name)
		}
	}
}
