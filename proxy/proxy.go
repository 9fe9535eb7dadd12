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
	// UploadKey seals the uploads that clients go on with. Replicas that share it
	// take over from one another. Nil is a random one, and uploads do not outlive
	// the process.
	UploadKey []byte
	// Locks are those that what signs pushes uses as well. Nil: nobody does.
	Locks *Locks
	// Merge joins signature artifacts. Nil: what would take the place of others'
	// signatures is refused.
	Merge Merge
	// Hooks keeps what registries tell of pushes to them, for what HookWorker returns.
	// Nil: they can tell nothing.
	Hooks Hooks
	// Settle is how long after a tag of signatures was written it is looked at
	// again. Zero is one second.
	Settle time.Duration
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

	sealer   sealer
	uploads  uploadsUnderWay
	pushing  chan struct{} // a place for each manifest that is being pushed
	locks    *Locks
	signings signings
	moves    atomic.Uint64 // tags and manifests that were put, or deleted, through here
	merge    Merge
	settle   time.Duration
	hooks    Hooks

	background tasks
	observing  chan struct{} // a place for each verification that nobody waits for
	keeping    chan struct{} // a place for each small content that is being stored
}

// live is a revision in use: what was decided under it is forgotten with it.
type live struct {
	*Revision
	proxy     *Proxy
	byHost    map[string]string
	decisions *decisionCache
	// pushed counts what was pushed that decisions may depend on. What was asked
	// before does not answer who asks after.
	pushed atomic.Uint64
	// removed counts what was taken away that decisions may rest on.
	removed  atomic.Uint64
	deciding flights
	fetches  flights
	blobs    flights
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
		keeping:   make(chan struct{}, maxKeeping),
		pushing:   make(chan struct{}, maxPushing),
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
	if p.locks, p.merge, p.settle = config.Locks, config.Merge, config.Settle; p.locks == nil {
		p.locks = new(Locks)
	}
	p.hooks = config.Hooks
	if p.settle == 0 {
		p.settle = time.Second
	}
	var err error
	if p.sealer, err = newSealer(config.UploadKey); err != nil {
		return nil, err
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

// Close ends what is fetched ahead, and waits for what runs beside and behind
// answers.
func (p *Proxy) Close() {
	if p.prefetches != nil {
		p.prefetches.close()
	}
	p.background.wait()
}

// maxObserving bounds the verifications that run behind answers already given.
const maxObserving = 4 * verifier.MaxDecisions

// maxKeeping bounds the small contents that are stored while answers go on; each
// has at most verifier.MaxManifestSize bytes.
const maxKeeping = 8

// aside runs f beside the present answer, or before it goes on when so much is
// run already.
func (p *Proxy) aside(f func()) {
	select {
	case p.keeping <- struct{}{}:
	default:
		f()
		return
	}
	p.start(func() {
		defer func() { <-p.keeping }()
		f()
	})
}

// start runs f in the background.
func (p *Proxy) start(f func()) {
	p.background.begin()
	go func() {
		defer p.background.end()
		defer func() {
			if r := recover(); r != nil {
				p.logger.Error("panic behind an answer", "panic", r, "stack", stack())
			}
		}()
		f()
	}()
}

// tasks counts what runs in the background. Unlike a sync.WaitGroup it may be
// waited for while a lookup that nobody waited for begins another one.
type tasks struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil when nobody waits
}

func (t *tasks) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.none != nil {
		close(t.none)
		t.none = nil
	}
}

// wait returns when nothing runs.
func (t *tasks) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	t.mu.Unlock()
	<-none
}

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
	p.start(func() {
		defer func() { <-p.observing }()
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
