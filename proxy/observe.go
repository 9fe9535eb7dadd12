package proxy

import (
	"context"

	"vidimus/policy"
	"vidimus/verifier"
)

// observe lets a manifest pass, and decides about it behind the answer. What it
// returns carries the identifier that the answer gives and its record has: that
// of the decision that stands, or else one of its own that the evaluation is
// handed.
func (v *view) observe(ctx context.Context, m *manifest, tag string, scope policy.Scope, a asker) policy.Decision {
	now := v.proxy.now()
	key := v.keyUnder(scope, m, tag)
	own, decided := v.decisions.get(key, now)
	key.via = "observed by digest"
	if tag != "" {
		key.via = "observed by tag"
	}
	known, ok := v.observed.get(key, now)
	switch {
	case ok:
	case decided:
		known = own
	default:
		known = policy.Decision{ID: policy.NewID(), Allowed: true, Expires: now.Add(2 * verifier.DecisionTime)}
		v.observed.add(key, known, now)
	}
	a.id = known.ID
	v.proxy.behind(ctx, func(ctx context.Context) {
		d, err := v.admission(ctx, m, tag, a)
		if err != nil {
			v.proxy.logger.Info("observed without a decision", "id", a.id, "repository", v.name, "digest", m.digest.String(), "err", err)
			v.observed.add(key, policy.Decision{Expires: now}, now) // the next one has another identifier
		} else {
			v.observed.add(key, d, now)
		}
		v.note(ctx, d, err, a) // what fails is in the log
		if !ok && !decided && d.ID != "" && d.ID != a.id {
			// decided meanwhile for another, or through another manifest
			d.ID = a.id
			v.noteOnce(ctx, d, err, a)
		}
	})
	return policy.Decision{ID: known.ID, Enforcement: policy.Observe}
}
