package main

import (
	"bytes"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/yaml.v3"

	"vidimus/proxy"
)

// What deploy/ starts is what there is: its configuration holds, its commands are
// known, and what it mounts and publishes is what the configuration names.
func TestComposeStartsAConfigurationThatHolds(t *testing.T) {
	l, err := load(fromFile("../../deploy/config/vidimus.yaml"), lookupIn(nil), clock)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) > 0 {
		t.Error(l.Warnings)
	}
	var compose struct {
		Services map[string]struct {
			Ports, Volumes []string
			Grace          string `yaml:"stop_grace_period"`
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal([]byte(mustReadFile(t, "../../deploy/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	service := compose.Services["vidimus"]
	if diff := cmp.Diff([]string{"./config:/etc/vidimus:ro", "cache:" + l.Cache.Directory.Name}, service.Volumes); diff != "" {
		t.Errorf("volumes (-configured +mounted):\n%s", diff)
	}
	if !strings.HasPrefix(systemConfig, "/etc/vidimus/") {
		t.Errorf("the configuration is looked for at %s", systemConfig)
	}
	if _, declared := compose.Volumes["cache"]; !declared {
		t.Error("the volume cache is not declared")
	}
	if dockerfile := mustReadFile(t, "../../Dockerfile"); !strings.Contains(dockerfile, " "+l.Cache.Directory.Name+"/\n") {
		t.Errorf("the image has no %s that a volume would take its owner from", l.Cache.Directory.Name)
	}
	var published []string
	for _, addr := range []string{l.HTTP.Addr.Value, l.Metrics.Addr} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || isLoopback(host) {
			t.Errorf("nobody outside of the container reaches %s", addr)
		}
		published = append(published, "127.0.0.1:"+port+":"+port)
	}
	if diff := cmp.Diff(published, service.Ports); diff != "" {
		t.Errorf("ports (-configured +published):\n%s", diff)
	}
	outlastsDrain(t, service.Grace)
}

func TestUnitStartsACommandThatIsKnown(t *testing.T) {
	unit := mustReadFile(t, "../../deploy/vidimus.service")
	setting := func(name string) string {
		_, value, _ := strings.Cut(unit, "\n"+name+"=")
		value, _, _ = strings.Cut(value, "\n")
		return value
	}
	words := strings.Fields(setting("ExecStart"))
	if diff := cmp.Diff([]string{"/usr/local/bin/vidimus", "serve", "--config", systemConfig}, words); diff != "" {
		t.Errorf("ExecStart (-wanted +there):\n%s", diff)
	}
	outlastsDrain(t, setting("TimeoutStopSec"))
}

// outlastsDrain wants a time after which a server is killed to be longer than what its
// answers have.
func outlastsDrain(t *testing.T, patience string) {
	t.Helper()
	serve, _, err := newRootCommand().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	drain, err := serve.Flags().GetDuration("drain")
	if err != nil {
		t.Fatal(err)
	}
	if until, err := time.ParseDuration(patience); err != nil || until <= drain {
		t.Errorf("it is killed after %q, while answers may go on for %s: %v", patience, drain, err)
	}
}

var (
	metricRow    = regexp.MustCompile("(?m)^\\| `(vidimus_\\w+)` \\|(.*)\\|$")
	metricName   = regexp.MustCompile(`vidimus_[a-z_]+`)
	metricLabels = regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([\w,]*)\}`)
	alertLabel   = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
	alertBy      = regexp.MustCompile(`by \(([\w, ]*)\)`)
	alertShows   = regexp.MustCompile(`\$labels\.(\w+)`)
)

// noted notes what is registered.
type noted struct {
	prometheus.Registerer
	labels map[string][]string
}

func (n noted) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		if m := metricLabels.FindStringSubmatch(desc.String()); m != nil && strings.HasPrefix(m[1], "vidimus_") {
			n.labels[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })
		}
	}
	return nil
}

// metricsThatAre returns the labels of all metrics, by name.
func metricsThatAre(t *testing.T) map[string][]string {
	t.Helper()
	n := noted{labels: make(map[string][]string)}
	if _, err := proxy.NewMetrics(n); err != nil {
		t.Fatal(err)
	}
	inDirectory(t, map[string]string{"vidimus.yaml": plainConfig + quietConfig})
	s, err := startServer(t, fromFile("vidimus.yaml"), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if _, known := n.labels[family.GetName()]; known || !strings.HasPrefix(family.GetName(), "vidimus_") {
			continue
		}
		n.labels[family.GetName()] = nil
		for _, label := range family.Metric[0].Label {
			n.labels[family.GetName()] = append(n.labels[family.GetName()], label.GetName())
		}
	}
	return n.labels
}

func TestDocumentedMetricsAreThoseThatAre(t *testing.T) {
	page := mustReadFile(t, "../../docs/operations.md")
	var documented []string
	for _, row := range metricRow.FindAllStringSubmatch(page, -1) {
		documented = append(documented, row[1])
	}
	slices.Sort(documented)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(metricsThatAre(t))), documented); diff != "" {
		t.Errorf("(-there +documented):\n%s", diff)
	}
}

func TestAlertsAreAboutMetricsThatAre(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(mustReadFile(t, "../../deploy/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	known, seen := metricsThatAre(t), 0
	for _, rule := range rules.Groups[0].Rules {
		seen++
		labels := []string{"instance", "job"} // which Prometheus adds
		for _, name := range metricName.FindAllString(rule.Expr, -1) {
			name = strings.TrimSuffix(name, "_bucket")
			of, ok := known[name]
			if !ok {
				t.Errorf("%s: there is no metric %s", rule.Alert, name)
			}
			labels = append(labels, of...)
		}
		var used []string
		for _, m := range alertLabel.FindAllStringSubmatch(rule.Expr, -1) {
			used = append(used, m[1])
		}
		for _, m := range alertBy.FindAllStringSubmatch(rule.Expr, -1) {
			used = append(used, strings.Split(m[1], ", ")...)
		}
		for _, m := range alertShows.FindAllStringSubmatch(rule.Annotations["summary"], -1) {
			used = append(used, m[1])
		}
		for _, label := range used {
			if !slices.Contains(labels, label) && label != "le" {
				t.Errorf("%s: nothing there has a label %s", rule.Alert, label)
			}
		}
	}
	if seen == 0 {
		t.Error("there are no rules")
	}
}
