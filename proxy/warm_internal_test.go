package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

func TestADecisionStandsWhileTheCacheHoldsIt(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	allowed := func(id string) policy.Decision { return policy.Decision{ID: id, Allowed: true} }
	begin := func() (c *decisionCache, index, child *standing) {
		c = newDecisionCacheOf(4 * decisionSize)
		c.add(decisionKey{repository: "index"}, allowed("index"), now)
		index = c.standing("index")
		c.addDerived(decisionKey{repository: "child"}, allowed("child"), "index", now.Add(time.Hour))
		return c, index, c.standing("child")
	}
	t.Run("and not longer than itself or what it was derived from", func(t *testing.T) {
		_, index, child := begin()
		for at, want := range map[time.Duration]bool{0: true, 24*time.Hour - 1: true, 24 * time.Hour: false, 25*time.Hour - 1: false} {
			if index.stands(now.Add(at)) != want || child.stands(now.Add(at)) != want {
				t.Errorf("after %v: %v, %v", at, index.stands(now.Add(at)), child.stands(now.Add(at)))
			}
		}
	})
	t.Run("nor when another takes its place", func(t *testing.T) {
		c, index, child := begin()
		c.add(decisionKey{repository: "index"}, policy.Decision{ID: "again"}, now)
		if index.stands(now) || child.stands(now) || c.standing("index") != nil || c.standing("again") == nil {
			t.Error("it stands")
		}
	})
	t.Run("nor when there is no room for it", func(t *testing.T) {
		c, index, child := begin()
		for i := range 10 {
			c.add(decisionKey{repository: fmt.Sprint(i)}, allowed(fmt.Sprint(i)), now)
		}
		if index.stands(now) || child.stands(now) || c.bytes > 4*decisionSize || len(c.byID) != c.lru.Len() {
			t.Errorf("%d bytes, %d of %d", c.bytes, len(c.byID), c.lru.Len())
		}
	})
	t.Run("nor when nobody knows what it was derived from", func(t *testing.T) {
		c, _, _ := begin()
		c.addDerived(decisionKey{repository: "x"}, allowed("x"), "gone", now)
		if c.standing("x").stands(now) {
			t.Error("it stands")
		}
	})
}

// tags is an index of one tag alone.
type tags struct {
	Index
	digest    v1.Hash
	confirmed time.Time
	during    func() // once, within Tag, after what it returns was read
}

func (x *tags) Tag(context.Context, string, string) (v1.Hash, time.Time, error) {
	digest, confirmed := x.digest, x.confirmed
	if f := x.during; f != nil {
		x.during = nil
		f()
	}
	return digest, confirmed, nil
}

func (x *tags) SetTag(_ context.Context, _, _ string, digest v1.Hash, confirmed time.Time) error {
	x.digest, x.confirmed = digest, confirmed
	return nil
}

// idle is a gate that is not asked for decisions.
type idle struct{ Gate }

func (idle) Scope(string) policy.Scope { return policy.Scope{} }

func TestWhatTheShortPathStandsOn(t *testing.T) {
	m := &manifest{digest: digestOf([]byte("m")), bytes: []byte("m")}
	other := digestOf([]byte("other"))
	const name = "ghcr.io/acme/web"
	type world struct {
		*testing.T
		proxy *Proxy
		tags  *tags
		now   time.Time
		d     policy.Decision
	}
	confirm := func(w *world, tag string, digest v1.Hash) {
		if err := w.proxy.index.SetTag(w.Context(), name, tag, digest, w.now); err != nil {
			w.Error(err)
		}
	}
	for what, test := range map[string]struct {
		before, after func(w *world) // the long path answers
		want          bool
	}{
		"all as it was":               {nil, nil, true},
		"shortly before it ends":      {nil, func(w *world) { w.now = w.now.Add(answerKept - 1) }, true},
		"it is time to look again":    {nil, func(w *world) { w.now = w.now.Add(answerKept) }, false},
		"the clock was put back":      {nil, func(w *world) { w.now = w.now.Add(-1) }, false},
		"the tag is due":              {func(w *world) { w.tags.confirmed = w.now.Add(1 - 30*time.Second) }, func(w *world) { w.now = w.now.Add(1) }, false},
		"the tag is due soon":         {func(w *world) { w.tags.confirmed = w.now.Add(1 - 30*time.Second) }, nil, true},
		"the tag was confirmed later": {func(w *world) { w.tags.confirmed = w.now.Add(1) }, nil, false},
		"the tag means another":       {func(w *world) { w.tags.digest = other }, nil, false},
		"the tag has moved":           {nil, func(w *world) { confirm(w, "v1", other) }, false},
		"the tag was confirmed again": {nil, func(w *world) { confirm(w, "v1", m.digest) }, false},
		"the tag is gone":             {nil, func(w *world) { confirm(w, "v1", v1.Hash{}) }, false},
		"another tag has moved":       {nil, func(w *world) { confirm(w, "v2", other) }, true},
		"the tag moved before":        {func(w *world) { confirm(w, "v1", other); confirm(w, "v1", m.digest) }, nil, true},
		"the tag moved meanwhile":     {func(w *world) { w.tags.during = func() { confirm(w, "v1", other) } }, nil, false},
		"there and back":              {func(w *world) { w.tags.during = func() { confirm(w, "v1", other); confirm(w, "v1", m.digest) } }, nil, false},
		"its decision was replaced": {nil, func(w *world) {
			w.proxy.current.Load().decisions.add(decisionKey{repository: name}, policy.Decision{ID: "x"}, w.now)
		}, false},
		"its decision denies":             {func(w *world) { w.d.Allowed = false }, nil, false},
		"its decision is about a subject": {func(w *world) { w.d.About = other.String() }, nil, false},
		"its decision was not kept":       {func(w *world) { w.d.ID = "another" }, nil, false},
		"its manifest is not in memory":   {nil, func(w *world) { w.proxy.manifests.remove(m.digest) }, false},
		"another revision": {nil, func(w *world) {
			if err := w.proxy.Use(&Revision{Gate: idle{}, TagTTL: time.Minute}); err != nil {
				w.Error(err)
			}
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			w := &world{T: t, now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), d: policy.Decision{ID: "id", Allowed: true}}
			w.tags = &tags{digest: m.digest, confirmed: w.now}
			var err error
			w.proxy, err = New(Config{
				Store: struct{ Store }{}, Index: w.tags, Recorder: NewDecisionLog(nil), Now: func() time.Time { return w.now },
			}, &Revision{Gate: idle{}, TagTTL: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			w.proxy.manifests.add(m)
			at := placeOf(name)
			request := func() *request {
				q := newRequest(w.proxy, w.proxy.current.Load(), httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/"+name+"/manifests/v1", nil))
				if q.route, err = parseRoute(q.path); err != nil {
					t.Fatal(err)
				}
				return q
			}
			q := request()
			q.decisions.add(decisionKey{repository: name}, w.d, w.now)
			if a, _ := q.again(at); a != nil {
				t.Fatal("there is an answer before any")
			}
			if test.before != nil {
				test.before(w)
			}
			q.decided(w.d)
			q.keepAnswer(t.Context(), q.view(at), m, w.d)
			if test.after != nil {
				test.after(w)
			}
			a, held := request().again(at)
			if (a != nil) != test.want || a != nil && (held != m || a.name != name || a.id[0] != "id") {
				t.Errorf("answers again: %+v, want %v", a, test.want)
			}
		})
	}
}
