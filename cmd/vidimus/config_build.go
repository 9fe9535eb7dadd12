package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/access"
	"vidimus/proxy/upstream"
	"vidimus/verifier"
)

// revision is one configuration in effect: what serve gives to the proxy, and
// what the parts were built from. It is not changed once it is built.
type revision struct {
	*loaded
	ID        string
	Suspended map[string]string // authorities whose keys cannot be used: why
	Proxy     *proxy.Revision
	Gate      *policy.Evaluator
	Clients   map[string]*upstream.Client // by the upstream's name
	identity  map[string][sha256.Size]byte
	passwords *access.Passwords // nil: there are no users
}

// observers are told what the parts do, and what they share with others. Each may
// be nil.
type observers struct {
	Upstream func(name string) func(status string, remaining int)
	Decision func(d policy.Decision, took time.Duration)
	Locks    *proxy.Locks  // which the proxy uses as well
	Settle   time.Duration // of what signs; zero is its default
	// Everything is for one who explains: decisions show evidence that they did not need.
	Everything bool
}

// build makes the parts of l. A client of old whose settings are the same is
// used again, for it has tokens and connections. What suspended names can vouch
// for nothing; its keys have gone.
func (l *loaded) build(o observers, suspended map[string]string, old *revision) (*revision, error) {
	r := &revision{
		loaded:    l,
		ID:        suspendedID(l.ID, suspended),
		Suspended: suspended,
		Clients:   make(map[string]*upstream.Client),
		identity:  make(map[string][sha256.Size]byte),
	}
	rules := l.Policy
	rules.Revision = r.ID
	rules.Hosts = l.otherHosts()
	rules.Authorities = slices.Clone(rules.Authorities)
	for i, a := range rules.Authorities {
		rules.Authorities[i].Suspended = suspended[a.Name]
	}
	set, err := policy.New(rules)
	if err != nil {
		return nil, err
	}
	r.Gate = policy.NewEvaluator(set, verifier.Sources(), policy.Options{Observe: o.Decision, Everything: o.Everything})
	if err := r.connect(o, old); err != nil {
		return nil, err
	}
	if r.Proxy, err = r.proxyRevision(o); err != nil {
		return nil, err
	}
	return r, r.control(old)
}

// control makes what says who may do what. The passwords of old serve again while
// the htpasswd file says the same, for they remember who has logged in.
func (r *revision) control(old *revision) error {
	if r.Access == nil {
		return nil
	}
	config := *r.Access
	if old != nil && old.passwords.Equal(config.Passwords) {
		config.Passwords = old.passwords
	}
	control, err := access.New(config)
	if err != nil {
		return err
	}
	r.passwords, r.Proxy.Access = config.Passwords, control
	return nil
}

// connect makes or takes over the client of each upstream.
func (r *revision) connect(o observers, old *revision) error {
	for _, u := range r.Upstreams {
		r.identity[u.Name] = u.Identity
		if old != nil && old.identity[u.Name] == u.Identity && old.Clients[u.Name] != nil {
			r.Clients[u.Name] = old.Clients[u.Name]
			continue
		}
		config := u.Config
		if o.Upstream != nil {
			config.Observe = o.Upstream(u.Name)
		}
		client, err := upstream.New(config)
		if err != nil {
			return err
		}
		r.Clients[u.Name] = client
	}
	return nil
}

func (r *revision) proxyRevision(o observers) (*proxy.Revision, error) {
	p := &proxy.Revision{
		ID:              r.ID,
		Upstreams:       make(map[string]proxy.Registered),
		DefaultUpstream: r.DefaultUpstream.Value,
		Gate:            r.Gate,
		TagTTL:          r.Cache.TagTTL,
		MaxStale:        r.Cache.MaxStale,
		TrustedProxies:  r.HTTP.TrustedProxies,
		RequireRecord:   r.Decisions.Required,
		HookToken:       r.HookToken,
	}
	for _, u := range r.Upstreams {
		client := r.Clients[u.Name]
		signers, err := r.signersOf(u.Name, client, o, r.Suspended)
		if err != nil {
			return nil, err
		}
		p.Upstreams[u.Name] = proxy.Registered{
			Upstream: client, URLHost: u.URLHost, Hosts: u.Hosts, Scarce: client.Scarce, Push: client, Signers: signers,
		}
	}
	p.ExternalHost = r.externalHost()
	return p, nil
}

// externalHost is host[:port] of http.externalURL, or empty.
func (l *loaded) externalHost() string {
	external, err := url.Parse(l.HTTP.ExternalURL)
	if err != nil {
		return ""
	}
	return external.Host
}

// otherHosts returns, by an upstream's name, what else may stand before a
// repository of it: the same as the proxy tells of the subject of a decision.
func (l *loaded) otherHosts() map[string][]string {
	hosts := make(map[string][]string, len(l.Upstreams))
	external := l.externalHost()
	for _, u := range l.Upstreams {
		names := append([]string{u.URLHost}, u.Hosts...)
		if external != "" {
			names = append(names, external+"/"+u.Name)
			if u.Name == l.DefaultUpstream.Value {
				names = append(names, external)
			}
		}
		hosts[u.Name] = names
	}
	return hosts
}

// suspendedID names a revision some of whose authorities are suspended: no
// decision of the whole one counts under it.
func suspendedID(id string, suspended map[string]string) string {
	if len(suspended) == 0 {
		return id
	}
	h := sha256.New()
	writeItem(h, append([]string{id}, slices.Sorted(maps.Keys(suspended))...)...)
	return hex.EncodeToString(h.Sum(nil))[:len(id)]
}

// needsRestart names the settings that differ between two configurations and
// are read at the start only.
func needsRestart(before, after *loaded) []string {
	var names []string
	for _, s := range []struct {
		name          string
		before, after any
	}{
		{"http.addr", before.HTTP.Addr.Value, after.HTTP.Addr.Value},
		{"http.tls (switched on or off)", before.TLS != nil, after.TLS != nil},
		{"http.uploadKeyFile or http.uploadKeyEnv", before.UploadKey, after.UploadKey},
		{"metrics.addr", before.Metrics.Addr, after.Metrics.Addr},
		{"admin.addr", before.Admin.Addr, after.Admin.Addr},
		{"cache.directory", before.Cache.Directory.Name, after.Cache.Directory.Name},
		{"cache.maxSize", before.Cache.MaxSize, after.Cache.MaxSize},
		{"decisions.path", before.Decisions.Path.Name, after.Decisions.Path.Name},
		{"decisions.maxSize", before.Decisions.MaxSize, after.Decisions.MaxSize},
		{"log", before.Log, after.Log},
	} {
		if fmt.Sprint(s.before) != fmt.Sprint(s.after) {
			names = append(names, s.name)
		}
	}
	return names
}
