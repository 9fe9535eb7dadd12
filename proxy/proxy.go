package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"vidimus/verifier"
)

// Config is what New makes a Proxy of.
type Config struct {
	Store    Store    // required
	Index    Index    // required
	Recorder Recorder // required
	// Logger gets what an operator should see. Nil discards it.
	Logger *slog.Logger
	// AccessLog gets a line for each request. Nil is Logger.
	AccessLog *slog.Logger
	// Metrics counts. Nil counts nothing.
	Metrics *Metrics
	// Now tells the time. Nil is time.Now.
	Now func() time.Time
	// Prefetch has what a manifest references fetched as soon as there may be a
	// signature for it, before a client asks.
	Prefetch bool
}

// Proxy serves the registry API. It is safe for concurrent use.
type Proxy struct {
	store    Store
	index    Index
	recorder Recorder
	logger   *slog.Logger
	access   *slog.Logger
	metrics  *Metrics
	now      func() time.Time

	manifests  *manifestCache
	prefetches *prefetcher // nil: nothing is fetched ahead
	current    atomic.Pointer[live]

	background sync.WaitGroup
	observing  chan struct{} // a place for each verification that nobody waits for
}

// live is a revision in use: what was decided under it is forgotten with it.
type live struct {
	*Revision
	proxy     *Proxy
	byHost    map[string]string
	decisions *decisionCache
	deciding  singleflight.Group
	fetches   singleflight.Group
	blobs     singleflight.Group
	*memories
}

// New returns a Proxy that serves revision.
func New(config Config, revision *Revision) (*Proxy, error) {
	if config.Store == nil || config.Index == nil || config.Recorder == nil {
		return nil, errors.New("proxy: Store, Index and Recorder are required")
	}
	p := &Proxy{
		store: config.Store, recorder: config.Recorder,
		logger: config.Logger, metrics: config.Metrics, now: config.Now,
		manifests: newManifestCache(),
		observing: make(chan struct{}, maxObserving),
	}
	p.index = attentive{config.Index, p}
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	if p.access = config.AccessLog; p.access == nil {
		p.access = p.logger
	}
	if p.now == nil {
		p.now = time.Now
	}
	if config.Prefetch {
		p.prefetches = newPrefetcher()
	}
	if err := p.Use(revision); err != nil {
		return nil, err
	}
	return p, nil
}

// Use makes revision the one under which requests begin from now on. Requests
// under way end under the one that they began with.
func (p *Proxy) Use(revision *Revision) error {
	if revision == nil || revision.Gate == nil {
		return errors.New("proxy: a revision needs a gate")
	}
	if _, ok := revision.Upstreams[revision.DefaultUpstream]; revision.DefaultUpstream != "" && !ok {
		return fmt.Errorf("proxy: default upstream %q is not configured", revision.DefaultUpstream)
	}
	p.current.Store(&live{
		Revision: revision, proxy: p,
		byHost:    hostIndex(revision.Upstreams),
		decisions: newDecisionCache(),
		memories:  newMemories(),
	})
	return nil
}

// Close ends what is fetched ahead, and waits for the verifications that run
// behind answers already given.
func (p *Proxy) Close() {
	if p.prefetches != nil {
		p.prefetches.close()
	}
	p.background.Wait()
}

// maxObserving bounds the verifications that run behind answers already given.
const maxObserving = 4 * verifier.MaxDecisions

// behind runs f after the present answer, with the values but not the end of
// ctx. When too many run already it does not, and says so in the log: observe
// never slows an answer down.
func (p *Proxy) behind(ctx context.Context, f func(context.Context)) {
	select {
	case p.observing <- struct{}{}:
	default:
		p.logger.Warn("too many images are being observed; one was served without a record")
		return
	}
	p.background.Go(func() {
		defer func() { <-p.observing }()
		defer func() {
			if r := recover(); r != nil {
				p.logger.Error("panic behind an answer", "panic", r, "stack", stack())
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*verifier.DecisionTime)
		defer cancel()
		f(ctx)
	})
}

// ServeHTTP serves the registry API under /v2/.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := newRequest(p, p.current.Load(), w, r)
	defer q.end()
	if err := q.serve(); err != nil {
		q.fail(err)
	}
}
