package main

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// logged returns how often the log has a text since it was this long.
func (r *reloading) logged(since int, text string) int {
	return strings.Count(r.log.String()[since:], text)
}

func TestReloadThatIsAskedForSaysWhatCameOfIt(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		ask := func(want string) {
			r.Helper()
			since := len(r.log.String())
			r.Reload()
			synctest.Wait()
			if n := r.logged(since, want); n != 1 {
				r.Errorf("%q was logged %d times, want once:\n%s", want, n, r.log.String()[since:])
			}
		}
		ask(`level=INFO msg="configuration read again, unchanged"`)
		ask(`msg="configuration read again, unchanged"`)
		since := len(r.log.String())
		r.pass(time.Minute)
		if r.log.String()[since:] != "" {
			r.Errorf("nobody asked, nothing changed, and the log says:\n%s", r.log.String()[since:])
		}
		writeFile(r.T, "vidimus.yaml", "version: 1\nupstraems: {}\n")
		ask("upstraems: is not a key that is known here")
		ask("upstraems: is not a key that is known here")
		os.Remove("vidimus.yaml")
		ask("vidimus.yaml does not exist")
		writeFile(r.T, "vidimus.yaml", changedConfig)
		ask("configuration is in effect")
	})
}

// TestExceptionsAreLoud runs in the year 2000, where synctest's time begins.
func TestExceptionsAreLoud(t *testing.T) {
	digest := `"sha256:` + strings.Repeat("0", 64) + `"`
	config := plainConfig + `
exceptions:
  - {match: [docker.io/a/x, "docker.io/b/**"], digests: [` + digest + `], until: 2000-01-01T01:00:00Z, reason: INC-1}
  - {match: docker.io/a/y, digests: [` + digest + `], until: 1999-12-01, reason: INC-2}
`
	const (
		active = `level=WARN msg="exception lets through without evidence" match="docker.io/a/x docker.io/b/**" digests=1 until=2000-01-01T01:00:00Z reason=INC-1 at=vidimus.yaml:10`
		ended  = `level=INFO msg="exception ended on 1999-12-01, remove it" match=docker.io/a/y reason=INC-2 at=vidimus.yaml:11`
	)
	reload(t, map[string]string{"vidimus.yaml": config}, func(r *reloading) {
		want := func(when string, since int) {
			r.Helper()
			if r.logged(since, active) != 1 || r.logged(since, ended) != 1 {
				r.Errorf("%s the exceptions were not logged once each:\n%s", when, r.log.String()[since:])
			}
		}
		want("at the start", 0)
		since := len(r.log.String())
		writeFile(r.T, "vidimus.yaml", config+"enforcement: warn\n")
		r.pass(withinPromise)
		want("when a configuration took effect", since)
		since = len(r.log.String())
		r.Reload()
		synctest.Wait()
		want("when it was asked to be read", since)
		r.pass(time.Hour)
		since = len(r.log.String())
		r.Reload()
		synctest.Wait()
		if r.logged(since, "lets through") != 0 || r.logged(since, "exception ended on 2000-01-01T01:00:00Z, remove it") != 1 {
			r.Errorf("after its end the exception is logged so:\n%s", r.log.String()[since:])
		}
	})
}
