package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/prometheus/client_golang/prometheus"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/hook"
)

// hooked is a proxy whose upstream may tell of pushes, with what signs them running.
type hooked struct {
	*pushing
	queue     *hook.Queue
	directory string
	registry  *prometheus.Registry
	ended     chan error // an attempt each
	stop      func()
	late      time.Duration // since something was told, when it is tried
}

const hookToken = "the-token-of-the-registry"

func newHooked(t *testing.T, up *lying.Registry) *hooked {
	t.Helper()
	h := &hooked{pushing: newPushing(t, up), directory: t.TempDir(), registry: prometheus.NewRegistry()}
	h.loaded.HookToken = hookToken
	h.loaded.Policy.Policies = slices.Clone(h.loaded.Policy.Policies)
	told := *h.loaded.Policy.Policies[0].Push
	told.Hook = true
	h.loaded.Policy.Policies[0].Push = &told
	h.loaded.Policy.Revoked = []v1.Hash{lying.Image("revoked").Digest()}
	var err error
	if h.metrics, err = proxy.NewMetrics(h.registry); err != nil {
		t.Fatal(err)
	}
	h.restart()
	return h
}

// restart is a new process with the jobs of the one before.
func (h *hooked) restart() {
	h.Helper()
	var err error
	if h.queue, err = hook.Open(h.directory, nil); err != nil {
		h.Fatal(err)
	}
	h.hooks = h.queue
	h.start()
	h.run()
}

// run begins to sign what is told.
func (h *hooked) run() {
	ctx, cancel := context.WithCancel(context.Background())
	worker := h.proxy.HookWorker()
	do := worker.Do
	ended, done := make(chan error, 100), make(chan struct{})
	worker.Do = func(ctx context.Context, job *hook.Job) error {
		late := *job
		late.Told = late.Told.Add(-h.late)
		err := do(ctx, &late)
		ended <- err
		return err
	}
	go func() {
		defer close(done)
		h.queue.Run(ctx, worker)
	}()
	h.ended = ended
	h.stop = func() { cancel(); <-done }
	h.Cleanup(h.stop)
}

// tell sends a notification, and returns the answer.
func (h *hooked) tell(body string) (*http.Response, string) {
	h.Helper()
	return h.do("POST", "/hooks/push", http.Header{"Authorization": {"Bearer " + hookToken}}, []byte(body))
}

// event is distribution's notification of a tag.
func (h *hooked) event(id, repository, tag string, digest v1.Hash) string {
	text, err := json.Marshal(map[string]any{"events": []any{map[string]any{
		"id": id, "timestamp": time.Now(), "action": "push",
		"target":  map[string]any{"digest": digest.String(), "repository": repository, "tag": tag},
		"request": map[string]any{"host": h.up.Host}, "actor": map[string]any{"name": "mallory"},
	}}})
	if err != nil {
		h.Fatal(err)
	}
	return string(text)
}

// told tells of a tag, and returns what the attempt to sign it came to.
func (h *hooked) told(id, repository, tag string, digest v1.Hash) error {
	h.Helper()
	if response, text := h.tell(h.event(id, repository, tag, digest)); response.StatusCode != http.StatusAccepted {
		h.Fatalf("%d %s", response.StatusCode, text)
	}
	return h.attempt()
}

func (h *hooked) attempt() error {
	h.Helper()
	select {
	case err := <-h.ended:
		return err
	case <-time.After(30 * time.Second):
		h.Fatal("nothing was tried")
		return nil
	}
}

// counted returns a counter of the metrics; label is the value of its one label.
func (h *hooked) counted(name, label string) int {
	h.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	h.Errorf("there is no %s with %s", name, label)
	return -1
}

func TestWhatARegistryTellsIsSigned(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	index := lying.Index(lying.Image("one"), lying.Image("two"))
	h.up.Push("acme/web", index, "v1")
	if status := h.pulls("local/acme/web", "v1"); status != http.StatusForbidden {
		t.Fatalf("unsigned, it is pulled with %d", status)
	}
	if err := h.told("1", "acme/web", "v1", index.Digest()); err != nil {
		t.Fatal(err)
	}
	for _, content := range append(index.Children, index) {
		got := h.signatures("acme/web", content.Digest())
		if len(got) != 1 || got[0].name != "local/acme/web" || got[0].annotations["env"] != "test" || got[0].annotations["vidimus.dev/pushed"] == "" {
			t.Fatalf("signatures of %s: %v", content.Digest(), got)
		}
		if pusher, claimed := got[0].annotations["vidimus.dev/pusher"]; claimed {
			t.Errorf("%s is claimed to have pushed it", pusher)
		}
	}
	if status := h.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("signed, it is pulled with %d", status)
	}
	if log := h.records.String(); strings.Count(log, `"action":"hook"`) != 1 || !strings.Contains(log, `"reference":"v1"`) {
		t.Errorf("records:\n%s", log)
	}

	// Told once more it is looked at, and nothing is added; the same event is not even
	// looked at.
	if err := h.told("2", "acme/web", "v1", index.Digest()); err != nil {
		t.Fatal(err)
	}
	if n := h.layersOf("acme/web", lying.SignatureTag(index.Digest())); n != 1 {
		t.Errorf("%d signatures", n)
	}
	h.tell(h.event("1", "acme/web", "v1", index.Digest()))
	if got := h.counted("vidimus_hook_dropped_total", "seen"); got != 1 {
		t.Errorf("%d events were seen before", got)
	}
	if got := h.counted("vidimus_hook_attempts_total", "signed"); got != 2 {
		t.Errorf("%d attempts", got)
	}
	h.stop()
	if got := h.queue.Len(); got != 0 {
		t.Errorf("%d jobs are left", got)
	}
}

func TestWhatWasPushedThroughHereIsNotSignedTwice(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	image := lying.Image("through here")
	digest := h.up.Push("acme/web", image, "v1")
	err := h.revision.Proxy.Upstreams["local"].Signers["release"].Sign(t.Context(), proxy.SignRequest{
		Repository: "local/acme/web", Subjects: []proxy.SignSubject{{Digest: digest, Reference: "local/acme/web"}}, Formats: []string{"tag", "bundle"},
		Annotations: map[string]string{"env": "test", "vidimus.dev/pusher": "alice", "vidimus.dev/pushed": "2026-11-01T12:00:00Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.told("1", "acme/web", "v1", digest); err != nil {
		t.Fatal(err)
	}
	if got := h.signatures("acme/web", digest); len(got) != 1 || got[0].annotations["vidimus.dev/pusher"] != "alice" {
		t.Errorf("signatures %v", got)
	}
}

// Distribution tells of a tag before it is there.
func TestWhatIsToldEarlyIsSignedLater(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	image := lying.Image("early")
	h.up.Push("acme/web", lying.Image("before"), "v1")
	if err := h.told("1", "acme/web", "v1", image.Digest()); !errors.Is(err, hook.ErrEarly) || errors.Is(err, hook.ErrDone) {
		t.Fatalf("before the tag names it: %v", err)
	}
	h.up.Push("acme/web", image, "v1")
	if err := h.attempt(); err != nil {
		t.Fatal(err)
	}
	if got := h.signatures("acme/web", image.Digest()); len(got) != 1 {
		t.Errorf("signatures %v", got)
	}
}

func TestWhatIsToldIsNotBelieved(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	h.late = time.Minute
	image, other := lying.Image("told"), lying.Image("there")
	h.up.Push("acme/web", image)
	h.up.Push("acme/web", other, "v1")
	copied := lying.FallbackTag(other.Digest())
	list := lying.Index()
	h.up.Push("acme/web", list, copied)
	for _, test := range []struct {
		name, tag string
		digest    v1.Hash
		reason    string
	}{
		{"the tag names something else", "v1", image.Digest(), "moved"},
		{"the tag is not there", "v2", image.Digest(), "moved"},
		{"it is a list of referrers", copied, list.Digest(), "evidence"},
	} {
		err := h.told(test.name, "acme/web", test.tag, test.digest)
		if !errors.Is(err, hook.ErrDone) || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// An upstream that sends other bytes than it was told of.
	lie := h.up.Lie(lying.Manifest("acme/web", "v1"), lying.Body(image.Body), lying.DigestHeader(other.Digest().String()))
	if err := h.told("lie", "acme/web", "v1", other.Digest()); err == nil {
		t.Error("bytes that do not hash to what was told were signed")
	}
	lie.Stop()
	for _, content := range []lying.Content{image, other} {
		if got := h.signatures("acme/web", content.Digest()); len(got) > 0 {
			t.Errorf("signatures of %s: %v", content.Digest(), got)
		}
	}
	if puts := h.up.Log(lying.Manifest("acme/web", "").Method("PUT")); len(puts) > 0 {
		t.Errorf("the upstream was written to: %q", puts)
	}
}

// What can be told from the event alone reaches no upstream.
func TestWhatIsDroppedUnseen(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	image := lying.Image("dropped")
	h.stop() // what is queued stays so
	good := h.event("1", "acme/web", "v1", image.Digest())
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(good) }
	for _, test := range []struct{ name, body, reason string }{
		{"another registry's", replace(h.up.Host, "evil.example"), "upstream"},
		{"nobody's", replace(h.up.Host, ""), "upstream"},
		{"where the policy signs only what is pushed through here", replace("acme/web", "open/web"), "policy"},
		{"where nothing can be pushed", replace("acme/web", "closed/web"), "policy"},
		{"where there is no policy", replace("acme/web", "none/web"), "policy"},
		{"no digest", replace("sha256:", "sha512:"), "malformed"},
		{"no tag's name", replace(`"v1"`, `"../v1"`), "malformed"},
		{"no repository's name", replace("acme/web", "acme/../web"), "malformed"},
		{"a signature's tag", replace(`"v1"`, `"`+lying.SignatureTag(image.Digest())+`"`), "evidence"},
		{"revoked", replace(image.Digest().String(), lying.Image("revoked").Digest().String()), "revoked"},
		{"a pull", replace(`"push"`, `"pull"`), "other"},
		{"by digest", replace(`"v1"`, `""`), "other"},
		{"old", replace(fmt.Sprint(time.Now().UTC().Year()), "2001"), "old"},
		{"of the future", replace(fmt.Sprint(time.Now().UTC().Year()), "2999"), "old"},
	} {
		before := h.counted("vidimus_hook_dropped_total", test.reason)
		response, text := h.tell(test.body)
		if response.StatusCode != http.StatusAccepted || h.counted("vidimus_hook_dropped_total", test.reason) != before+1 {
			t.Errorf("%s: %d %s; not counted as %s", test.name, response.StatusCode, text, test.reason)
		}
	}
	if n := h.queue.Len(); n != 0 || len(h.up.Log()) != 0 {
		t.Errorf("%d jobs, and the upstream was asked %q", n, h.up.Log())
	}
	// Whichever way the registry is known.
	for i, host := range []string{h.up.Host, "local", "LOCAL", "local:443"} {
		h.tell(strings.NewReplacer(h.up.Host, host, `"v1"`, fmt.Sprintf(`"v%d"`, i)).Replace(good))
		if n := h.queue.Len(); n != i+1 {
			t.Errorf("told by %s, %d jobs", host, n)
		}
	}
	harbor := fmt.Sprintf(`{"type":"PUSH_ARTIFACT","occur_at":%d,"event_data":{"resources":[{"digest":%q,"tag":"h","resource_url":"%s/acme/web:h"}],
		"repository":{"repo_full_name":"acme/web"}}}`, time.Now().Unix(), image.Digest(), h.up.Host)
	if response, text := h.tell(harbor); response.StatusCode != http.StatusAccepted || h.queue.Len() != 5 {
		t.Errorf("Harbor is answered %d %s, and there are %d jobs", response.StatusCode, text, h.queue.Len())
	}
}

func TestWhoMayTellAndHow(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	h.stop()
	good := h.event("1", "acme/web", "v1", lying.Image("x").Digest())
	bearer := "Bearer " + hookToken
	for _, test := range []struct {
		name, method, authorization, body string
		status                            int
	}{
		{"nobody", "POST", "", good, 401},
		{"another token", "POST", "Bearer the-token-of-the-registrz", good, 401},
		{"a part of it", "POST", bearer[:len(bearer)-1], good, 401},
		{"another scheme", "POST", "Basic " + hookToken, good, 401},
		{"no scheme", "POST", hookToken, good, 401},
		{"nothing but the scheme", "POST", "Bearer ", good, 401},
		{"GET", "GET", bearer, "", 405},
		{"PUT", "PUT", bearer, good, 405},
		{"no JSON", "POST", bearer, "{", 400},
		{"another form", "POST", bearer, "{}", 400},
		{"too many events", "POST", bearer, `{"events":[` + strings.Repeat("{},", hook.MaxEvents) + "{}]}", 413},
		{"too large", "POST", bearer, good + strings.Repeat(" ", hook.MaxSize), 413},
		{"as it should be", "POST", "bearer " + hookToken, good, 202},
	} {
		response, text := h.do(test.method, "/hooks/push", http.Header{"Authorization": {test.authorization}}, []byte(test.body))
		if response.StatusCode != test.status || strings.Contains(text, hookToken) {
			t.Errorf("%s: %d %s", test.name, response.StatusCode, text)
		}
		if want := `Bearer realm="Vidimus hooks"`; test.status == 401 && response.Header.Get("Www-Authenticate") != want {
			t.Errorf("%s: the challenge is %q", test.name, response.Header.Get("Www-Authenticate"))
		}
		if allow := response.Header.Get("Allow"); test.status == 405 && allow != "POST" {
			t.Errorf("%s: Allow is %q", test.name, allow)
		}
	}
	if n := h.queue.Len(); n != 1 {
		t.Errorf("%d jobs", n)
	}

	// Another revision has another token, and a third none.
	for _, token := range []string{"another-token-of-it", ""} {
		next := *h.revision.Proxy
		next.HookToken = token
		if err := h.proxy.Use(&next); err != nil {
			t.Fatal(err)
		}
		want := http.StatusUnauthorized
		if token == "" {
			want = http.StatusMethodNotAllowed
		}
		if response, text := h.tell(good); response.StatusCode != want {
			t.Errorf("with the token %q: %d %s", token, response.StatusCode, text)
		}
	}
}

// Each request that signs what was told fails once. It is tried again, also by the
// next process.
func TestWhatFailsIsSignedInTheEnd(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	image := lying.Image("in the end")
	digest := h.up.Push("acme/web", image, "v1")
	lie := h.up.Lie(lying.Any(), lying.Status(http.StatusInternalServerError))
	if err := h.told("1", "acme/web", "v1", digest); err == nil || errors.Is(err, hook.ErrDone) {
		t.Fatalf("while the upstream fails: %v", err)
	}
	h.stop()
	if n := h.queue.Len(); n != 1 {
		t.Fatalf("%d jobs", n)
	}
	lie.Stop()

	h.restart()
	h.suspend(map[string]string{signerOf("release"): "release.key does not exist"})
	for {
		err := h.attempt()
		if err == nil {
			break // the new process was faster than the suspension
		}
		if errors.Is(err, hook.ErrDone) {
			t.Fatal(err)
		}
		h.suspend(nil)
	}
	if got := h.signatures("acme/web", digest); len(got) != 1 {
		t.Errorf("signatures %v", got)
	}
	if status := h.pulls("local/acme/web", "v1"); status != http.StatusOK {
		t.Errorf("it is pulled with %d", status)
	}
}

func TestAPolicyThatIsGoneSignsNothing(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	digest := h.up.Push("acme/web", lying.Image("gone"), "v1")
	h.stop()
	h.tell(h.event("1", "acme/web", "v1", digest))
	rule := *h.loaded.Policy.Policies[0].Push
	rule.Hook = false
	h.loaded.Policy.Policies[0].Push = &rule
	h.suspend(nil) // which makes another revision
	h.run()
	if err := h.attempt(); !errors.Is(err, hook.ErrDone) || !strings.Contains(err.Error(), "policy") {
		t.Errorf("the attempt comes to %v", err)
	}
	if got := h.signatures("acme/web", digest); len(got) != 0 {
		t.Errorf("signatures %v", got)
	}
}

func TestWhatIsNeverSignedIsOnRecord(t *testing.T) {
	t.Parallel()
	h := newHooked(t, lying.Start(t))
	job := hook.Job{ID: policy.NewID(), Repository: "local/acme/web", Tag: "v1", Digest: lying.Image("x").Digest().String(), Client: "192.0.2.1", Told: time.Now()}
	h.proxy.HookWorker().GiveUp(t.Context(), job, errors.New("the KMS is out"))
	var r proxy.Record
	if err := json.Unmarshal([]byte(h.records.String()), &r); err != nil {
		t.Fatal(err)
	}
	if r.ID != job.ID || r.Decision != "inconclusive" || r.Action != "hook" || r.Reference != "v1" || r.Digest != job.Digest || r.Client != job.Client || !slices.Contains(r.Causes, "the KMS is out") {
		t.Errorf("the record is %+v", r)
	}
}
