package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/hook"
	"vidimus/proxy/store"
	"vidimus/signer"
)

// Limits of a connection. An answer has no limit as a whole, for a blob takes
// as long as it takes; the proxy bounds each piece of it.
const (
	headerPatience = 10 * time.Second
	bodyPatience   = 2 * time.Minute // of a body that nobody wants; who reads one says how long it waits
	idlePatience   = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// serverConfig is what newServer makes a server of.
type serverConfig struct {
	From   source
	Lookup func(string) (string, bool) // of the environment
	Stdout io.Writer                   // for decisions.path "-"
	Stderr io.Writer                   // for the log
	Pprof  bool                        // profiles on the metrics listener, which must be on loopback then
	Drain  time.Duration               // how long answers may go on after the end was asked for
	// Listen opens the listener of the registry API; nil: net.Listen at
	// http.addr.
	Listen func(addr string) (net.Listener, error)
}

// server is one running Vidimus: every part joined.
type server struct {
	config serverConfig
	logs
	reloader  *reloader
	roots     *rootRefresher
	store     *store.Store
	decisions *proxy.DecisionLog
	hooks     *hook.Queue
	proxy     *proxy.Proxy
	metrics   *prometheus.Registry
	listeners []listening
	locks     proxy.Locks // of tags that signatures are written to
	draining  atomic.Bool
}

// listening is a listener and what answers on it.
type listening struct {
	name string
	net.Listener
	server *http.Server
	public bool // drained first
}

// newServer reads the configuration, opens the store and the listeners. The
// caller runs or closes what it returns.
func newServer(c serverConfig) (_ *server, err error) {
	c.From = remembering(c.From, new(privateKeys))
	l, err := load(c.From, c.Lookup, time.Now())
	if err != nil {
		return nil, configExit(err)
	}
	s := &server{config: c, logs: newLogs(l.Log, c.Stderr), metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	metrics, err := proxy.NewMetrics(s.metrics)
	if err != nil {
		return nil, err
	}
	s.roots = &rootRefresher{log: s.log, fetch: sigstoreTUF().fetcher(func() *Config { return &s.reloader.Revision().Config })}
	s.reloader, err = openReloader(reloadConfig{
		From: s.roots.wrap(c.From), Lookup: c.Lookup, Log: s.log,
		Observers: observers{
			Upstream: func(name string) func(string, int) {
				return func(status string, remaining int) { metrics.UpstreamAnswered(name, status, remaining) }
			},
			Decision: func(_ policy.Decision, took time.Duration) { metrics.Verified(took) },
			Locks:    &s.locks,
		},
	})
	if err != nil {
		return nil, configExit(err)
	}
	s.log.Info("starting", "version", version(), "revision", s.reloader.Revision().ID)
	if err := s.open(metrics); err != nil {
		return nil, err
	}
	return s, s.listen()
}

// cannotOpen says what to do about a cache that cannot be opened.
func cannotOpen(directory string, err error) error {
	switch {
	case directory == "":
		return fmt.Errorf("cache: %w", err)
	case errors.Is(err, store.ErrInUse):
		return fmt.Errorf("cache.directory: %w; each server needs one of its own", err)
	}
	return fmt.Errorf("cache.directory: %w; name one that the user of this process may write, or none to keep content in memory", err)
}

// open opens what the proxy keeps things in, and the proxy.
func (s *server) open(metrics *proxy.Metrics) error {
	running := s.reloader.Revision()
	maxSize, err := running.Cache.MaxSize.bytes(running.Cache.Directory.Name)
	if err != nil {
		return err
	}
	s.store, err = store.Open(store.Config{Directory: running.Cache.Directory.Name, MaxSize: maxSize, Logger: s.log})
	if err != nil {
		return cannotOpen(running.Cache.Directory.Name, err)
	}
	if path := running.Decisions.Path.Name; path == "-" {
		s.decisions = proxy.NewDecisionLog(s.config.Stdout)
	} else if s.decisions, err = proxy.OpenDecisionLog(path, running.Decisions.MaxSize); err != nil {
		return fmt.Errorf("decisions.path: %w; let this process write it, or name another file or -", err)
	}
	directory := running.Cache.Directory.Name
	if directory != "" {
		directory = filepath.Join(directory, "hooks")
	}
	if s.hooks, err = hook.Open(directory, s.log); err != nil {
		return fmt.Errorf("cache.directory: %w; let this process read and write it", err)
	}
	s.proxy, err = proxy.New(proxy.Config{
		Store: s.store, Index: s.store, Recorder: s.decisions, Logger: s.log, AccessLog: s.access, Metrics: metrics, Prefetch: true,
		Locks: &s.locks, Merge: signer.Union, UploadKey: running.UploadKey, Hooks: s.hooks,
	}, running.Proxy)
	if err != nil {
		return err
	}
	return s.register()
}

func (s *server) register() error {
	for _, c := range []prometheus.Collector{
		newReloadMetrics(s.reloader),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vidimus_cache_bytes", Help: "Content that the store holds."},
			func() float64 { return float64(s.store.Stats().Bytes) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vidimus_hook_queued", Help: "Pushes that registries told of and that are not signed yet."},
			func() float64 { return float64(s.hooks.Len()) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := s.metrics.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// listen opens every listener, so that nothing is said to be ready that is not.
func (s *server) listen() error {
	running := s.reloader.Revision()
	open := s.config.Listen
	if open == nil {
		open = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	api, err := open(running.HTTP.Addr.Value)
	if err != nil {
		return running.cannotListen("http.addr", "--addr", err)
	}
	if running.TLS != nil {
		api = tls.NewListener(api, s.tlsConfig())
	}
	s.add("registry", api, s.proxy, true)
	if addr := running.Metrics.Addr; addr != "" {
		if s.config.Pprof && !isLoopbackAddr(addr) {
			return misuse(fmt.Errorf("--pprof: profiles are given on loopback only, and %s is %s", running.setting("metrics.addr", "--metrics-addr"), addr))
		}
		if err := s.listenAt("metrics", addr, s.health()); err != nil {
			return running.cannotListen("metrics.addr", "--metrics-addr", err)
		}
	} else if s.config.Pprof {
		return misuse(fmt.Errorf("--pprof: profiles are given on the metrics listener, and %s is off", running.setting("metrics.addr", "--metrics-addr")))
	}
	if addr := running.Admin.Addr; addr != "" {
		if err := s.listenAt("admin", addr, proxy.NewAdmin(s.decisions)); err != nil {
			return running.cannotListen("admin.addr", "--admin-addr", err)
		}
	}
	return nil
}

func (s *server) listenAt(name, addr string, handler http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.add(name, l, handler, false)
	return nil
}

// cannotListen is err at the address of a setting, or flag, with what can be
// done about it.
func (c *Config) cannotListen(setting, flag string, err error) error {
	setting = c.setting(setting, flag)
	remedy := "write another address"
	if errors.Is(err, syscall.EADDRINUSE) {
		remedy = "end what listens there, or " + remedy
	}
	if setting != "http.addr" && setting != "--addr" {
		remedy += `, or "" for none`
	}
	return fmt.Errorf("%s: %w; %s", setting, err, remedy)
}

func (s *server) add(name string, l net.Listener, handler http.Handler, public bool) {
	s.listeners = append(s.listeners, listening{name: name, Listener: l, public: public, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerPatience,
		ReadTimeout:       bodyPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}})
}

// tlsConfig takes the certificates of the revision that is in effect when a
// client comes.
func (s *server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if current := s.reloader.Revision().TLS; current != nil {
				return current, nil
			}
			return nil, errors.New("the configuration has no certificate any more; restart to serve without TLS")
		},
	}
}

// address returns where the registry API listens.
func (s *server) address() string { return s.listeners[0].Addr().String() }

// run serves until ctx ends, then lets answers under way end, and closes.
func (s *server) run(ctx context.Context) error {
	defer s.close()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	group, failed := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		s.log.Info("listening", "for", l.name, "addr", l.Addr().String())
		group.Go(func() error {
			if err := l.server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s listener: %w", l.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		s.reloader.Run(watching, func(r *revision) error { return s.proxy.Use(r.Proxy) })
		return nil
	})
	group.Go(func() error {
		s.roots.run(watching, func() bool { return s.reloader.Revision().usesPublicRoot() }, s.reloader.Reload)
		return nil
	})
	group.Go(func() error {
		s.hooks.Run(failed, s.proxy.HookWorker())
		return nil
	})
	group.Go(func() error {
		<-failed.Done()
		s.drain()
		return nil
	})
	return group.Wait()
}

// drain ends the listeners: the registry API first, so that the health of what
// is ending can be seen until the end.
func (s *server) drain() {
	s.draining.Store(true)
	s.log.Info("draining", "atMost", s.config.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Drain)
	defer cancel()
	for _, public := range []bool{true, false} {
		for _, l := range s.listeners {
			if l.public != public {
				continue
			}
			if err := l.server.Shutdown(ctx); err != nil {
				s.log.Warn("answers were broken off", "listener", l.name, "err", err)
				l.server.Close()
			}
		}
	}
}

// close frees what newServer opened, as far as it came.
func (s *server) close() {
	defer s.logs.out.close()
	for _, l := range s.listeners {
		l.Close() // closed already when it was served
	}
	if s.proxy != nil {
		s.proxy.Close()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Warn("the store did not close", "err", err)
		}
	}
	if s.decisions != nil {
		if err := s.decisions.Close(); err != nil {
			s.log.Warn("the decision log did not close", "err", err)
		}
	}
	if s.reloader != nil {
		for _, client := range s.reloader.Revision().Clients {
			client.Close()
		}
	}
}
