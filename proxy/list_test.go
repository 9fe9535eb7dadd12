package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
)

func TestBase(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/v2", "/v2/"} {
		a := w.get(path)
		if a.status != 200 || string(a.body) != "{}" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		checkHeaders(t, a.header, map[string]string{"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"})
		if a := w.head(path); a.status != 200 {
			t.Errorf("HEAD %s: %d", path, a.status)
		}
	}
	asked(t, w.up)
}

// D9: where the policy says nothing of pushes nothing is written through the proxy,
// and nothing is sent upstream.
func TestD9Methods(t *testing.T) {
	w := newWorld(t)
	hex := strings.Repeat("ab", 32)
	for _, path := range []string{
		manifestPath(web, "v1"), manifestPath(web, "sha256:"+hex), "/v2/" + web + "/blobs/sha256:" + hex, "/v2/" + web + "/blobs/uploads/",
		"/v2/" + web + "/blobs/uploads", "/v2/" + web + "/blobs/uploads/some-session?digest=sha256:" + hex, "/v2/" + web + "/tags/list",
		"/v2/" + web + "/referrers/sha256:" + hex, "/v2/_catalog", "/v2/", "/v2/ghcr.io/none/web/manifests/v1",
	} {
		known := []string{"GET", "HEAD"}
		switch {
		case strings.Contains(path, "/manifests/"):
			known = append(known, "PUT", "DELETE")
		case strings.Contains(path, "some-session"):
			known = []string{"GET", "PATCH", "PUT", "DELETE"}
		case strings.Contains(path, "uploads"):
			known = []string{"POST"}
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			a := w.do(method, path)
			refused(t, a, http.StatusMethodNotAllowed, "UNSUPPORTED", "")
			allow, want := a.header.Values("Allow"), strings.Join(known, ", ")
			pushes := slices.Contains(known, method)
			if pushes {
				if want = "GET, HEAD"; strings.Contains(path, "uploads") {
					want = "" // nothing is allowed there, and that is said
				}
			}
			if len(allow) != 1 || allow[0] != want {
				t.Errorf("%s %s: Allow %q, want %q", method, path, allow, want)
			}
			if message := fault(t, a).Errors[0].Message; pushes != strings.Contains(message, "push: unsigned, or push: {sign: AUTHORITY}") {
				t.Errorf("%s %s: %s", method, path, message)
			}
		}
	}
	refused(t, w.get("/v2/"+web+"/blobs/uploads/some-session"), http.StatusMethodNotAllowed, "UNSUPPORTED", "")
	refused(t, w.do("PUT", "/v2/quay.io/x/manifests/v1"), http.StatusForbidden, "DENIED", "no-upstream")
	asked(t, w.up)
	if got := w.records.list(); len(got) != 1 {
		t.Errorf("records %+v", got)
	}
}

// What makes an upload is how a path ends, not what its name holds.
func TestARepositoryNamedLikeAnUpload(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"acme/blobs/uploads/b", "acme/blobs/uploads", "acme/x/blobs/uploads/manifests"} {
		a := w.get(manifestPath("ghcr.io/"+name, "v1"))
		refused(t, a, 404, "MANIFEST_UNKNOWN", "")
		if message := fault(t, a).Errors[0].Message; !strings.HasSuffix(message, " holds no manifest "+name+":v1") {
			t.Error(message)
		}
		if a := w.get("/v2/ghcr.io/" + name + "/tags/list"); a.status == 405 {
			t.Errorf("tags of %s: %d %s", name, a.status, a.body)
		}
		refused(t, w.get("/v2/ghcr.io/"+name+"/blobs/uploads/"), 405, "UNSUPPORTED", "")
	}
}

type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

func TestTags(t *testing.T) {
	w := newWorld(t)
	all := []string{}
	for i := range 7 {
		all = append(all, fmt.Sprint("v", i))
	}
	w.up.Push("acme/web", lying.Image("web"), all...)
	list := func(t *testing.T, path string) (tagList, string) {
		t.Helper()
		a := w.get(path)
		var got tagList
		if a.status != 200 || json.Unmarshal(a.body, &got) != nil || got.Name != web || got.Tags == nil {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		checkHeaders(t, a.header, map[string]string{"Content-Type": "application/json", "Cache-Control": "private, no-cache"})
		next, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), `>; rel="next"`)
		return got, next
	}
	path := "/v2/" + web + "/tags/list"
	t.Run("all of them", func(t *testing.T) {
		if got, next := list(t, path); !slices.Equal(got.Tags, all) || next != "" {
			t.Errorf("%v, next %s", got.Tags, next)
		}
	})
	for _, n := range []int{1, 2, 3, 7, 8, 1e9} {
		t.Run(fmt.Sprint("in pages of ", n), func(t *testing.T) {
			var got []string
			for next := fmt.Sprint(path, "?n=", n); next != ""; {
				var page tagList
				page, next = list(t, next)
				if len(page.Tags) > n {
					t.Fatalf("a page of %d", len(page.Tags))
				}
				got = append(got, page.Tags...)
			}
			if diff := cmp.Diff(all, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a page of none is empty, and leads nowhere", func(t *testing.T) {
		if got, next := list(t, path+"?n=0"); len(got.Tags) != 0 || next != "" {
			t.Errorf("%v, next %s", got.Tags, next)
		}
	})
	t.Run("after one", func(t *testing.T) {
		if got, _ := list(t, path+"?last=v4"); !slices.Equal(got.Tags, []string{"v5", "v6"}) {
			t.Errorf("%v", got.Tags)
		}
	})
	for query, code := range map[string]string{"n=-1": "PAGINATION_NUMBER_INVALID", "n=x": "PAGINATION_NUMBER_INVALID", "last=../x": "TAG_INVALID", "last=%0a": "TAG_INVALID"} {
		t.Run("D13 "+query, func(t *testing.T) { refused(t, w.get(path+"?"+query), 400, code, "") })
	}
	t.Run("D13 a number that overflows", func(t *testing.T) {
		if got, _ := list(t, path+"?n=99999999999999999999999999"); len(got.Tags) != 7 {
			t.Errorf("%v", got.Tags)
		}
	})
	t.Run("of a repository that is not there", func(t *testing.T) {
		refused(t, w.get("/v2/ghcr.io/acme/none/tags/list"), 404, "NAME_UNKNOWN", "")
		refused(t, w.get("/v2/ghcr.io/acme/none/tags/list?n=0"), 404, "NAME_UNKNOWN", "")
	})
	t.Run("of a repository that is denied nobody is asked", func(t *testing.T) {
		w.up.Forget()
		refused(t, w.get("/v2/ghcr.io/old/web/tags/list"), 403, "DENIED", "policy-deny")
		refused(t, w.get("/v2/ghcr.io/none/web/tags/list"), 403, "DENIED", "no-policy")
		asked(t, w.up)
	})
	t.Run("with ns the next page keeps it", func(t *testing.T) {
		a := w.get("/v2/acme/web/tags/list?n=2&ns=ghcr.io")
		link, err := url.Parse(strings.Trim(strings.Split(a.header.Get("Link"), ";")[0], "<>"))
		if err != nil || link.Query().Get("ns") != "ghcr.io" || link.Path != "/v2/acme/web/tags/list" || link.Host != "" {
			t.Errorf("Link %s", a.header.Get("Link"))
		}
	})
	t.Run("what is no tag is left out", func(t *testing.T) {
		w.up.Lie(lying.Tags("acme/web"), lying.Body([]byte(`{"name":"x","tags":["ok","../evil","a\nb",""]}`)))
		if got, _ := list(t, path); !slices.Equal(got.Tags, []string{"ok"}) || got.Name != web {
			t.Errorf("%+v", got)
		}
	})
	for name, f := range map[string]lying.Fault{"endless": lying.Endless(), "no JSON": lying.Body([]byte("<html>")), "compressed": lying.Gzip()} {
		t.Run("B5 a list that is "+name, func(t *testing.T) {
			defer w.up.BeHonest()
			w.up.Lie(lying.Tags("acme/web"), f)
			refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
		})
	}
}

func TestCatalog(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	catalog := func(query string) ([]string, string) {
		t.Helper()
		a := w.get("/v2/_catalog" + query)
		var got struct{ Repositories []string }
		if a.status != 200 || json.Unmarshal(a.body, &got) != nil || got.Repositories == nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "</v2/_catalog"), `>; rel="next"`)
		return got.Repositories, next
	}
	if got, _ := catalog(""); len(got) != 0 {
		t.Errorf("at first: %v", got)
	}
	want := []string{}
	for i := range 5 {
		name := fmt.Sprint("acme/web", i)
		w.up.PushSigned(name, image, w.key, "v1")
		served(t, w.get(manifestPath("ghcr.io/"+name, "v1")), image)
		want = append(want, "ghcr.io/"+name)
	}
	w.up.Push("acme/secret", image, "v1")
	refused(t, w.get(manifestPath("ghcr.io/acme/secret", "v1")), 403, "DENIED", "unsigned")
	if got, _ := catalog(""); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for _, n := range []int{1, 2, 5, 1000000000} {
		var got []string
		for next := fmt.Sprint("?n=", n); next != ""; {
			var page []string
			page, next = catalog(next)
			got = append(got, page...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v", n, got)
		}
	}
	if got, next := catalog("?n=0"); len(got) != 0 || next != "" {
		t.Errorf("a page of none: %v %s", got, next)
	}
	if got, _ := catalog("?last=ghcr.io/acme/web3"); !slices.Equal(got, want[4:]) {
		t.Errorf("after the fourth: %v", got)
	}
	if got, _ := catalog("?last=%00%ff/../~"); len(got) > 5 {
		t.Errorf("garbage: %v", got)
	}
	refused(t, w.get("/v2/_catalog?n=-1"), 400, "PAGINATION_NUMBER_INVALID", "")
	w.use("two", func(s *settings) { s.policies[0].Match = match(t, "ghcr.io/acme/web0") })
	if got, _ := catalog("?n=1"); !slices.Equal(got, want[:1]) {
		t.Errorf("under a policy that covers one: %v", got)
	}
}

func referrersOf(t *testing.T, a answer) v1.IndexManifest {
	t.Helper()
	var index v1.IndexManifest
	if a.status != 200 || json.Unmarshal(a.body, &index) != nil || index.SchemaVersion != 2 || index.Manifests == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	checkHeaders(t, a.header, map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json", "Docker-Content-Digest": ""})
	return index
}

func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprint("the upstream has the API: ", api), func(t *testing.T) {
			w := newWorld(t)
			if !api {
				w.up.WithoutReferrers()
			}
			image := lying.Image("web")
			path := "/v2/" + web + "/referrers/" + image.Digest().String()
			w.up.PushSigned("acme/web", image, w.key, "v1")
			if got := referrersOf(t, w.get(path)); len(got.Manifests) != 0 {
				t.Errorf("at first: %+v", got.Manifests)
			}
			w.clock.pass(1e12)
			one, two := sbom(image.Descriptor()), bundle(image.Descriptor(), image.Digest())
			w.up.PushReferrer("acme/web", image.Digest(), one)
			w.up.PushReferrer("acme/web", image.Digest(), two)
			a := w.get(path)
			if got := referrersOf(t, a); len(got.Manifests) != 2 || a.header.Get("Oci-Filters-Applied") != "" {
				t.Errorf("both: %+v %v", got.Manifests, a.header)
			}
			a = w.get(path + "?artifactType=application/spdx%2Bjson")
			if got := referrersOf(t, a); len(got.Manifests) != 1 || got.Manifests[0].Digest != one.Digest() || a.header.Get("Oci-Filters-Applied") != "artifactType" {
				t.Errorf("filtered: %+v %v", got.Manifests, a.header)
			}
			a = w.get(path + "?artifactType=application/none")
			if got := referrersOf(t, a); len(got.Manifests) != 0 {
				t.Errorf("of another type: %+v", got.Manifests)
			}
			if a := w.head(path); a.status != 200 {
				t.Errorf("HEAD: %d", a.status)
			}
			w.use("two", func(s *settings) { s.revoked = []v1.Hash{one.Digest()} })
			if got := referrersOf(t, w.get(path)); len(got.Manifests) != 1 {
				t.Errorf("one is revoked: %+v", got.Manifests)
			}
			unsigned := lying.Image("unsigned")
			w.up.Push("acme/web", unsigned)
			refused(t, w.get("/v2/"+web+"/referrers/"+unsigned.Digest().String()), 403, "DENIED", "unsigned")
			if got := referrersOf(t, w.get("/v2/"+web+"/referrers/"+lying.Image("none").Digest().String())); len(got.Manifests) != 0 {
				t.Errorf("of a subject that is not there: %+v", got.Manifests)
			}
		})
	}
	t.Run("content that comes along in a descriptor does not pass", func(t *testing.T) {
		w := newWorld(t)
		image := lying.Image("web")
		w.up.PushSigned("acme/web", image, w.key, "v1")
		desc := sbom(image.Descriptor()).Descriptor()
		desc.Data, desc.URLs = []byte("payload"), []string{"https://evil.example"}
		w.up.Lie(lying.Referrers("acme/web", image.Digest()), lying.Content200(lying.IndexOf(desc)))
		got := referrersOf(t, w.get("/v2/"+web+"/referrers/"+image.Digest().String()))
		if len(got.Manifests) != 1 || got.Manifests[0].Data != nil || got.Manifests[0].URLs != nil {
			t.Errorf("%+v", got.Manifests)
		}
	})
	for name, f := range map[string]lying.Fault{"endless": lying.Endless(), "no JSON": lying.Body([]byte("{")), "another type": lying.ContentType("text/html")} {
		t.Run("B5 a list that is "+name, func(t *testing.T) {
			w := newWorld(t)
			image := lying.Image("web")
			w.up.PushSigned("acme/web", image, w.key, "v1")
			w.up.Lie(lying.Referrers("acme/web", image.Digest()), f)
			refused(t, w.get("/v2/"+web+"/referrers/"+image.Digest().String()), 502, "UNAVAILABLE", "upstream-mismatch")
		})
	}
	t.Run("a list that cannot be had is not an empty one", func(t *testing.T) {
		w := newWorld(t, enforcing(policy.Enforce))
		image := lying.Image("web")
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.Lie(lying.Referrers("acme/web", image.Digest()), lying.Status(500))
		refused(t, w.get("/v2/"+web+"/referrers/"+image.Digest().String()), 503, "UNAVAILABLE", "")
	})
}

// manyRepositories is an index that knows five thousand, and counts how often it is
// asked which.
type manyRepositories struct {
	*store.Store
	asked *atomic.Int32
}

func (m manyRepositories) Repositories(_ context.Context, n int, last string) ([]string, error) {
	m.asked.Add(1)
	var names []string
	for i := 0; i < 5000 && len(names) < n; i++ {
		if name := fmt.Sprintf("ghcr.io/acme/r%04d", i); name > last {
			names = append(names, name)
		}
	}
	return names, nil
}

// TestD13ThePageOfACallerWhoMayPullFromFewOfMany asks the index in steps of its own: a
// small page must not make as many questions as there are repositories.
func TestD13ThePageOfACallerWhoMayPullFromFewOfMany(t *testing.T) {
	var asked atomic.Int32
	w := newWorld(t, guarded("puller | ghcr.io/acme/r4990 ghcr.io/acme/r4999 | pull"), func(_ *world, s *settings) {
		s.index = func(held *store.Store) proxy.Index { return manyRepositories{held, &asked} }
	})
	first := w.get("/v2/_catalog?n=1", as("puller")...)
	next, _, _ := strings.Cut(strings.TrimPrefix(first.header.Get("Link"), "<"), ">")
	second := w.get(next, as("puller")...)
	if got := string(first.body) + string(second.body); got != `{"repositories":["ghcr.io/acme/r4990"]}{"repositories":["ghcr.io/acme/r4999"]}` || second.header.Get("Link") != "" {
		t.Errorf("%s %v", got, second.header)
	}
	if n := asked.Load(); n > 100 {
		t.Errorf("the index was asked %d times", n)
	}
}
