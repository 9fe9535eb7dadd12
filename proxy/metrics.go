package proxy

import (
	"errors"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vidimus/policy"
	"vidimus/proxy/hook"
)

// transferSource says where the bytes of an answer came from.
type transferSource string

const (
	fromCache    transferSource = "cache"
	fromUpstream transferSource = "upstream"
)

// Metrics counts what the proxy does. Every label's values come from the
// configuration or from constants of the program, so the number of series does
// not depend on what clients send. A nil *Metrics counts nothing.
type Metrics struct {
	decisions     *prometheus.CounterVec
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	upstream      *prometheus.CounterVec
	ratelimit     *prometheus.GaugeVec
	transfers     *prometheus.CounterVec
	verifications prometheus.Histogram
	hooksTried    *prometheus.CounterVec
	hooksDropped  *prometheus.CounterVec

	// The series that requests count, once they have been looked up.
	requestsOf [len(endpointNames)][maxStatus]atomic.Pointer[prometheus.Counter]
	secondsOf  [len(endpointNames)]atomic.Pointer[prometheus.Observer]
	sent       map[transferSource]prometheus.Counter
}

// maxStatus is above all that are answered.
const maxStatus = 600

// NewMetrics registers the metrics with registerer.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vidimus_decisions_total", Help: "Decisions reached, by policy, enforcement and reason (allowed, inconclusive, or why denied).",
		}, []string{"policy", "enforcement", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vidimus_requests_total", Help: "Requests answered by the registry API, by route and status code (0: broken off before an answer).",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vidimus_request_seconds", Help: "Time from a request to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}, []string{"route"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vidimus_upstream_requests_total", Help: "Requests sent to an upstream, by its name and the status code (error: no answer).",
		}, []string{"upstream", "code"}),
		ratelimit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vidimus_upstream_ratelimit_remaining", Help: "Requests that an upstream says are left in its window.",
		}, []string{"upstream"}),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vidimus_transfer_bytes_total", Help: "Content sent to clients, by where it came from.",
		}, []string{"from"}),
		verifications: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vidimus_verification_seconds", Help: "Time to reach a decision, evidence lookups included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
	}
	m.hooksTried = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vidimus_hook_attempts_total", Help: "Attempts to sign what registries told of, by their outcome.",
	}, []string{"outcome"})
	m.hooksDropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vidimus_hook_dropped_total", Help: "Events of registries that nothing came of, by the reason.",
	}, []string{"reason"})
	for _, c := range []prometheus.Collector{
		m.decisions, m.requests, m.seconds, m.upstream, m.ratelimit, m.transfers, m.verifications, m.hooksTried, m.hooksDropped,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	for _, reason := range dropReasons {
		m.hooksDropped.WithLabelValues(reason)
	}
	for _, outcome := range []string{hookSigned, hookFailed, hookEarly} {
		m.hooksTried.WithLabelValues(outcome)
	}
	m.sent = map[transferSource]prometheus.Counter{
		fromCache:    m.transfers.WithLabelValues(string(fromCache)),
		fromUpstream: m.transfers.WithLabelValues(string(fromUpstream)),
	}
	return m, nil
}

func (m *Metrics) decided(d policy.Decision) {
	if m == nil {
		return
	}
	reason := d.Reason
	if d.Allowed {
		reason = "allowed"
	}
	name := d.Policy
	if name == "" {
		name = "none"
	}
	m.decisions.WithLabelValues(name, d.Enforcement.String(), reason).Inc()
}

func (m *Metrics) served(at endpoint, status int, took time.Duration) {
	if m == nil {
		return
	}
	counter := m.requestsOf[at][status].Load()
	if counter == nil {
		counter = new(m.requests.WithLabelValues(at.String(), strconv.Itoa(status)))
		m.requestsOf[at][status].Store(counter)
	}
	(*counter).Inc()
	seconds := m.secondsOf[at].Load()
	if seconds == nil {
		seconds = new(m.seconds.WithLabelValues(at.String()))
		m.secondsOf[at].Store(seconds)
	}
	(*seconds).Observe(took.Seconds())
}

func (m *Metrics) transferred(from transferSource, n int) {
	if m == nil {
		return
	}
	m.sent[from].Add(float64(n))
}

// Verified counts the time that a decision took.
func (m *Metrics) Verified(took time.Duration) {
	if m == nil {
		return
	}
	m.verifications.Observe(took.Seconds())
}

// The outcomes of an attempt to sign what a registry told of.
const (
	hookSigned = "signed" // or it was already
	hookFailed = "failed" // and is tried again
	hookEarly  = "early"  // and is tried again: the tag does not name yet what was told
)

func (m *Metrics) hookTried(err error) {
	switch {
	case m == nil:
	case err == nil:
		m.hooksTried.WithLabelValues(hookSigned).Inc()
	case errors.Is(err, hook.ErrEarly):
		m.hooksTried.WithLabelValues(hookEarly).Inc()
	default:
		m.hooksTried.WithLabelValues(hookFailed).Inc()
	}
}

func (m *Metrics) hookDropped(reason string, n int) {
	if m == nil {
		return
	}
	m.hooksDropped.WithLabelValues(reason).Add(float64(n))
}

// UpstreamAnswered counts an answer of the named upstream: code is its status,
// or "error". remaining is what the upstream says is left of its rate limit,
// negative when it says nothing.
func (m *Metrics) UpstreamAnswered(upstream, code string, remaining int) {
	if m == nil {
		return
	}
	m.upstream.WithLabelValues(upstream, code).Inc()
	if remaining >= 0 {
		m.ratelimit.WithLabelValues(upstream).Set(float64(remaining))
	}
}

func stack() string { return string(debug.Stack()) }
