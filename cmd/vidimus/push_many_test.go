package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/access"
	"vidimus/verifier"
)

// Two replicas, which share nothing but the upstream, and several pushers at each, push
// the same image at once.
func TestPushersAtOnceOnTwoReplicas(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	index := lying.Index(lying.Image("one"), lying.Image("two"))
	replicas := []*pushing{newPushing(t, up), newPushing(t, up)}
	var group sync.WaitGroup
	for i := range 8 {
		p := replicas[i%2]
		group.Go(func() { p.created(p.image("local/acme/web", index, fmt.Sprintf("v%d", i))) })
	}
	group.Wait()
	p := replicas[0]
	p.neverUnsigned("acme/web", index)
	for i := range 8 {
		if status := p.pulls("local/acme/web", fmt.Sprintf("v%d", i)); status != http.StatusOK {
			t.Errorf("v%d is pulled with %d", i, status)
		}
	}
	// Who signs within one second claims the same, and is one signature; between them
	// the replicas cannot make more than there were pushes.
	if n := p.layersOf("acme/web", lying.SignatureTag(index.Digest())); n < 1 || n > 8 {
		t.Errorf("%d signatures", n)
	}
}

// who is whoever the header From names; all may push, signer may sign alone.
type who struct{}

func (who) Identify(r *http.Request) (access.Caller, error) {
	if name := r.Header.Get("From"); name != "" {
		return access.Caller{Kind: access.User, Name: name}, nil
	}
	return access.Caller{}, nil
}

func (who) Allows(caller access.Caller, _ string, action access.Action) bool {
	switch caller.Name {
	case "":
		return action == access.Pull
	case "signer":
		return action == access.Sign
	case "guest":
		return false
	}
	return action == access.Push || action == access.Pull
}

func (who) AllowsSome(access.Caller) bool { return true }

func TestTheSignatureSaysWhoPushed(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	p.use(func(r *proxy.Revision) { r.Access = who{} })
	image := lying.Image("pushed by alice")
	p.up.Push("acme/web", image)
	put := func(from, host, reference string, content lying.Content) (*http.Response, string) {
		header := http.Header{"Content-Type": {content.MediaType}, "From": {from}, "Host": {host}}
		return p.do("PUT", "/v2/local/acme/web/manifests/"+reference, header, content.Body)
	}
	p.created(put("alice", "registry.example", "v1", image)) // where callers are known, any host will do
	got := p.signatures("acme/web", image.Digest())
	if len(got) != 1 || got[0].annotations["vidimus.dev/pusher"] != "alice" {
		t.Fatalf("signed as %+v", got)
	}
	// Another's push is another claim.
	p.created(put("bob", "localhost", "v1", image))
	if n := len(p.signatures("acme/web", image.Digest())); n != 2 {
		t.Errorf("%d signatures after another pushed", n)
	}
	// No two callers have one name there, however long it is.
	long := strings.Repeat("spiffe://example.org/", 10)
	for _, name := range []string{long + "alice", long + "mallory"} {
		p.created(put(name, "localhost", "v1", image))
		if !slices.ContainsFunc(p.signatures("acme/web", image.Digest()), func(s signed) bool { return s.annotations["vidimus.dev/pusher"] == name }) {
			t.Errorf("no signature names %q", name)
		}
	}
	for _, test := range []struct {
		from, reference string
		content         lying.Content
		status          int
	}{
		{"", "v2", image, 401},
		{"guest", "v2", image, 403},
		{"signer", "v2", image, 403},
		{"signer", image.Digest().String(), image, 403},
	} {
		response, text := put(test.from, "localhost", test.reference, test.content)
		if response.StatusCode != test.status {
			t.Errorf("%q puts %s: %d %s", test.from, test.reference, response.StatusCode, text)
		}
	}
	// Who may sign puts evidence, and begins uploads.
	evidence := signatureBy(lying.P256(), "local/acme/web", image.Digest())
	for _, blob := range evidence.Blobs {
		p.up.PutBlob("acme/web", lying.Digest(blob).String(), blob)
	}
	p.created(put("signer", "localhost", lying.SignatureTag(image.Digest()), evidence))
	response, text := p.do("POST", "/v2/local/acme/web/blobs/uploads/", http.Header{"From": {"signer"}}, nil)
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("%d %s", response.StatusCode, text)
	}
	// Nobody goes on with another's upload.
	at := response.Header.Get("Location")
	for from, want := range map[string]int{"alice": 404, "": 401, "signer": 202} {
		if response, text := p.do("PATCH", at, http.Header{"From": {from}}, []byte("x")); response.StatusCode != want {
			t.Errorf("%q goes on: %d %s", from, response.StatusCode, text)
		}
	}
}

// use changes the revision in effect.
func (p *pushing) use(change func(*proxy.Revision)) {
	p.Helper()
	revision := *p.revision.Proxy
	change(&revision)
	if err := p.proxy.Use(&revision); err != nil {
		p.Fatal(err)
	}
}

// Under signedAs: exact the signature names the tag, or the push could not be pulled.
func TestExactPushesNameTheirTag(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	l := *p.loaded
	l.Policy.Policies = append([]policy.Policy(nil), l.Policy.Policies...)
	l.Policy.Policies[0].SignedAs = policy.Exact
	p.loaded = &l
	p.start()
	index := lying.Index(lying.Image("one"), lying.Image("two"))
	p.created(p.image("local/acme/web", index, "v1"))
	if got := p.signatures("acme/web", index.Digest()); len(got) != 1 || got[0].name != "local/acme/web:v1" {
		t.Errorf("signed as %+v", got)
	}
	p.up.Tag("acme/web", "stolen", index.Digest())
	for reference, want := range map[string]int{"v1": 200, "stolen": 403, index.Children[0].Digest().String(): 200} {
		if status := p.pulls("local/acme/web", reference); status != want {
			t.Errorf("%s is pulled with %d", reference, status)
		}
	}
}

func TestB8AManifestIsCheckedBeforeItIsPut(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image, index := lying.Image("checked"), lying.Index(lying.Image("child"))
	both := lying.RawManifest(image.MediaType, []byte(strings.Replace(string(image.Body), `"layers"`, `"manifests":[],"layers"`, 1)))
	listed := lying.Index(lying.Image("never pushed"))
	for _, test := range []struct {
		name, reference string
		content         lying.Content
		status          int
		code            string
	}{
		{"both an index and an image", "v1", both, 400, "MANIFEST_INVALID"},
		{"under another's Content-Type", "v1", lying.RawManifest(index.MediaType, image.Body), 400, "MANIFEST_INVALID"},
		{"no JSON", "v1", lying.RawManifest(image.MediaType, []byte("manifest")), 400, "MANIFEST_INVALID"},
		{"with two of a key", "v1", lying.RawManifest(image.MediaType, []byte(`{"schemaVersion":2,"schemaVersion":2}`)), 400, "MANIFEST_INVALID"},
		{"schema 1", "v1", lying.RawManifest("application/vnd.docker.distribution.manifest.v1+prettyjws", image.Body), 400, "MANIFEST_INVALID"},
		{"too large", "v1", lying.RawManifest(image.MediaType, make([]byte, verifier.MaxManifestSize+1)), 413, "SIZE_INVALID"},
		{"by another digest", index.Digest().String(), image, 400, "DIGEST_INVALID"},
		{"by a digest of another kind", "sha512:" + strings.Repeat("ab", 64), image, 400, "DIGEST_INVALID"},
	} {
		response, text := p.manifest("local/acme/web", test.reference, test.content)
		if response.StatusCode != test.status || !strings.Contains(text, test.code) {
			t.Errorf("%s: %d %s", test.name, response.StatusCode, text)
		}
	}
	if got := p.up.Log(); len(got) != 0 {
		t.Errorf("the upstream was asked %q", got)
	}
	// An index is not signed for what is not there.
	response, text := p.manifest("local/acme/web", "v1", listed)
	if response.StatusCode != 400 || !strings.Contains(text, "MANIFEST_BLOB_UNKNOWN") || len(p.up.Tags("acme/web")) != 0 {
		t.Errorf("an index of what is not there: %d %s; tags %q", response.StatusCode, text, p.up.Tags("acme/web"))
	}
}

// A push leaves a record before it takes effect, and another when the upstream refuses
// the tag in the end.
func TestAPushIsOnRecord(t *testing.T) {
	t.Parallel()
	p := newPushing(t, lying.Start(t))
	image := lying.Image("recorded")
	p.up.Prevent(lying.Manifest("acme/web", "v1").Method("PUT"), lying.Status(http.StatusForbidden))
	response, text := p.image("local/acme/web", image, "v1")
	if response.StatusCode != http.StatusForbidden || !strings.Contains(text, "no credentials that may write") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	var found []proxy.Record
	for line := range strings.Lines(p.records.String()) {
		var r proxy.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Action == "push" && r.Digest == image.Digest().String() {
			found = append(found, r)
		}
	}
	if len(found) != 2 || found[0].ID != found[1].ID || found[0].Decision != "allowed" || found[1].Decision != "inconclusive" ||
		len(found[1].Causes) == 0 || found[0].Policy != "local/acme/**" || found[0].Reference != "v1" {
		t.Errorf("records %+v", found)
	}
	if n := len(p.signatures("acme/web", image.Digest())); n != 1 {
		t.Errorf("%d signatures", n)
	}
}
