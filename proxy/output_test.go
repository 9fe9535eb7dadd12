package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/proxy/store"
	"vidimus/verifier"
)

// series counts the time series of all metrics.
func (w *world) series() int {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, family := range families {
		n += len(family.Metric)
	}
	return n
}

func TestD10SeriesDoNotGrowWithWhatClientsSend(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	flood := func(i int) {
		name := fmt.Sprint("acme/x", i)
		w.get(manifestPath("ghcr.io/"+name, "v1"))
		w.get(manifestPath(web, fmt.Sprint("t", i)))
		w.get(manifestPath(fmt.Sprint("registry", i, ".example/x"), "v1"))
		w.get(manifestPath(fmt.Sprint("ghcr.io/none/x", i), "v1"))
		w.get(blobPath(web, lying.Digest(fmt.Append(nil, i))))
		w.get(fmt.Sprint("/other/", i))
		w.get(fmt.Sprint("/v2/a/b/tags/list?ns=", i, ".example"), "User-Agent", fmt.Sprint("agent", i), "Host", fmt.Sprint("host", i))
		w.do(fmt.Sprint("M", i), manifestPath(web, "v1"))
		pull(t, w, web, "v1", image)
	}
	flood(0)
	before := w.series()
	for i := range 100 {
		flood(i + 1)
	}
	if after := w.series(); after != before || before == 0 {
		t.Errorf("%d series, %d before", after, before)
	}
}

func TestD11NothingIsInjectedIntoTheLog(t *testing.T) {
	const canary = "CANARY"
	w := newWorld(t)
	w.up.Push("acme/web", lying.Image("web"), "v1")
	w.up.Lie(lying.Manifest("acme/web", "evil"), lying.Status(500), lying.Body([]byte("{\"errors\":[{\"code\":\"X\\n{\\\"msg\\\":\\\""+canary+"\\\"}\"}]}")))
	w.up.Lie(lying.Manifest("acme/web", "raw"), lying.Raw("HTTP/1.1 500 \x1b[31m"+canary+"\r\nContent-Length: 0\r\n\r\n"))
	w.up.Lie(lying.Manifest("acme/web", "type"), lying.ContentType("text/plain; x=\x1b[31m"+canary))
	answers := []answer{
		w.get(manifestPath(web, "v1"), "User-Agent", "x\x1b[31m\u2028\u0085"+canary),
		w.get(manifestPath(web, "evil")), w.get(manifestPath(web, "raw")), w.get(manifestPath(web, "type")),
		w.rawPath("/v2/x%0a%1b[31m" + canary + "/manifests/v1"),
		w.rawPath("/v2/x/manifests/v1?ns=a%0d%0aX-Evil:%20" + canary),
		w.raw("GET", "GET /v2/ghcr.io/acme/web/manifests/v1 HTTP/1.1\r\nHost: v\r\nUser-Agent: a\x1b[2Jb\r\nX-Forwarded-For: \x1b[31m\r\nConnection: close\r\n\r\n"),
	}
	for _, a := range answers {
		if strings.ContainsAny(string(a.body), "\x1b\u2028\u0085") || strings.Count(string(a.body), "\n") > 1 || a.header.Get("X-Evil") != "" {
			t.Errorf("%d %q", a.status, a.body)
		}
	}
	for line := range strings.Lines(w.log.String()) {
		var event struct {
			Msg string `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &event) != nil || event.Msg == canary || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\n\r") {
			t.Errorf("a line that is no event: %q", line)
		}
	}
	for _, r := range w.records.list() {
		if strings.ContainsAny(r.UserAgent+r.Client+r.Explained, "\x1b\n\u2028") {
			t.Errorf("record %+v", r)
		}
	}
}

// E5: what the upstreams are told is told nobody else.
func TestE5Secrets(t *testing.T) {
	w := newWorld(t, withPassword)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: true})
	pull(t, w, web, "v1", image)
	var out strings.Builder
	record := func(a answer) { fmt.Fprintf(&out, "%d %v %s\n", a.status, a.header, a.body) }
	secrets := []string{password, "cm9ib3Q6", "token-"}
	for _, faults := range [][]lying.Fault{
		{lying.Challenge(`Bearer realm="http://169.254.169.254/` + password + `"`)},
		{lying.Status(500), echo}, {lying.Status(403), echo}, {lying.Status(400), echo}, {lying.Redirect(307, "http://robot:"+password+"@127.0.0.1:1/?token="+password)},
		{lying.ContentType(password)}, {lying.Body([]byte(password))},
	} {
		lie := w.up.Lie(lying.Manifest("acme/web", ""), faults...)
		record(w.get(manifestPath(web, "v2")))
		record(w.get(manifestPath(web, tag(image.Digest()))))
		lie.Stop()
		lie = w.up.Lie(lying.Tags("acme/web"), faults...)
		record(w.get("/v2/" + web + "/tags/list"))
		lie.Stop()
	}
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		fmt.Fprintln(&out, family)
	}
	records, err := json.Marshal(w.records.list())
	if err != nil {
		t.Fatal(err)
	}
	out.Write(records)
	out.WriteString(w.log.String())
	for _, secret := range secrets {
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("%s is in: %.500s", secret, line)
			}
		}
	}
}

// echo sends back what it was sent.
func echo(a *lying.Answer) {
	a.Body = fmt.Appendf(nil, `{"errors":[{"code":"UNAUTHORIZED","message":%q}]}`, a.Request.Header)
}

func TestD12WhoAClientIs(t *testing.T) {
	w := newWorld(t)
	w.up.Push("acme/web", lying.Image("web"), "v1")
	w.get(manifestPath(web, "v1"), "X-Forwarded-For", "203.0.113.7")
	if got := w.records.list()[0].Client; got != "127.0.0.1" {
		t.Errorf("client %q", got)
	}
}

func TestExplainDecidesAsAPullDoes(t *testing.T) {
	w := newWorld(t)
	image, unsigned := lying.Image("web"), lying.Image("unsigned")
	w.up.PushSigned("acme/web", lying.Index(image), w.key, "latest", "v1")
	w.up.Push("acme/web", unsigned, "v2")
	for name, test := range map[string]struct {
		allowed   bool
		reason    string
		status    int
		undecided bool
	}{
		web: {allowed: true}, web + ":v1": {allowed: true}, web + "@" + lying.Index(image).Digest().String(): {allowed: true},
		web + ":v9@" + lying.Index(image).Digest().String(): {allowed: true},
		web + ":v2":            {reason: "unsigned"},
		web + ":none":          {status: 404},
		"quay.io/x":            {status: 403},
		"acme/web":             {status: 403},
		web + ":../x":          {status: 400},
		"UPPER/case":           {status: 400},
		"":                     {status: 400},
		"ghcr.io/none/web:v1":  {status: 404},
		"docker.io/nginx:1.29": {status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := w.proxy.Explain(t.Context(), name)
			if test.status != 0 {
				if err == nil || proxy.AsError(err).Status != test.status {
					t.Fatalf("%+v, %v", e.Decision, err)
				}
				return
			}
			if err != nil || e.Decision.Allowed != test.allowed || e.Decision.Reason != test.reason {
				t.Fatalf("%+v, %v", e.Decision, err)
			}
		})
	}
	w.up.Lie(lying.Manifest("acme/web", ""), lying.Status(500))
	w.use("two", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
	w.clock.pass(2 * time.Hour)
	if _, err := w.proxy.Explain(t.Context(), web+"@"+lying.Index(image).Digest().String()); err == nil || !proxy.AsError(err).Undecided() {
		t.Errorf("without evidence: %v", err)
	}
}

// blind is a store that cannot be read for a while, though it holds content.
type blind struct {
	*store.Store
	dark *bool
}

func (b blind) Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error) {
	if *b.dark {
		return nil, 0, errors.New("input/output error")
	}
	return b.Store.Open(ctx, digest)
}

// What the store turns out to hold is not lent to a repository whose upstream
// was never asked.
func TestAStoreThatCannotBeReadLendsNothing(t *testing.T) {
	var dark bool
	w := newWorld(t, func(_ *world, s *settings) {
		s.store = func(held *store.Store) proxy.Store { return blind{held, &dark} }
	})
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	pull(t, w, web, "v1", image)
	w.up.PushSigned("acme/two", image, w.key, "v1")
	layer := lying.Digest(image.Blobs[1])
	w.up.Delete("acme/two", layer)
	const two = "ghcr.io/acme/two"
	served(t, w.get(manifestPath(two, "v1")), image)
	dark = true
	for range 2 {
		refused(t, w.get(blobPath(two, layer)), 404, "BLOB_UNKNOWN", "")
		dark = false
	}
	servedBlob(t, w.get(blobPath(web, layer)), image.Blobs[1])
}
