package proxy_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
	"vidimus/verifier"
)

func TestATokenHostThatFails(t *testing.T) {
	image := lying.Image("web")
	for _, test := range []struct {
		name  string
		fault lying.Fault
		stale bool
	}{
		{"500", lying.Status(500), true},
		{"503", lying.Status(503), true},
		{"429", lying.Status(429), true},
		{"a reset", lying.Reset(), true},
		{"401", lying.Challenge(`Basic realm="x"`), false},
		{"403", lying.Status(403), false},
		{"404", lying.NotFound(), false}, // says nothing about the image
		{"400", lying.Status(400), false},
		{"no token", lying.Body([]byte("{}")), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.Require(lying.Access{Bearer: true})
			w.up.Push("open/web", image, "v1")
			path := manifestPath(openWeb, "v1")
			served(t, w.get(path), image)
			w.up.ExpireTokens()
			w.up.Lie(lying.Token(), test.fault)
			w.clock.pass(time.Minute)
			a := w.get(path)
			if !test.stale {
				if a.whole() {
					t.Errorf("served, %v", a.header)
				}
				if strings.Contains(string(a.body), w.up.Host) {
					t.Errorf("the client is told where tokens come from: %s", a.body)
				}
				return
			}
			served(t, a, image)
			checkHeaders(t, a.header, map[string]string{"Age": "60"})
		})
	}
}

func TestATagInDoubt(t *testing.T) {
	one, two := lying.Image("one"), lying.Image("two")
	path, otherPath := manifestPath(openWeb, "v1"), manifestPath(openWeb, "v2")
	begin := func(t *testing.T, faults ...lying.Fault) (*world, *lying.Lie) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1", "v2")
		served(t, w.get(path), one)
		served(t, w.get(otherPath), one)
		w.up.Push("open/web", two, "v1")
		w.clock.pass(time.Minute)
		w.up.Forget()
		return w, w.up.Lie(lying.Manifest("open/web", "v1"), faults...)
	}
	v1Held := func(content lying.Content, status int) string { return fmt.Sprintf("v1 %s %d", short(content), status) }

	t.Run("is not asked about for five seconds, and then once more", func(t *testing.T) {
		w, _ := begin(t, lying.Status(500))
		for range 3 {
			served(t, w.get(path), one)
			w.clock.pass(2 * time.Second)
		}
		served(t, w.get(path), one)
		w.clock.pass(4 * time.Second)
		served(t, w.get(path), one)
		revalidated(t, w.up, v1Held(one, 500), v1Held(one, 500))
		if got := w.logged("an upstream cannot be asked about a tag"); len(got) != 1 {
			t.Errorf("logged %v", got)
		}
	})
	t.Run("is in doubt no more when it was answered", func(t *testing.T) {
		w, lie := begin(t, lying.Status(500))
		served(t, w.get(path), one)
		lie.Stop()
		w.clock.pass(5 * time.Second)
		served(t, w.get(path), two)
		w.clock.pass(time.Minute)
		lie = w.up.Lie(lying.Manifest("open/web", "v1"), lying.Status(500))
		served(t, w.get(path), two)
		lie.Stop()
		served(t, w.get(path), two)
		revalidated(t, w.up, v1Held(one, 500), v1Held(one, 200), v1Held(two, 500))
	})
	t.Run("is left alone as long as the upstream asked, within five minutes", func(t *testing.T) {
		for asked, pause := range map[time.Duration]time.Duration{
			time.Minute: time.Minute, time.Second: 5 * time.Second, time.Hour: 5 * time.Minute,
		} {
			// one second is waited for and tried again below the proxy
			fault := lying.RetryAfter(asked)
			if asked == time.Second {
				fault = lying.Header("Retry-After")
			}
			w, _ := begin(t, lying.Status(500), fault)
			served(t, w.get(path), one)
			w.clock.pass(pause - time.Second)
			served(t, w.get(path), one)
			revalidated(t, w.up, v1Held(one, 500))
			w.clock.pass(time.Second)
			served(t, w.get(path), one)
			revalidated(t, w.up, v1Held(one, 500))
		}
	})
	t.Run("is asked about when what is known is too old", func(t *testing.T) {
		w, _ := begin(t, lying.Status(500))
		w.clock.pass(59*time.Minute - time.Second)
		served(t, w.get(path), one)
		w.clock.pass(time.Second)
		refused(t, w.get(path), 503, "UNAVAILABLE", "")
		refused(t, w.get(path), 503, "UNAVAILABLE", "")
		revalidated(t, w.up, v1Held(one, 500), v1Held(one, 500), v1Held(one, 500))
	})
	t.Run("is asked about when the clock was set back, for how long ago that was is not known", func(t *testing.T) {
		w, lie := begin(t, lying.Status(500))
		w.clock.pass(-time.Hour)
		refused(t, w.get(path), 503, "UNAVAILABLE", "")
		lie.Stop()
		served(t, w.get(path), two)
		revalidated(t, w.up, v1Held(one, 500), v1Held(one, 200))
	})
	t.Run("says nothing about others", func(t *testing.T) {
		w, _ := begin(t, lying.Status(500))
		served(t, w.get(path), one)
		served(t, w.get(otherPath), one)
		revalidated(t, w.up, v1Held(one, 500), "v2 "+short(one)+" 304")
	})
	t.Run("is asked about under a new revision", func(t *testing.T) {
		w, lie := begin(t, lying.Status(500))
		served(t, w.get(path), one)
		lie.Stop()
		w.use("two", func(*settings) {})
		served(t, w.get(path), two)
	})
	t.Run("is none that was refused", func(t *testing.T) {
		w, lie := begin(t, lying.Status(403))
		refused(t, w.get(path), 403, "DENIED", "")
		refused(t, w.get(path), 403, "DENIED", "")
		lie.Stop()
		served(t, w.get(path), two)
		revalidated(t, w.up, v1Held(one, 403), v1Held(one, 403), v1Held(one, 200))
	})
}

// origin is an upstream that answers manifests by tag as the test says.
type origin struct {
	proxy.Upstream // nothing else is asked of it
	asked          atomic.Int32

	mu     sync.Mutex
	answer func(ctx context.Context) (lying.Content, error)
}

func (o *origin) Manifest(ctx context.Context, _, _ string, held v1.Hash) ([]byte, string, bool, error) {
	o.asked.Add(1)
	o.mu.Lock()
	answer := o.answer
	o.mu.Unlock()
	content, err := answer(ctx)
	if err != nil {
		return nil, "", false, err
	}
	if content.Digest() == held {
		return nil, "", true, nil
	}
	return content.Body, content.MediaType, false, nil
}

func (o *origin) use(answer func(ctx context.Context) (lying.Content, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

// after answers when that time is over.
func after(d time.Duration, content lying.Content, err error) func(context.Context) (lying.Content, error) {
	return func(ctx context.Context) (lying.Content, error) {
		select {
		case <-time.After(d):
			return content, err
		case <-ctx.Done():
			return lying.Content{}, ctx.Err()
		}
	}
}

// upstreamFault is a proxy.Fault.
type upstreamFault string

func (f upstreamFault) Error() string           { return string(f) }
func (f upstreamFault) Kind() string            { return string(f) }
func (upstreamFault) RetryAfter() time.Duration { return 0 }

// hour is longer than anybody waits.
const hour = time.Hour

// getter asks a proxy for a tag, as a client with that patience, and tells how long
// the answer took.
type getter func(tag string, patience ...time.Duration) (*httptest.ResponseRecorder, time.Duration)

// slow runs f with a proxy before an origin that has just confirmed a tag, which
// is to be asked about again. Time is the bubble's.
func slow(t *testing.T, image lying.Content, f func(t *testing.T, o *origin, get getter)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: after(0, image, nil)}
		set, err := policy.New(policy.Config{Revision: "one", Policies: []policy.Policy{{Name: "open", Match: match(t, "**"), AllowUnverified: true}}})
		if err != nil {
			t.Fatal(err)
		}
		held, err := store.Open(store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := proxy.New(proxy.Config{Store: held, Index: held, Recorder: &records{}}, &proxy.Revision{
			ID: "one", Gate: policy.NewEvaluator(set, verifier.Sources(), policy.Options{}), TagTTL: 30 * time.Second, MaxStale: time.Hour,
			Upstreams: map[string]proxy.Registered{"ghcr.io": {Upstream: o}},
		})
		if err != nil {
			t.Fatal(err)
		}
		get := func(tag string, patience ...time.Duration) (*httptest.ResponseRecorder, time.Duration) {
			begun := time.Now()
			r := httptest.NewRequest(http.MethodGet, manifestPath(openWeb, tag), nil)
			for _, patience := range patience {
				ctx, leave := context.WithTimeout(r.Context(), patience)
				defer leave()
				r = r.WithContext(ctx)
			}
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			return w, time.Since(begun)
		}
		if w, _ := get("v1"); w.Code != http.StatusOK {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		o.asked.Store(0)
		f(t, o, get)
		time.Sleep(time.Minute) // whatever is still being asked
		p.Close()
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnUpstreamThatHangs(t *testing.T) {
	one, two := lying.Image("one"), lying.Image("two")
	// wants is an answer of so many seconds with this content, stale or not.
	wants := func(t *testing.T, get getter, content lying.Content, stale bool, seconds int) {
		t.Helper()
		w, took := get("v1")
		if w.Code != 200 || w.Body.String() != string(content.Body) || (w.Header().Get("Warning") != "") != stale || took != time.Duration(seconds)*time.Second {
			t.Errorf("%d after %s, Warning %q, Age %s", w.Code, took, w.Header().Get("Warning"), w.Header().Get("Age"))
		}
	}
	refuses := func(t *testing.T, get getter, status int, seconds int) {
		t.Helper()
		if w, took := get("v1"); w.Code != status || took != time.Duration(seconds)*time.Second {
			t.Errorf("%d after %s, want %d after %d s", w.Code, took, status, seconds)
		}
	}

	t.Run("costs one wait of five seconds, and not one for each request", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(hour, one, nil))
			var first sync.WaitGroup
			for range 10 {
				first.Go(func() { wants(t, get, one, true, 5) })
			}
			first.Wait()
			for range 5 {
				wants(t, get, one, true, 0)
				time.Sleep(time.Second)
			}
			first.Go(func() { wants(t, get, one, true, 5) })
			synctest.Wait()
			for range 5 {
				wants(t, get, one, true, 0)
			}
			first.Wait()
			if got := o.asked.Load(); got != 1 {
				t.Errorf("asked %d times", got)
			}
		})
	})
	t.Run("and answers late is heard", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(8*time.Second, two, nil))
			wants(t, get, one, true, 5)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			wants(t, get, two, false, 0)
			if got := o.asked.Load(); got != 1 {
				t.Errorf("asked %d times", got)
			}
		})
	})
	t.Run("and answers in time is waited for", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(4*time.Second, two, nil))
			wants(t, get, two, false, 4)
		})
	})
	t.Run("and refuses late is waited for the next time", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(8*time.Second, two, upstreamFault(proxy.KindForbidden)))
			wants(t, get, one, true, 5)
			time.Sleep(4 * time.Second)
			refuses(t, get, 403, 8)
			refuses(t, get, 403, 8)
			o.use(after(8*time.Second, two, nil))
			wants(t, get, two, false, 8)
			time.Sleep(time.Minute)
			o.use(after(hour, two, nil)) // that is over: it answered
			wants(t, get, two, true, 5)
		})
	})
	t.Run("and says late that the tag is gone is believed", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(8*time.Second, two, fs.ErrNotExist))
			wants(t, get, one, true, 5)
			time.Sleep(4 * time.Second)
			refuses(t, get, 404, 8)
			o.use(after(20*time.Second, two, nil))
			wants(t, get, two, false, 20)
		})
	})
	t.Run("is waited for when nothing is known, or too long ago", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(40*time.Second, two, nil))
			if w, took := get("new"); w.Code != 200 || took != 40*time.Second {
				t.Errorf("%d after %s", w.Code, took)
			}
			o.use(after(hour, one, nil))
			wants(t, get, one, true, 5)
			time.Sleep(time.Hour)
			refuses(t, get, 503, 60)
		})
	})
	t.Run("and who leaves does not put the tag in doubt", func(t *testing.T) {
		slow(t, one, func(t *testing.T, o *origin, get getter) {
			o.use(after(3*time.Second, two, nil))
			if _, took := get("v1", time.Second); took != time.Second {
				t.Errorf("left after %s", took)
			}
			wants(t, get, two, false, 2)
			if got := o.asked.Load(); got != 1 {
				t.Errorf("asked %d times", got)
			}
		})
	})
}
