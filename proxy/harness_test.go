package proxy_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/prometheus/client_golang/prometheus"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
	"vidimus/proxy/upstream"
	"vidimus/verifier"
)

// settings are what a test may change of its world before it begins.
type settings struct {
	ceiling     policy.Enforcement
	authorities []verifier.Authority
	policies    []policy.Policy
	exceptions  []policy.Exception
	revoked     []v1.Hash

	directory     string // of the store; empty: in memory
	requireRecord bool
	quiet         bool // no log: for benchmarks
	prefetch      bool
	uploadKey     []byte
	hub           *lying.Registry // what docker.io is; nil: a registry of its own

	client   func(config *upstream.Config)                      // changes the upstreams' clients
	gate     func(proxy.Gate) proxy.Gate                        // stands before the evaluator
	store    func(*store.Store) proxy.Store                     // stands before the store
	index    func(*store.Store) proxy.Index                     // stands before the index
	origin   func(name string, u proxy.Upstream) proxy.Upstream // stands before an upstream
	revision func(*proxy.Revision)
}

// world is a proxy joined as the program joins it, before upstreams that lie on
// command: ghcr.io is up, docker.io is hub. By default ghcr.io/acme/** and
// docker.io/** require a signature by key, ghcr.io/open/** is allowed
// unverified, ghcr.io/old/** is denied, and no policy fits the rest.
type world struct {
	t        testing.TB
	settings settings

	up, hub      *lying.Registry
	key, foreign lying.Key // foreign is nobody's
	clock        *clock
	records      *records
	log          *lines
	registry     *prometheus.Registry
	metrics      *proxy.Metrics

	store  *store.Store
	proxy  *proxy.Proxy
	server *httptest.Server
	web    *http.Client
}

func newWorld(t testing.TB, change ...func(w *world, s *settings)) *world {
	t.Helper()
	w := &world{
		t: t, up: lying.Start(t), key: lying.P256(), foreign: lying.P256(),
		clock:   &clock{at: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)},
		records: &records{}, log: &lines{},
	}
	w.settings.authorities = []verifier.Authority{authority(t, "release", w.key)}
	w.settings.policies = []policy.Policy{
		{Name: "acme", Match: match(t, "ghcr.io/acme/**"), Require: policy.Require{AtLeast: 1, Of: []string{"release"}}},
		{Name: "hub", Match: match(t, "docker.io/**"), Require: policy.Require{AtLeast: 1, Of: []string{"release"}}},
		{Name: "open", Match: match(t, "ghcr.io/open/**"), AllowUnverified: true},
		{Name: "old", Match: match(t, "ghcr.io/old/**"), Deny: "moved to ghcr.io/acme"},
	}
	for _, f := range change {
		f(w, &w.settings)
	}
	if w.hub = w.settings.hub; w.hub == nil {
		w.hub = lying.Start(t)
	}
	t.Cleanup(w.stop)
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.store, err = store.Open(store.Config{Directory: w.settings.directory}); err != nil {
		w.t.Fatal(err)
	}
	w.registry = prometheus.NewRegistry()
	if w.metrics, err = proxy.NewMetrics(w.registry); err != nil {
		w.t.Fatal(err)
	}
	var held proxy.Store = w.store
	if w.settings.store != nil {
		held = w.settings.store(w.store)
	}
	var known proxy.Index = w.store
	if w.settings.index != nil {
		known = w.settings.index(w.store)
	}
	logger := slog.New(slog.NewJSONHandler(w.log, nil))
	if w.settings.quiet {
		logger = nil
	}
	w.proxy, err = proxy.New(proxy.Config{
		Store: held, Index: known, Recorder: w.records, Metrics: w.metrics, Now: w.clock.now, Logger: logger, Prefetch: w.settings.prefetch,
		UploadKey: w.settings.uploadKey, Settle: time.Millisecond,
	}, w.revision("one"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = httptest.NewServer(w.proxy)
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.web = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (w *world) stop() {
	w.web.CloseIdleConnections()
	w.server.Close()
	w.proxy.Close()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart is a new process over the same directory.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// use changes the settings and makes them the proxy's next revision.
func (w *world) use(id string, change func(s *settings)) {
	w.t.Helper()
	change(&w.settings)
	if err := w.proxy.Use(w.revision(id)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) revision(id string) *proxy.Revision {
	w.t.Helper()
	s := w.settings
	set, err := policy.New(policy.Config{
		Revision: id, Enforcement: s.ceiling, Authorities: s.authorities, Policies: s.policies,
		Exceptions: s.exceptions, Revoked: s.revoked, Now: w.clock.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var gate proxy.Gate = policy.NewEvaluator(set, verifier.Sources(), policy.Options{Now: w.clock.now})
	if s.gate != nil {
		gate = s.gate(gate)
	}
	revision := &proxy.Revision{
		ID: id, Gate: gate, TagTTL: 30 * time.Second, MaxStale: time.Hour, RequireRecord: s.requireRecord,
		Upstreams: map[string]proxy.Registered{"ghcr.io": w.registered("ghcr.io", w.up), "docker.io": w.registered("docker.io", w.hub)},
	}
	if s.revision != nil {
		s.revision(revision)
	}
	return revision
}

func (w *world) registered(name string, registry *lying.Registry) proxy.Registered {
	w.t.Helper()
	config := upstream.Config{Name: name, URL: registry.URL}
	metrics := w.metrics // a lookup that nobody waits for may end after a restart
	config.Observe = func(status string, remaining int) { metrics.UpstreamAnswered(name, status, remaining) }
	if w.settings.client != nil {
		w.settings.client(&config)
	}
	client, err := upstream.New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	var origin proxy.Upstream = client
	if w.settings.origin != nil {
		origin = w.settings.origin(name, client)
	}
	return proxy.Registered{Upstream: origin, URLHost: registry.Host, Scarce: client.Scarce, Push: client}
}

func onDisk(w *world, s *settings) { s.directory = w.t.TempDir() }

func enforcing(e policy.Enforcement) func(*world, *settings) {
	return func(_ *world, s *settings) { s.ceiling = e }
}

func match(t testing.TB, patterns ...string) policy.Match {
	t.Helper()
	m, err := policy.ParseMatch(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func authority(t testing.TB, name string, keys ...lying.Key) verifier.Authority {
	t.Helper()
	a := verifier.Authority{Name: name}
	for _, key := range keys {
		parsed, err := verifier.ParseKey(key.PublicPEM())
		if err != nil {
			t.Fatal(err)
		}
		a.Keys = append(a.Keys, parsed)
	}
	return a
}

// clock is the time, which passes when the test says so.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// records is a Recorder that a test looks into, and that fails on command.
type records struct {
	mu   sync.Mutex
	all  []proxy.Record
	fail error
}

func (r *records) Record(_ context.Context, record proxy.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.all = append(r.all, record)
	return nil
}

func (r *records) list() []proxy.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func (r *records) breakWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// lines is a writer that goroutines share.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ io.Writer = (*lines)(nil)
