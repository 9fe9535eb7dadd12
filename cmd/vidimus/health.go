package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health answers on the metrics listener: /healthz while the process lives,
// /readyz while it takes requests, /metrics, and profiles when they were asked
// for. Whether an upstream answers has no part in it: a proxy that restarts
// because a registry is down serves nobody, one that goes on serves what it
// holds.
func (s *server) health() http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	router.HandleFunc("/readyz", s.ready)
	router.Handle("/metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	if s.config.Pprof {
		router.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		router.HandleFunc("/debug/pprof/profile", pprof.Profile)
		router.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		router.HandleFunc("/debug/pprof/trace", pprof.Trace)
		router.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)
	}
	return router
}

// ready is also where a person looks when a changed configuration does not
// take effect, when an authority's keys do not count, and for what is let through
// without evidence.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	status := s.reloader.Status()
	var b strings.Builder
	code := http.StatusOK
	if s.draining.Load() {
		code = http.StatusServiceUnavailable
		b.WriteString("draining\n")
	} else {
		b.WriteString("ready\n")
	}
	fmt.Fprintf(&b, "revision %s since %s\n", status.Revision, status.Since.UTC().Format("2006-01-02T15:04:05Z"))
	if !status.Successful() {
		fmt.Fprintf(&b, "the configuration that was last read does not hold, so the revision above stays:\n%s\n", status.Fault)
	}
	for _, name := range slices.Sorted(maps.Keys(status.Suspended)) {
		fmt.Fprintf(&b, "authority %s is suspended: %s\n", name, status.Suspended[name])
	}
	now := time.Now()
	for _, e := range s.reloader.Revision().Exceptions {
		if e.isActive(now) {
			fmt.Fprintf(&b, "exception until %s for %s: %s\n", momentText(e.Until), e.about(), e.Reason)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	fmt.Fprint(w, b.String())
}

// isLoopbackAddr reports whether a listener at addr is reached from this
// machine only.
func isLoopbackAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
