package main

import (
	"fmt"
	"io"
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
	return engine{p, s, r.Gate, names}, nil
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
