package proxy

import (
	"context"
	"net/http"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// nowhere says why a request leads to no configured upstream. That is a decision
// like any other, which refuse makes of it.
type nowhere struct {
	repository string // as it was asked for, with its registry where one was named
	why, hint  string
	remedies   []policy.Remedy
}

// Error returns why.
func (n *nowhere) Error() string { return n.why }

func notConfigured(registry, repository string) *nowhere {
	registry = printable(registry)
	return &nowhere{
		repository: repository, why: "registry " + registry + " is not configured in Vidimus", hint: "add " + registry + " to upstreams",
		remedies: []policy.Remedy{{Do: "add to upstreams", Config: quote(registry) + ": {}"}},
	}
}

func undirected(repository string) *nowhere {
	return &nowhere{
		repository: repository,
		why:        "Vidimus cannot tell which registry " + quote(repository) + " is in: put the upstream's name in front of it, or set defaultUpstream",
		hint:       "put an upstream's name in front of the repository, or set defaultUpstream",
		remedies: []policy.Remedy{
			{Do: "put an upstream's name in front of the repository"},
			{Do: "name the upstream that is meant where there is none", Config: "defaultUpstream: UPSTREAM"},
		},
	}
}

// maxRefused bounds the names whose refusals are recorded one by one within
// negativeDecisionKept. Nothing but a client's imagination bounds how many it
// can ask for, so all further ones share one more record.
const maxRefused = 256

// refusals holds the decisions about names without an upstream that were made
// within the present negativeDecisionKept.
type refusals struct {
	mu     sync.Mutex
	since  time.Time
	byName map[string]policy.Decision
}

// decide returns the decision about name, or about all names that are too many,
// which make makes when there is none yet.
func (r *refusals) decide(name string, now time.Time, make func() (policy.Decision, error)) (policy.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := now.Sub(r.since); r.byName == nil || age < 0 || age >= negativeDecisionKept {
		r.since, r.byName = now, map[string]policy.Decision{}
	}
	d, ok := r.byName[name]
	if !ok && len(r.byName) >= maxRefused {
		name = "" // no name is empty
		d, ok = r.byName[name]
	}
	if ok {
		return d, nil
	}
	d, err := make()
	if err == nil {
		r.byName[name] = d
	}
	return d, err
}

// refuse decides and records that there is no upstream for a request, and
// returns the answer. The same name within negativeDecisionKept shares one
// decision, whatever is asked for under it.
func (l *live) refuse(ctx context.Context, n *nowhere, digest v1.Hash, a asker) error {
	now := l.proxy.now()
	d, err := l.refusals.decide(n.repository, now, func() (policy.Decision, error) {
		d := policy.Decision{
			ID: policy.NewID(), Time: now, Revision: l.ID,
			Subject: policy.Subject{Repository: n.repository, Digest: digest},
			Reason:  reasonNoUpstream, Explained: n.why, Hint: n.hint, Remedies: n.remedies,
		}
		return d, l.record(ctx, d, nil, a)
	})
	if err != nil {
		return err
	}
	// told in the words of this request
	d.Subject.Repository, d.Subject.Digest, d.Hint = n.repository, digest, n.hint
	d.Remedies = n.remedies
	return &Error{
		Status: http.StatusForbidden, Code: codeDenied,
		Message: n.why + " [id " + d.ID + "]", Detail: decisionDetail(d, reasonNoUpstream),
	}
}
