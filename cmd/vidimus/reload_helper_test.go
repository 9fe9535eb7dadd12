package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// withinPromise is within what a change must take effect.
const withinPromise = 2 * time.Second

// reloading is a reloader that runs in a bubble of synctest, where time passes
// only when everybody waits.
type reloading struct {
	*testing.T
	*reloader
	log lockedBuffer

	mu     sync.Mutex
	used   []*revision
	refuse error // what putting a revision into effect answers
	panics bool  // so does making an upstream's client
	env    map[string]string
}

func (r *reloading) setEnv(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.env[name] = value
}

func (r *reloading) lookup(name string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, ok := r.env[name]
	return value, ok
}

func (r *reloading) setRefusal(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

func (r *reloading) setPanic(panics bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.panics = panics
}

// observer is observers.Upstream.
func (r *reloading) observer(string) func(string, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.panics {
		panic("a bug")
	}
	return nil
}

// use puts a revision into effect.
func (r *reloading) use(next *revision) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse == nil {
		r.used = append(r.used, next)
	}
	return r.refuse
}

const plainConfig = `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}, other: {keys: [other.pub]}}
policies:
  - {match: "docker.io/a/**", require: release}
  - {match: "docker.io/b/**", require: other}
`

// reload runs test beside a reloader of vidimus.yaml, which is plainConfig
// unless files say otherwise.
func reload(t *testing.T, files map[string]string, test func(r *reloading)) {
	t.Helper()
	all := map[string]string{"vidimus.yaml": plainConfig}
	maps.Copy(all, files)
	inDirectory(t, all)
	synctest.Test(t, func(t *testing.T) {
		r := &reloading{T: t, env: map[string]string{"TOKEN": "first"}}
		var err error
		r.reloader, err = openReloader(reloadConfig{
			From:   fromFile("vidimus.yaml"),
			Lookup: r.lookup, Observers: observers{Upstream: r.observer},
			Log: slog.New(slog.NewTextHandler(&r.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go r.reloader.Run(ctx, r.use)
		r.pass(4 * time.Second) // the first reading has been confirmed
		if len(r.revisions()) > 0 {
			t.Fatal("a revision was replaced, and nothing had changed")
		}
		test(r)
	})
}

// revisions returns what was put into effect since the start.
func (r *reloading) revisions() []*revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.used)
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (r *reloading) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantRevisions checks how many revisions were put into effect since the start,
// and that the last one is the running one.
func (r *reloading) wantRevisions(n int) {
	r.Helper()
	used := r.revisions()
	if len(used) != n {
		r.Fatalf("%d revisions were put into effect, want %d; log:\n%s", len(used), n, &r.log)
	}
	if n > 0 && r.Revision() != used[n-1] {
		r.Error("the running revision is not the last that was put into effect")
	}
}

// wantMatches checks the policies that are in effect.
func (r *reloading) wantMatches(want ...string) {
	r.Helper()
	if got := names(r.Revision().loaded); !slices.Equal(got, want) {
		r.Errorf("policies in effect are %v, want %v; log:\n%s", got, want, &r.log)
	}
}

func (r *reloading) wantSuspended(want ...string) {
	r.Helper()
	got := slices.Sorted(maps.Keys(r.Revision().Suspended))
	if !slices.Equal(got, want) {
		r.Errorf("suspended are %v, want %v; log:\n%s", got, want, &r.log)
	}
	if got := slices.Sorted(maps.Keys(r.Status().Suspended)); !slices.Equal(got, want) {
		r.Errorf("status says that %v are suspended, want %v", got, want)
	}
}

func wantMetric(r *reloading, metrics *reloadMetrics, name string, want float64) {
	r.Helper()
	text := fmt.Sprintf("\n%s %v\n", name, want)
	if err := testutil.CollectAndCompare(metrics, strings.NewReader(helpOf(metrics, name)+text), name); err != nil {
		r.Error(err)
	}
}

func helpOf(metrics *reloadMetrics, name string) string {
	help := map[string]string{
		"vidimus_config_last_reload_successful": "Whether the configuration that was last read holds, and so is in effect.",
		"vidimus_authorities_suspended":         "Authorities that can vouch for nothing because a key file cannot be used.",
	}[name]
	return fmt.Sprintf("# HELP %s %s\n# TYPE %s gauge", name, help, name)
}
