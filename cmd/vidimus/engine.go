package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
)

// engine is a proxy without listeners, which decides as a server would.
type engine struct {
	*proxy.Proxy
	store *store.Store
	gate  *policy.Evaluator
	names []string // of the upstreams
	self  struct{ addr, externalURL string }
}

// isProxy reports whether a registry, as somebody wrote it, is none of the upstreams
// and looks like the address that clients reach the proxy by.
func (e engine) isProxy(registry string) bool {
	if slices.Contains(e.names, registry) {
		return false
	}
	if external, err := url.Parse(e.self.externalURL); err == nil && external.Host != "" && external.Host == registry {
		return true
	}
	_, port, err := net.SplitHostPort(registry)
	_, own, _ := net.SplitHostPort(e.self.addr)
	return err == nil && port == own
}

func (e engine) close() {
	e.Proxy.Close()
	e.store.Close() // in memory: nothing to lose
}

// newEngine makes the parts of a configuration and keeps nothing on disk. What it does
// not know that a server would is said on warnings.
func newEngine(from source, warnings io.Writer) (engine, error) {
	l, err := loadToDecide(from, os.LookupEnv, time.Now())
	if err != nil {
		return engine{}, configExit(err)
	}
	for _, what := range l.unsure {
		fmt.Fprintln(warnings, "warning:", what)
	}
	r, err := l.build(observers{Everything: true}, nil, nil)
	if err != nil {
		return engine{}, err
	}
	s, err := store.Open(store.Config{})
	if err != nil {
		return engine{}, err
	}
	p, err := proxy.New(proxy.Config{Store: s, Index: s, Recorder: proxy.NewDecisionLog(nil)}, r.Proxy)
	if err != nil {
		s.Close()
		return engine{}, err
	}
	var names []string
	for _, u := range l.Config.Upstreams {
		names = append(names, u.Name)
	}
	made := engine{Proxy: p, store: s, gate: r.Gate, names: names}
	made.self.addr, made.self.externalURL = l.HTTP.Addr.Value, l.HTTP.ExternalURL
	return made, nil
}

// withUpstreams is a configuration to which the registries are added that its
// policies name and it does not list, and the one called registry at address.
// They are asked with docker's credentials.
func withUpstreams(from source, registry, address string) source {
	return func(r *reader) (Config, faults, error) {
		config, found, err := from(r)
		if err != nil {
			return config, found, err
		}
		add := func(where pos, name, address string) {
			if what, _ := checkUpstreamName(name); what != "" || config.upstream(name) != nil {
				return
			}
			config.Upstreams = append(config.Upstreams, named[upstreamConfig]{where, name, upstreamConfig{
				pos: where, URL: address, Credentials: credentialsConfig{Docker: true},
			}})
		}
		add(pos{File: registry}, registry, address)
		for _, p := range config.Policies {
			for _, pattern := range p.Match {
				name, _, _ := strings.Cut(strings.TrimPrefix(pattern, "!"), "/")
				add(p.pos, name, "")
			}
		}
		found = slices.DeleteFunc(found, func(f fault) bool { return f.Path == "upstreams" })
		return config, found, nil
	}
}
