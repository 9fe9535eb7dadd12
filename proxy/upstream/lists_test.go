package upstream

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// listAll reads a list of tags page by page, as a client of the proxy does.
func listAll(t *testing.T, c *Client, n int) []string {
	t.Helper()
	var all []string
	last := ""
	for range 100 {
		tags, more, err := c.Tags(t.Context(), "acme/web", n, last)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tags...)
		if !more {
			return all
		}
		last = all[len(all)-1]
	}
	t.Fatal("the list does not end")
	return nil
}

// tagRegistry serves tags with pages of at most most tags; its links are marked
// by mark(index of the first tag of the next page), which find turns back.
func tagRegistry(tags []string, most int, mark func(int) string, find func(*http.Request) int) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		from := find(r)
		to := min(from+most, len(tags))
		if n, err := strconv.Atoi(r.URL.Query().Get("n")); err == nil {
			to = min(to, from+n)
		}
		if to < len(tags) {
			rw.Header().Set("Link", fmt.Sprintf(`<%s?n=%s&%s>; rel="next"`, r.URL.Path, r.URL.Query().Get("n"), mark(to)))
		}
		fmt.Fprintf(rw, `{"name": "acme/web", "tags": ["%s"]}`, strings.Join(tags[from:to], `","`))
	}
}

func TestTagPages(t *testing.T) {
	tags := strings.Split("a b c d e f g", " ")
	byLast := tagRegistry(tags, 3, func(at int) string { return "last=" + tags[at-1] }, func(r *http.Request) int {
		return slices.Index(tags, r.URL.Query().Get("last")) + 1
	})
	byOpaqueLast := tagRegistry(tags, 3, func(at int) string { return "last=opaque" + strconv.Itoa(at) }, func(r *http.Request) int {
		at, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Query().Get("last"), "opaque"))
		return at
	})
	byPage := tagRegistry(tags, 3, func(at int) string { return "next_page=" + strconv.Itoa(at) }, func(r *http.Request) int {
		at, _ := strconv.Atoi(r.URL.Query().Get("next_page"))
		return at
	})
	whole := tagRegistry(tags, 100, nil, func(*http.Request) int { return 0 })
	ignoresN := func(rw http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = ""
		whole(rw, r)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"by the last tag": byLast, "by an opaque last": byOpaqueLast, "by marks of its own": byPage, "all at once": ignoresN,
	} {
		for _, n := range []int{0, 1, 2, 3, 7, 100, -1} {
			t.Run(fmt.Sprintf("%s, %d at a time", name, n), func(t *testing.T) {
				_, c := plainRegistry(t, handler, nil)
				if diff := cmp.Diff(tags, listAll(t, c, n)); diff != "" {
					t.Errorf("tags (-want +got):\n%s", diff)
				}
			})
		}
	}

	t.Run("a page goes on where the registry said, with one request", func(t *testing.T) {
		h, c := plainRegistry(t, byPage, nil)
		listAll(t, c, 3)
		want := []string{"GET /v2/acme/web/tags/list?n=3", "GET /v2/acme/web/tags/list?n=3&next_page=3", "GET /v2/acme/web/tags/list?n=3&next_page=6"}
		if diff := cmp.Diff(want, h.lines()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
	t.Run("a page that nobody remembers is looked for", func(t *testing.T) {
		_, c := plainRegistry(t, byPage, nil)
		got, more, err := c.Tags(t.Context(), "acme/web", 3, "e")
		if diff := cmp.Diff([]string{"f"}, got); diff != "" || !more || err != nil {
			t.Errorf("%v, %v (-want +got):\n%s", more, err, diff)
		}
	})
	t.Run("a tag that is in no page is taken as understood", func(t *testing.T) {
		_, c := plainRegistry(t, byPage, nil)
		got, more, err := c.Tags(t.Context(), "acme/web", 3, "zzz")
		if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" || !more || err != nil {
			t.Errorf("%v, %v (-want +got):\n%s", more, err, diff)
		}
	})
	t.Run("a mark that has expired is not the end", func(t *testing.T) {
		expired := false
		h, c := plainRegistry(t, func(rw http.ResponseWriter, r *http.Request) {
			if expired && r.URL.Query().Has("next_page") {
				rw.WriteHeader(http.StatusBadRequest)
				return
			}
			byLast(rw, r)
		}, nil)
		c.marks.set(tagMark{"acme/web", 3, "c"}, "next_page=gone")
		expired = true
		got, _, err := c.Tags(t.Context(), "acme/web", 3, "c")
		if diff := cmp.Diff([]string{"d", "e", "f"}, got); diff != "" || err != nil || len(h.lines()) != 2 {
			t.Errorf("%v after %q (-want +got):\n%s", err, h.lines(), diff)
		}
	})
}

func TestTagAnswers(t *testing.T) {
	link := func(target string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Link", "<"+target+`>; rel="next"`)
			fmt.Fprint(rw, `{"tags": []}`)
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   []string
		kind   string
		asked  int
	}{
		{"null is none", text(`{"name": "acme/web", "tags": null}`), nil, "none", 1},
		{"what is no tag is left out", text(`{"tags": ["ok", "", "a/b", "../x", "a\nb", "-x"]}`), []string{"ok"}, "none", 1},
		{"not JSON", text(`<html>`), nil, KindMismatch, 1},
		{"tags that are numbers", text(`{"tags": [1]}`), nil, KindMismatch, 1},
		{"404", http.NotFound, nil, "", 1},
		{"a link to another host", link("https://evil.test/v2/acme/web/tags/list?last=a"), nil, KindRefused, 1},
		{"a link to another host without a scheme", link("//evil.test/v2/acme/web/tags/list?last=a"), nil, KindRefused, 1},
		{"a link to http", link("http://registry.example/v2/acme/web/tags/list?last=a"), nil, KindRefused, 1},
		{"a link to the metadata service", link("https://169.254.169.254/?last=a"), nil, KindRefused, 1},
		{"a link to a user name", link("https://u:p@registry.example/?last=a"), nil, KindRefused, 1},
		{"a link that is none", link("https://[::1"), nil, KindMismatch, 1},
		{"a link with a broken query", link("?last=%zz"), nil, KindMismatch, 1},
		{"a link to itself", link(""), nil, KindMismatch, 1},
		{"links in a circle", func(rw http.ResponseWriter, r *http.Request) {
			other := map[string]string{"a": "b", "b": "a", "": "a"}[r.URL.Query().Get("last")]
			link("?last="+other)(rw, r)
		}, nil, KindMismatch, 3},
		{"a million pages", func(rw http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("last"))
			link("?last="+strconv.Itoa(n+1))(rw, r)
		}, nil, KindMismatch, 32},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			evil := w.serve("https", "evil.test", text("{}"))
			h := w.serve("https", "registry.example", tt.answer)
			got, more, err := w.client(h, nil).Tags(t.Context(), "acme/web", 0, "")
			wantKind(t, err, tt.kind)
			if diff := cmp.Diff(tt.want, got); len(tt.want)+len(got) > 0 && diff != "" || more {
				t.Errorf("%v (-want +got):\n%s", more, diff)
			}
			if len(h.lines()) != tt.asked || len(evil.lines()) != 0 {
				t.Errorf("asked %d times, want %d; another host %q", len(h.lines()), tt.asked, evil.lines())
			}
		})
	}
	t.Run("a link to another path keeps to the path that was asked for", func(t *testing.T) {
		h, c := plainRegistry(t, func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" {
				link("/v2/secret/tags/list?last=x")(rw, r)
				return
			}
			fmt.Fprint(rw, `{"tags": ["y"]}`)
		}, nil)
		if _, _, err := c.Tags(t.Context(), "acme/web", 0, ""); err != nil {
			t.Fatal(err)
		}
		if got := h.last().line; got != "GET /v2/acme/web/tags/list?last=x" {
			t.Errorf("asked %s", got)
		}
	})
}

// index returns an answer of the referrers API.
func index(contentType string, descriptors ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", contentType)
		fmt.Fprintf(rw, `{"schemaVersion": 2, "mediaType": "x", "manifests": [%s], "annotations": {"a": "b"}}`, strings.Join(descriptors, ","))
	}
}

func descriptor(hex string, artifactType string) string {
	return fmt.Sprintf(`{"mediaType": "m", "size": 3, "digest": "sha256:%s", "artifactType": %q, "annotations": {"k": "v"}}`, strings.Repeat(hex, 64), artifactType)
}

func digests(descriptors []v1.Descriptor) string {
	var text strings.Builder
	for _, d := range descriptors {
		text.WriteString(d.Digest.Hex[:1])
	}
	return text.String()
}

func TestReferrers(t *testing.T) {
	subject := digestOf(t, "subject")
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	const absent = "no API"
	a, b, untyped := descriptor("a", "A"), descriptor("b", "B"), descriptor("c", "")
	for _, tt := range []struct {
		name         string
		answer       http.HandlerFunc
		artifactType string
		want         string // the first digits of the digests
		kind         string
	}{
		{"none", index(indexType), "", "", "none"},
		{"two", index(indexType, a, b), "", "ab", "none"},
		{"with a parameter in the type", index(indexType+"; charset=utf-8", a), "", "a", "none"},
		{"in another case", index(strings.ToUpper(indexType), a), "", "a", "none"},
		{"as plain JSON", index("application/json", a), "", "a", "none"},
		{"as a page for people", index("text/html", a), "", "", KindMismatch},
		{"without a type", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = nil
			fmt.Fprint(rw, `{"manifests":[]}`)
		}, "", "", KindMismatch},
		{"filtered by us", index(indexType, a, b, untyped), "B", "b", "none"},
		{"filtered by the registry, which leaves the type out", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("OCI-Filters-Applied", "artifactType")
			index(indexType, untyped, a)(rw, r)
		}, "B", "c", "none"},
		{"what has no digest is left out", index(indexType, `{}`, `1`, `null`, `{"digest": "md5:00"}`, `{"digest": "sha256:../.."}`, b), "", "b", "none"},
		{"null is none", answered(`{"manifests": null}`), "", "", "none"},
		{"no list", answered(`{}`), "", "", KindMismatch},
		{"an error in a 200", answered(`{"errors": []}`), "", "", KindMismatch},
		{"a list that is none", answered(`{"manifests": {}}`), "", "", KindMismatch},
		{"an array", answered(`[]`), "", "", KindMismatch},
		{"cut JSON", answered(`{"manifests": [{}`), "", "", KindMismatch},
		{"not JSON", answered(`nothing`), "", "", KindMismatch},
		{"404", status(404), "", "", absent},
		{"400", status(400), "", "", absent},
		{"405", status(405), "", "", absent},
		{"406", status(406), "", "", absent},
		{"401", status(401), "", "", KindUnauthorized},
		{"403", status(403), "", "", KindForbidden},
		{"410", status(410), "", "", KindMismatch},
		{"500", status(500), "", "", KindUnavailable},
		{"501", status(501), "", "", KindUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, c := plainRegistry(t, tt.answer, nil)
			got, err := c.Referrers(t.Context(), "acme/web", subject, tt.artifactType)
			if digests(got) != tt.want {
				t.Errorf("got %v", got)
			}
			if isAbsent := errors.Is(err, fs.ErrNotExist); isAbsent != (tt.kind == absent) || !isAbsent && kindOf(err) != tt.kind {
				t.Errorf("got %v, want %s", err, tt.kind)
			}
			want := "GET /v2/acme/web/referrers/" + subject.String()
			if tt.artifactType != "" {
				want += "?artifactType=" + tt.artifactType
			}
			if got := h.last().line; got != want {
				t.Errorf("asked %s, want %s", got, want)
			}
		})
	}

	paged := func(last http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("p") == "2" {
				last(rw, r)
				return
			}
			rw.Header().Set("Link", `<?p=2>; rel="next"`)
			index(indexType, a)(rw, r)
		}
	}
	t.Run("all pages count", func(t *testing.T) {
		_, c := plainRegistry(t, paged(index(indexType, b)), nil)
		got, err := c.Referrers(t.Context(), "acme/web", subject, "")
		if digests(got) != "ab" || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("a later page that is missing is no missing API", func(t *testing.T) {
		for _, code := range []int{404, 400} {
			_, c := plainRegistry(t, paged(status(code)), nil)
			got, err := c.Referrers(t.Context(), "acme/web", subject, "")
			if got != nil || errors.Is(err, fs.ErrNotExist) || kindOf(err) != KindMismatch {
				t.Errorf("%d: got %v, %v", code, got, err)
			}
		}
	})
	t.Run("what lies within the bounds comes together with an error", func(t *testing.T) {
		_, c := plainRegistry(t, index(indexType, a, b), func(config *Config) { config.Limits.Referrers = 1 })
		got, err := c.Referrers(t.Context(), "acme/web", subject, "")
		if digests(got) != "a" || kindOf(err) != KindMismatch {
			t.Errorf("descriptors: got %v, %v", got, err)
		}
		_, c = plainRegistry(t, paged(index(indexType, b)), func(config *Config) { config.Limits.Pages = 1 })
		got, err = c.Referrers(t.Context(), "acme/web", subject, "")
		if digests(got) != "a" || kindOf(err) != KindMismatch {
			t.Errorf("pages: got %v, %v", got, err)
		}
		_, c = plainRegistry(t, paged(index(indexType, b)), func(config *Config) { config.Limits.Page = int64(len(a)) + 150 })
		got, err = c.Referrers(t.Context(), "acme/web", subject, "")
		if digests(got) != "a" || kindOf(err) != KindMismatch {
			t.Errorf("bytes: got %v, %v", got, err)
		}
	})
	t.Run("no page is read after more bytes than one may have", func(t *testing.T) {
		page := func(rw http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("p"))
			rw.Header().Set("Link", fmt.Sprintf(`<?p=%d>; rel="next"`, n+1))
			index(indexType, a+strings.Repeat(" ", 1000))(rw, r)
		}
		h, c := plainRegistry(t, page, func(config *Config) { config.Limits.Page = 1500 })
		got, err := c.Referrers(t.Context(), "acme/web", subject, "")
		if digests(got) != "aa" || kindOf(err) != KindMismatch || !strings.HasSuffix(h.last().line, "?p=1") {
			t.Errorf("got %v, %v after %s", got, err, h.last().line)
		}
	})
	t.Run("a page of empty descriptors takes bounded memory", func(t *testing.T) {
		bomb := strings.Repeat("{},", 1<<20) + "{}"
		_, c := plainRegistry(t, index(indexType, bomb), nil)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, err := c.Referrers(t.Context(), "acme/web", subject, "")
		runtime.ReadMemStats(&after)
		if len(got) != 0 || kindOf(err) != KindMismatch {
			t.Errorf("%d, %v", len(got), err)
		}
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
	})
}

func answered(body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", indexType)
		fmt.Fprint(rw, body)
	}
}
