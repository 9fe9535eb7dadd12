package proxy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
)

// references are what the records of one decision were asked for under.
func (w *world) references(id string) []string {
	var references []string
	for _, r := range w.records.list() {
		if r.ID == id {
			references = append(references, r.Reference)
		}
	}
	slices.Sort(references)
	return references
}

// logged returns the log's lines with this message.
func (w *world) logged(message string) []map[string]any {
	w.t.Helper()
	var found []map[string]any
	for line := range strings.Lines(w.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			w.t.Fatal(err)
		}
		if fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

func TestP9NoUpstreamIsADecision(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for _, test := range []struct{ name, path, repository, reference, digest, hint string }{
		{"by the path", "/v2/quay.io/acme/web/manifests/v1", "quay.io/acme/web", "v1", "", "add quay.io to upstreams"},
		{"by ns", "/v2/acme/web/manifests/v1?ns=quay.io", "quay.io/acme/web", "v1", "", "add quay.io to upstreams"},
		{"by both", "/v2/quay.io/acme/web/manifests/v1?ns=quay.io", "quay.io/acme/web", "v1", "", "add quay.io to upstreams"},
		{"a digest", "/v2/quay.io/acme/web/manifests/sha256:" + hex, "quay.io/acme/web", "sha256:" + hex, "sha256:" + hex, "add quay.io to upstreams"},
		{"a blob", "/v2/quay.io/acme/web/blobs/sha256:" + hex, "quay.io/acme/web", "sha256:" + hex, "sha256:" + hex, "add quay.io to upstreams"},
		{"tags", "/v2/quay.io/acme/web/tags/list", "quay.io/acme/web", "tags/list", "", "add quay.io to upstreams"},
		{"no registry at all", "/v2/acme/web/manifests/v1", "acme/web", "v1", "", "put an upstream's name in front of the repository, or set defaultUpstream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.get(test.path, "User-Agent", "containerd/2.3")
			refused(t, a, 403, "DENIED", "no-upstream")
			_, ns, _ := strings.Cut(test.path, "ns=")
			checkHeaders(t, a.header, map[string]string{"Oci-Namespace": ns})
			records := w.records.list()
			if len(records) != 1 {
				t.Fatalf("records %+v", records)
			}
			r := records[0]
			if r.ID == "" || r.ID != a.header.Get("X-Request-Id") || r.Decision != "denied" || r.Reason != "no-upstream" || r.Served ||
				r.Repository != test.repository || r.Reference != test.reference || r.Digest != test.digest || r.Hint != test.hint ||
				r.Client != "127.0.0.1" || r.UserAgent != "containerd/2.3" || r.Revision != "one" || r.Enforcement != "enforce" {
				t.Errorf("%+v", r)
			}
			e := fault(t, a).Errors[0]
			d := e.Detail
			if d.ID != r.ID || d.Repository != test.repository || d.Reference != test.reference || d.Digest != test.digest || d.Hint != test.hint {
				t.Errorf("detail %+v", d)
			}
			if !strings.Contains(e.Message, "[id "+r.ID+"]") {
				t.Errorf("message %q", e.Message)
			}
			if got := w.metric(`vidimus_decisions_total`, "policy", "none", "enforcement", "enforce", "reason", "no-upstream"); got != 1 {
				t.Errorf("counted %v", got)
			}
			if lines := w.logged("request"); len(lines) != 1 || lines[0]["reason"] != "no-upstream" || lines[0]["id"] != r.ID {
				t.Errorf("log %v", lines)
			}
			asked(t, w.up)
		})
	}
	t.Run("the same name shares one within five seconds", func(t *testing.T) {
		w := newWorld(t)
		for i := range 20 {
			refused(t, w.get(manifestPath("quay.io/acme/web", fmt.Sprint("v", i))), 403, "DENIED", "no-upstream")
			w.clock.pass(time.Second / 5)
		}
		if got := w.records.list(); len(got) != 1 {
			t.Errorf("%d records", len(got))
		}
		w.clock.pass(time.Second)
		refused(t, w.get(manifestPath("quay.io/acme/web", "v1")), 403, "DENIED", "no-upstream")
		refused(t, w.get(manifestPath("quay.io/acme/two", "v1")), 403, "DENIED", "no-upstream")
		if got := w.records.list(); len(got) != 3 {
			t.Errorf("%d records after them", len(got))
		}
	})
	t.Run("no flood of names is one of records or series", func(t *testing.T) {
		w := newWorld(t)
		before := 0
		for i := range 1000 {
			name := fmt.Sprintf("r%d.example/acme/web", i)
			a := w.get(manifestPath(name, "v1"))
			refused(t, a, 403, "DENIED", "no-upstream")
			if d := fault(t, a).Errors[0].Detail; d.Repository != name || len(w.references(d.ID)) != 1 {
				t.Fatalf("%s: %+v", name, d)
			}
			if i == 0 {
				before = w.series()
			}
		}
		if got := len(w.records.list()); got > 257 {
			t.Errorf("%d records", got)
		}
		if got := w.series(); got != before {
			t.Errorf("%d series, at first %d", got, before)
		}
	})
	t.Run("one that must be recorded and cannot is no denial", func(t *testing.T) {
		w := newWorld(t, func(_ *world, s *settings) { s.requireRecord = true })
		w.records.breakWith(errors.New("disk full"))
		refused(t, w.get(manifestPath("quay.io/acme/web", "v1")), 503, "UNAVAILABLE", "inconclusive")
		w.records.breakWith(nil)
		refused(t, w.get(manifestPath("quay.io/acme/web", "v1")), 403, "DENIED", "no-upstream")
	})
	t.Run("explain is told the same", func(t *testing.T) {
		w := newWorld(t)
		_, err := w.proxy.Explain(t.Context(), "quay.io/acme/web:v1")
		if e := proxy.AsError(err); e.Status != 403 || e.Detail == nil || e.Detail.Hint != "add quay.io to upstreams" {
			t.Errorf("%+v", e)
		}
	})
}

func TestAMismatchIsLoggedWithItsReason(t *testing.T) {
	image := imageOf(noiseBytes(3, 1<<20))
	layer := lying.Digest(image.Blobs[1])
	for name, path := range map[string]string{"a manifest": byDigest(web, image), "a blob": blobPath(web, layer)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			reference := image.Digest()
			if name == "a blob" {
				served(t, w.get(manifestPath(web, "v1")), image)
				reference = layer
				w.up.Lie(lying.Blob("acme/web", layer), lying.FlipByte(-1))
			} else {
				w.up.Lie(lying.Manifest("acme/web", reference.String()), lying.FlipByte(30))
			}
			a := w.get(path)
			neverWhole(t, a)
			w.server.Close() // the log's line comes after the answer
			lines := w.logged("request")
			last := lines[len(lines)-1]
			if last["level"] != "WARN" || last["reason"] != "upstream-mismatch" || last["repository"] != web || last["reference"] != reference.String() || last["id"] != a.header.Get("X-Request-Id") {
				t.Errorf("%v", last)
			}
		})
	}
}

func TestEveryReferenceIsOnRecord(t *testing.T) {
	image := lying.Image("web")
	for _, signed := range []bool{true, false} {
		t.Run(fmt.Sprint("signed ", signed), func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1", "v2", "v3")
			if signed {
				w.up.Sign("acme/web", image.Digest(), w.key)
			}
			var id string
			for range 3 {
				for _, reference := range []string{"v1", image.Digest().String(), "v2"} {
					a := w.get(manifestPath(web, reference), "User-Agent", reference)
					if id == "" {
						id = a.header.Get("X-Request-Id")
					}
					if got := a.header.Get("X-Request-Id"); got != id || a.whole() != signed {
						t.Fatalf("%s: id %s, at first %s, status %d", reference, got, id, a.status)
					}
				}
				w.clock.pass(time.Second)
			}
			if diff := cmp.Diff([]string{"v1", "v2"}, w.references(id)); diff != "" {
				t.Error(diff)
			}
			records := w.records.list()
			if len(records) != 2 {
				t.Fatalf("%d records", len(records))
			}
			first, second := records[0], records[1]
			if second.UserAgent != "v2" {
				t.Errorf("asked by %q", second.UserAgent)
			}
			second.UserAgent, second.Reference = first.UserAgent, first.Reference
			if diff := cmp.Diff(first, second); diff != "" {
				t.Errorf("the same decision (-first +second):\n%s", diff)
			}
			reason := map[bool]string{true: "allowed", false: "unsigned"}[signed]
			if got := w.metric("vidimus_decisions_total", "policy", "acme", "enforcement", "enforce", "reason", reason); got != 1 {
				t.Errorf("counted %v", got)
			}
		})
	}
	t.Run("asked by digest first", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		a := w.get(byDigest(web, image))
		pull(t, w, web, "v1", image)
		if diff := cmp.Diff([]string{image.Digest().String(), "v1"}, w.references(a.header.Get("X-Request-Id"))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("one that must be recorded and cannot is not acted upon", func(t *testing.T) {
		w := newWorld(t, func(_ *world, s *settings) { s.requireRecord = true })
		w.up.PushSigned("acme/web", image, w.key, "v1", "v2")
		served(t, w.get(manifestPath(web, "v1")), image)
		w.records.breakWith(errors.New("disk full"))
		served(t, w.get(manifestPath(web, "v1")), image)
		refused(t, w.get(manifestPath(web, "v2")), 503, "UNAVAILABLE", "inconclusive")
		w.records.breakWith(nil)
		served(t, w.get(manifestPath(web, "v2")), image)
		if got := w.records.list(); len(got) != 2 {
			t.Errorf("%d records", len(got))
		}
	})
}

func TestADecisionsDetailHasOneShape(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t)
	w.up.Push("acme/web", image, "v1")
	w.up.Push("acme/doubt", image, "v1")
	w.up.Lie(lying.Manifest("acme/doubt", tag(image.Digest())), lying.Status(500))
	w.up.Push("acme/wrong", image, "v1")
	w.up.Lie(lying.Manifest("acme/wrong", "v1"), lying.Body([]byte("{")))
	full := []string{"digest", "evidence", "hint", "id", "policy", "reason", "reference", "repository"}
	for path, want := range map[string][]string{
		manifestPath(web, "v1"): full, byDigest(web, image): full, manifestPath("ghcr.io/acme/doubt", "v1"): full,
		manifestPath("ghcr.io/none/web", "v1") + "x": nil, "/v2/ghcr.io/old/web/tags/list": full, "/v2/ghcr.io/none/web/tags/list": full,
		manifestPath("quay.io/web", "v1"): full, manifestPath("ghcr.io/acme/wrong", "v1"): {"reason"},
	} {
		a := w.get(path)
		var e struct {
			Errors []struct{ Detail map[string]json.RawMessage }
		}
		if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 {
			t.Fatalf("%s: %v %s", path, err, a.body)
		}
		var got []string
		for name, value := range e.Errors[0].Detail {
			got = append(got, name)
			if name == "evidence" && value[0] != '[' || name != "evidence" && value[0] != '"' {
				t.Errorf("%s: %s is %s", path, name, value)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

func TestExceptionsAreLoud(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t, func(w *world, s *settings) {
		s.exceptions = []policy.Exception{{Match: match(w.t, web), Digests: []v1.Hash{image.Digest()}, Until: w.clock.now().AddDate(0, 0, 20), Reason: "INC-4711"}}
	})
	w.up.Push("acme/web", image, "v1", "v2")
	want := map[string]string{"Warning": `299 - "vidimus: served under exception INC-4711 until 2026-11-21"`}
	for range 2 {
		for _, reference := range []string{"v1", "v2", image.Digest().String()} {
			a := w.get(manifestPath(web, reference))
			served(t, a, image)
			checkHeaders(t, a.header, want)
		}
		a := w.get(blobPath(web, lying.Digest(image.Blobs[1])))
		servedBlob(t, a, image.Blobs[1])
		checkHeaders(t, a.header, want)
		a = w.get(manifestPath(web, "v1"), "If-None-Match", "*")
		if checkHeaders(t, a.header, want); a.status != 304 {
			t.Errorf("status %d", a.status)
		}
	}
	lines := w.logged("allowed under an exception")
	if len(lines) != 1 || lines[0]["level"] != "WARN" || lines[0]["exception"] != "INC-4711" || lines[0]["until"] != "2026-11-21" || lines[0]["digest"] != image.Digest().String() {
		t.Errorf("log %v", lines)
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	w := newWorld(t)
	w.up.PushSigned("acme/web", lying.Image("web"), w.key, "v1")
	none := lying.Image("none").Digest().String()
	for path, want := range map[string]string{
		manifestPath(web, "v9"):                       "the upstream registry ghcr.io holds no manifest acme/web:v9",
		manifestPath(web, none):                       "the upstream registry ghcr.io holds no manifest acme/web@" + none,
		"/v2/nginx/manifests/1.29?ns=index.docker.io": "the upstream registry docker.io holds no manifest library/nginx:1.29",
		"/v2/ghcr.io/acme/none/tags/list":             "the upstream registry ghcr.io knows no repository acme/none",
	} {
		a := w.get(path)
		if got := fault(t, a).Errors[0].Message; a.status != 404 || got != want {
			t.Errorf("%s: %d %q, want %q", path, a.status, got, want)
		}
	}
	_, err := w.proxy.Explain(t.Context(), web+":v9")
	if got := proxy.AsError(err); got.Message != "the upstream registry ghcr.io holds no manifest acme/web:v9" || got.Status != 404 {
		t.Errorf("explain: %+v", got)
	}
}

// metric is the value of the counter or gauge with these labels, name and value in turn.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			var got []string
			for _, label := range m.Label {
				got = append(got, label.GetName(), label.GetValue())
			}
			if family.GetName() == name && len(got) == len(labels) && subset(labels, got) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func subset(pairs, of []string) bool {
	for pair := range slices.Chunk(pairs, 2) {
		i := slices.Index(of, pair[0])
		if i < 0 || of[i+1] != pair[1] {
			return false
		}
	}
	return true
}
