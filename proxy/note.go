package proxy

import (
	"context"
	"errors"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
)

// record keeps a decision, and says so when it stands on an exception. Without
// RequireRecord a record that cannot be kept is a line in the log; with it the
// decision must not take effect.
func (l *live) record(ctx context.Context, d policy.Decision, evaluateErr error, a asker) error {
	if err := l.write(ctx, d, newRecord(d, evaluateErr, a), a); err != nil {
		return err
	}
	l.noted.add(notedKey{d.ID, a.reference}, struct{}{})
	l.proxy.metrics.decided(d)
	if d.Allowed && d.Exception != "" {
		l.proxy.logger.Warn("allowed under an exception", "id", d.ID, "repository", d.Subject.Repository, "reference", a.reference,
			"digest", d.Subject.Digest.String(), "exception", d.Exception, "until", d.Expires.UTC().Format(time.DateOnly))
	}
	return nil
}

func (l *live) write(ctx context.Context, d policy.Decision, r Record, a asker) error {
	err := l.proxy.recorder.Record(ctx, r)
	if err == nil {
		return nil
	}
	l.proxy.logger.Error("cannot record a decision", "id", d.ID, "err", err)
	if l.RequireRecord {
		return &undecided{decision: unrecorded(d), image: a.image, err: err}
	}
	return nil
}

// note records a decision that was made for another reference under this one
// too, once: the same decision, asked for by this client now. A digest that the
// decision is about needs no record of its own, for every record names it.
func (l *live) note(ctx context.Context, d policy.Decision, evaluateErr error, a asker) error {
	if !a.names || d.ID == "" || isDigest(a.reference, d.Subject.Digest) {
		return nil
	}
	if _, ok := l.noted.get(notedKey{d.ID, a.reference}); ok {
		return nil
	}
	return l.noteOnce(ctx, d, evaluateErr, a)
}

// noteOnce records a decision under a reference, once for all who ask at the
// same time. It stands apart because its closure moves what it uses to the heap.
func (l *live) noteOnce(ctx context.Context, d policy.Decision, evaluateErr error, a asker) error {
	key := notedKey{d.ID, a.reference}
	_, err := flight(ctx, &l.deciding, "note\x00"+key.id+"\x00"+key.reference, verifier.DecisionTime, func(ctx context.Context) (struct{}, error) {
		if _, ok := l.noted.get(key); ok {
			return struct{}{}, nil
		}
		if u, ok := errors.AsType[*undecided](evaluateErr); ok {
			evaluateErr = u.err
		}
		r := newRecord(d, evaluateErr, a)
		r.Time = l.proxy.now()
		if err := l.write(ctx, d, r, a); err != nil {
			return struct{}{}, err
		}
		l.noted.add(key, struct{}{})
		return struct{}{}, nil
	})
	return err
}

// isDigest reports whether reference is digest.
func isDigest(reference string, digest v1.Hash) bool {
	algorithm, hex, ok := strings.Cut(reference, ":")
	return ok && hex == digest.Hex && algorithm == digest.Algorithm
}

// unrecorded is the denial that takes the place of a decision that cannot be
// recorded.
func unrecorded(d policy.Decision) policy.Decision {
	d.Allowed = false
	d.Enforcement = policy.Enforce
	d.Reason = policy.ReasonInconclusive
	d.Explained = "the decision cannot be recorded, and the configuration requires that it is"
	d.Hint = "see the log of Vidimus about decisions.path"
	d.Remedies = []policy.Remedy{{Do: d.Hint}}
	return d
}
