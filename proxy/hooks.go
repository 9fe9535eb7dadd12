package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/proxy/hook"
)

// A registry tells of what is pushed to it around this proxy, and under policies that
// say so it is signed then: later than what is pushed through here, whose tag is not
// there before. What is told is not believed. It says which tag to look at, in a
// repository of a configured upstream; that is asked, and what it has under the tag
// is signed when it hashes to the digest that was told. Nobody is claimed to have
// pushed it.

// hookPath is where registries tell of pushes.
const hookPath = "/hooks/push"

// Hooks keeps what is told. hook.Queue implements it.
type Hooks interface {
	// Add keeps a job that an event asks for, and returns false when it has done so
	// already.
	Add(event string, job hook.Job) (added bool, err error)
}

// hookGrace is how long a tag may name something else after it was told of.
// Distribution tells when it has the manifest, and puts the tag after that.
const hookGrace = 30 * time.Second

// Why an event is dropped.
const (
	droppedOther     = "other"     // it is about no tag that was pushed
	droppedMalformed = "malformed" // its names or its digest are none
	droppedOld       = "old"
	droppedSeen      = "seen"
	droppedUpstream  = "upstream" // it is about no upstream that is configured
	droppedPolicy    = "policy"   // the policy does not say hook: true
	droppedEvidence  = "evidence" // it is a signature, or another referrer
	droppedMoved     = "moved"    // the tag names something else by now, or nothing
	droppedRevoked   = "revoked"
	droppedExpired   = "expired" // it could not be signed for a day
)

var dropReasons = []string{
	droppedOther, droppedMalformed, droppedOld, droppedSeen, droppedUpstream, droppedPolicy,
	droppedEvidence, droppedMoved, droppedRevoked, droppedExpired,
}

// serveHook takes a notification. What nothing comes of is dropped and counted, but
// not refused: a registry would repeat it, and tell nothing else meanwhile.
func (q *request) serveHook() error {
	switch {
	case q.HookToken == "" || q.proxy.hooks == nil:
		return &Error{Status: http.StatusMethodNotAllowed, Code: codeUnsupported, Message: "nothing is told here: hooks has no token, set hooks.tokenFile or hooks.tokenEnv"}
	case q.r.Method != http.MethodPost:
		return &Error{Status: http.StatusMethodNotAllowed, Code: codeUnsupported, Allow: http.MethodPost, Message: "pushes are told with POST"}
	case !bears(q.r, q.HookToken):
		return &Error{
			Status: http.StatusUnauthorized, Code: codeUnauthorized, Challenge: `Bearer realm="Vidimus hooks"`,
			Message: "whoever tells of pushes must send the token of hooks: Authorization: Bearer TOKEN",
		}
	}
	leave, err := q.proxy.enterPush(q.r.Context())
	if err != nil {
		return err
	}
	defer leave()
	tooLarge := &Error{
		Status: http.StatusRequestEntityTooLarge, Code: codeSizeInvalid,
		Message: fmt.Sprintf("a notification may have at most %d bytes and %d events", hook.MaxSize, hook.MaxEvents),
	}
	if q.r.ContentLength > hook.MaxSize {
		return tooLarge
	}
	body, err := readAtMost(q.body(pushPatience), hook.MaxSize)
	if errors.Is(err, errMismatch) {
		return tooLarge
	}
	if err != nil {
		return &Error{Status: http.StatusBadRequest, Code: codeUnsupported, Message: "the notification broke off", Err: err}
	}
	events, others, err := hook.Parse(body)
	switch {
	case errors.Is(err, hook.ErrTooMany):
		return tooLarge
	case err != nil:
		return &Error{Status: http.StatusBadRequest, Code: codeUnsupported, Message: "the notification is not understood: " + err.Error()}
	}
	q.proxy.metrics.hookDropped(droppedOther, others)
	for _, event := range events {
		if err := q.told(event); err != nil {
			return err
		}
	}
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// bears reports whether a request shows the token, in a time that does not tell how
// much of it.
func bears(r *http.Request, token string) bool {
	shown := r.Header["Authorization"]
	if len(shown) != 1 {
		return false
	}
	scheme, rest, _ := strings.Cut(shown[0], " ")
	got, want := sha256.Sum256([]byte(strings.TrimLeft(rest, " "))), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// told keeps what has to be looked at for one event. An error is for who tells it.
func (q *request) told(event hook.Event) error {
	jobs, dropped := q.jobsOf(event, q.begin, q.client)
	for _, job := range jobs {
		added, err := q.proxy.hooks.Add(event.ID, job)
		switch {
		case errors.Is(err, hook.ErrFull):
			return &Error{Status: http.StatusTooManyRequests, Code: codeTooManyRequests, Message: err.Error(), RetryAfter: retryAfterDefault}
		case err != nil:
			return unavailable("what is told cannot be kept at the moment", retryAfterDefault, err)
		case !added:
			q.proxy.metrics.hookDropped(droppedSeen, 1)
		}
	}
	if dropped != "" {
		q.proxy.metrics.hookDropped(dropped, 1)
		q.proxy.logger.Debug("a push that a registry told of is not looked at", "reason", dropped,
			"repository", printable(event.Repository), "tag", printable(event.Tag), "digest", printable(event.Digest))
	}
	return nil
}

// jobsOf returns what an event asks for, in each upstream that the registry may be; or
// why it is dropped.
func (l *live) jobsOf(event hook.Event, now time.Time, client string) (jobs []hook.Job, dropped string) {
	digest, err := parseDigest(event.Digest)
	if err != nil || !validTag(event.Tag) || !validRepository(event.Repository) {
		return nil, droppedMalformed
	}
	if now.Sub(event.Time).Abs() > hook.MaxAge {
		return nil, droppedOld
	}
	dropped = droppedUpstream
	for name, registered := range l.Upstreams {
		if !registered.isOneOf(name, event.Hosts) {
			continue
		}
		at, err := l.at(name, event.Repository)
		if err != nil {
			return nil, droppedMalformed
		}
		if dropped = droppedPolicy; l.signsTold(at) == nil {
			continue
		}
		jobs = append(jobs, hook.Job{
			ID: policy.NewID(), Repository: at.canonical(), Tag: event.Tag, Digest: digest.String(), Client: client, Told: now,
		})
	}
	_, suffix, _ := subjectOfTag(event.Tag)
	switch {
	case len(jobs) == 0:
		return nil, dropped
	case holdsSignatures(suffix): // as each of our own signatures is told
		return nil, droppedEvidence
	case l.Gate.Revoked(digest):
		return nil, droppedRevoked
	}
	return jobs, ""
}

// isOneOf reports whether a registry that goes by these hosts is the upstream.
func (r Registered) isOneOf(name string, hosts []string) bool {
	return slices.ContainsFunc(hosts, func(host string) bool {
		host = registryHost(host)
		isHost := func(of string) bool { return of != "" && registryHost(of) == host }
		return host != "" && (isHost(canonicalRegistry(name)) || isHost(r.URLHost) || slices.ContainsFunc(r.Hosts, isHost))
	})
}

// registryHost is a host as it is compared: without the port that its scheme implies.
func registryHost(host string) string {
	host = canonicalRegistry(normalHost(host))
	for _, port := range []string{":443", ":80"} {
		host = strings.TrimSuffix(host, port)
	}
	return host
}

// signsTold returns the rule under which what is told of a repository is signed, or
// nil.
func (l *live) signsTold(at place) *policy.Push {
	registered, ok := l.Upstreams[at.upstream]
	if !ok || registered.Push == nil {
		return nil
	}
	if rule := l.Gate.Scope(at.canonical()).Push; rule != nil && rule.Hook && rule.Sign != "" {
		return rule
	}
	return nil
}

// dropError says why a job has ended unsigned. It matches hook.ErrDone.
type dropError string

func (e dropError) Error() string        { return "dropped: " + string(e) }
func (e dropError) Is(target error) bool { return target == hook.ErrDone }

// HookWorker returns what signs the tags that registries told of, under the revision
// that is in effect then.
func (p *Proxy) HookWorker() hook.Worker {
	return hook.Worker{
		Do: func(ctx context.Context, job *hook.Job) error {
			err := p.signTold(ctx, job)
			if drop, ok := errors.AsType[dropError](err); ok {
				p.metrics.hookDropped(string(drop), 1)
				p.logger.Info("a push that a registry told of is not signed", "id", job.ID, "reason", string(drop),
					"repository", job.Repository, "tag", job.Tag, "digest", job.Digest)
				return err
			}
			p.metrics.hookTried(err)
			return err
		},
		GiveUp: p.giveUpTold,
	}
}

// asked is a job as the proxy sees it now.
func (p *Proxy) asked(job hook.Job) (v *view, rule *policy.Push, a asker) {
	l := p.current.Load()
	at := placeOf(job.Repository)
	return l.view(at), l.signsTold(at), asker{client: job.Client, reference: job.Tag, image: job.Repository + ":" + job.Tag}
}

// signTold signs what a tag names, when that is what was told.
func (p *Proxy) signTold(ctx context.Context, job *hook.Job) error {
	ctx, cancel := context.WithTimeout(ctx, pushTime)
	defer cancel()
	v, rule, a := p.asked(*job)
	if rule == nil {
		return dropError(droppedPolicy)
	}
	m, err := v.readTag(ctx, job.Tag)
	switch {
	case errors.Is(err, errSchema1):
		return dropError(droppedMoved) // it has no digest that could have been told
	case err != nil:
		return fmt.Errorf("ask what the tag names: %w", err)
	case (m == nil || m.digest.String() != job.Digest) && p.now().Sub(job.Told) < hookGrace:
		return fmt.Errorf("the tag does not name it: %w", hook.ErrEarly)
	case m == nil || m.digest.String() != job.Digest:
		return dropError(droppedMoved)
	case v.Gate.Revoked(m.digest):
		return dropError(droppedRevoked)
	}
	t := &pushed{view: v, rule: rule, manifest: m, tag: job.Tag, asker: a, began: job.Told, id: job.ID, told: true}
	t.named, t.suffix, _ = subjectOfTag(t.tag)
	if err := t.classify(ctx); err != nil {
		return err
	}
	if t.kind != pushedImage {
		return dropError(droppedEvidence)
	}
	key := v.registered.Signers[rule.Sign]
	if key == nil {
		return errors.New("the key of authority " + rule.Sign + " that signs pushes is not available")
	}
	request, err := t.toSign(ctx)
	if err != nil {
		return err
	}
	if !job.Recorded {
		why := "the upstream told of a push, which is signed by " + rule.Sign + " unless it is already"
		if err := t.note(ctx, "hook", "allowed", why, nil); err != nil {
			return err
		}
		job.Recorded = true
	}
	return t.sign(ctx, key, request)
}

// giveUpTold records that a job was not done in time.
func (p *Proxy) giveUpTold(ctx context.Context, job hook.Job, last error) {
	p.metrics.hookDropped(droppedExpired, 1)
	v, _, a := p.asked(job)
	err := v.noteChange(context.WithoutCancel(ctx), a, Record{
		ID: job.ID, Action: "hook", Decision: "inconclusive", Digest: job.Digest,
		Explained: "the upstream told of a push, and for " + hook.MaxKept.String() + " it could not be signed",
	}, last)
	p.logger.Error("a push that a registry told of was never signed", "id", job.ID, "repository", job.Repository, "tag", job.Tag,
		"digest", job.Digest, "last", last, "record", err)
}
