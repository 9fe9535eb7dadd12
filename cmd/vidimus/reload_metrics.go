package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reloadMetrics shows a reloader to Prometheus. Each scrape looks at what runs
// then; the number of series is constant.
type reloadMetrics struct {
	reloader   *reloader
	info       *prometheus.Desc
	successful *prometheus.Desc
	suspended  *prometheus.Desc
	exceptions *prometheus.Desc
}

func newReloadMetrics(r *reloader) *reloadMetrics {
	return &reloadMetrics{
		reloader: r,
		info: prometheus.NewDesc("vidimus_config_info",
			"Which revision of the configuration is in effect.", []string{"revision"}, nil),
		successful: prometheus.NewDesc("vidimus_config_last_reload_successful",
			"Whether the configuration that was last read holds, and so is in effect.", nil, nil),
		suspended: prometheus.NewDesc("vidimus_authorities_suspended",
			"Authorities that can vouch for nothing because a key file cannot be used.", nil, nil),
		exceptions: prometheus.NewDesc("vidimus_exceptions_active",
			"Exceptions that have not ended.", nil, nil),
	}
}

func (m *reloadMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

func (m *reloadMetrics) Collect(out chan<- prometheus.Metric) {
	status, running, now := m.reloader.Status(), m.reloader.Revision(), time.Now()
	active := 0
	for _, e := range running.Exceptions {
		if e.isActive(now) {
			active++
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	successful := 0.0
	if status.Successful() {
		successful = 1
	}
	gauge(m.info, 1, status.Revision)
	gauge(m.successful, successful)
	gauge(m.suspended, float64(len(status.Suspended)))
	gauge(m.exceptions, float64(active))
}
