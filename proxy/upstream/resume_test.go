package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// fragile serves a blob with ranges, and breaks off each answer after so many
// bytes, as long as there are any in breaks.
type fragile struct {
	mu      sync.Mutex
	content string
	etags   []string
	breaks  []int
}

func (f *fragile) change(content string, etags ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content, f.etags = content, etags
}

func (f *fragile) serve(rw http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	content, etags, cut := f.content, f.etags, len(f.content)
	if len(f.breaks) > 0 {
		cut, f.breaks = f.breaks[0], f.breaks[1:]
	}
	f.mu.Unlock()
	rw.Header()["Etag"] = etags
	status := http.StatusOK
	condition := r.Header.Get("If-Range")
	if spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && (condition == "" || len(etags) == 1 && condition == etags[0]) {
		from, err := strconv.Atoi(strings.TrimSuffix(spec, "-"))
		if err != nil || from >= len(content) {
			rw.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		content, status = content[from:], http.StatusPartialContent
	}
	rw.Header().Set("Content-Length", strconv.Itoa(len(content)))
	rw.WriteHeader(status)
	if cut < len(content) {
		_, _ = io.WriteString(rw, content[:cut])
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(rw, content)
}

// read reads a blob from offset on, up to its end or a break.
func read(t *testing.T, c *Client, repository string, digest v1.Hash, offset int64) (string, error) {
	t.Helper()
	body, _, err := c.Blob(t.Context(), repository, digest, offset)
	if err != nil {
		return "", err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	return string(content), err
}

// conditions returns Range and If-Range of each request.
func (h *host) conditions() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var conditions []string
	for _, r := range h.requests {
		conditions = append(conditions, strings.TrimSpace(r.header.Get("Range")+" "+strings.Join(r.header.Values("If-Range"), "|")))
	}
	return conditions
}

func TestResumedTransfers(t *testing.T) {
	const content, other = "0123456789abcdef", "0123456789ABCDEF"
	digest := digestOf(t, content)
	broken := func(t *testing.T, c *Client, offset int64, want string) {
		t.Helper()
		got, err := read(t, c, "acme/web", digest, offset)
		if got != want || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	whole := func(t *testing.T, c *Client, offset int64, want string) {
		t.Helper()
		if got, err := read(t, c, "acme/web", digest, offset); got != want || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	asked := func(t *testing.T, h *host, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, h.conditions()); diff != "" {
			t.Error(diff)
		}
	}
	begin := func(t *testing.T, breaks []int, etags ...string) (*fragile, *host, *Client) {
		f := &fragile{content: content, etags: etags, breaks: breaks}
		h, c := plainRegistry(t, f.serve, nil)
		return f, h, c
	}

	t.Run("go on on the condition that it is the same", func(t *testing.T) {
		_, h, c := begin(t, []int{4, 6}, `"one"`)
		broken(t, c, 0, content[:4])
		broken(t, c, 4, content[4:10])
		whole(t, c, 10, content[10:])
		asked(t, h, "", `bytes=4- "one"`, `bytes=10- "one"`)
	})
	t.Run("begin anew, at the cost of the beginning, when it is another", func(t *testing.T) {
		f, h, c := begin(t, []int{4, 12}, `"one"`)
		broken(t, c, 0, content[:4])
		f.change(other, `"two"`)
		broken(t, c, 4, other[4:12])
		whole(t, c, 12, other[12:])
		asked(t, h, "", `bytes=4- "one"`, `bytes=12- "two"`)
	})
	t.Run("have no condition once the other has no tag", func(t *testing.T) {
		f, h, c := begin(t, []int{4, 12}, `"one"`)
		broken(t, c, 0, content[:4])
		f.change(other)
		broken(t, c, 4, other[4:12])
		whole(t, c, 12, other[12:])
		asked(t, h, "", `bytes=4- "one"`, `bytes=12-`)
	})
	t.Run("fall back to the whole when the range is none", func(t *testing.T) {
		f, h, c := begin(t, []int{12}, `"one"`)
		broken(t, c, 0, content[:12])
		f.change(content[:12], `"one"`)
		whole(t, c, 12, "")
		asked(t, h, "", `bytes=12- "one"`, "")
	})
	for name, etags := range map[string][]string{
		"no tag": nil, "a weak tag": {`W/"one"`}, "a tag without quotes": {"one"}, "half a tag": {`"`}, "two tags": {`"one"`, `"one"`},
		"a tag of two": {`"one", "two"`}, "a tag with a space": {`"o ne"`}, "a tag of other bytes": {"\"\xff\""}, "a long tag": {`"` + strings.Repeat("x", 255) + `"`},
	} {
		t.Run("have no condition for "+name, func(t *testing.T) {
			_, h, c := begin(t, []int{4}, etags...)
			broken(t, c, 0, content[:4])
			whole(t, c, 4, content[4:])
			asked(t, h, "", "bytes=4-")
		})
	}
	t.Run("have the condition of their own beginning alone", func(t *testing.T) {
		_, h, c := begin(t, []int{4}, `"one"`)
		broken(t, c, 0, content[:4])
		for _, at := range []struct {
			repository string
			digest     v1.Hash
		}{{"acme/two", digest}, {"acme/web", digestOf(t, other)}} {
			if _, err := read(t, c, at.repository, at.digest, 4); err != nil {
				t.Error(err)
			}
		}
		whole(t, c, 0, content) // and its end is the condition's
		whole(t, c, 4, content[4:])
		asked(t, h, "", "bytes=4-", "bytes=4-", "", "bytes=4-")
	})

	t.Run("tell a host's tag to that host alone", func(t *testing.T) {
		f := &fragile{content: content, etags: []string{`"cdn"`}, breaks: []int{4, 4}}
		w, registry, cdn, target := redirectWorld(t, f.serve)
		second := w.serve("https", "cdn2.test", f.serve)
		c := w.client(registry, nil)
		broken(t, c, 0, content[:4])
		broken(t, c, 4, content[4:8])
		f.change(content, `"second"`)
		*target = second.url() + "/blob"
		whole(t, c, 8, content[8:])
		asked(t, cdn, "", `bytes=4- "cdn"`)
		asked(t, second, "bytes=8-")
		for _, line := range registry.conditions() {
			if strings.Contains(line, `"cdn"`) {
				t.Errorf("the registry was shown %q", line)
			}
		}
	})

	t.Run("are remembered in a bounded number", func(t *testing.T) {
		_, _, c := begin(t, nil, `"one"`)
		for i := range maxRemembered + 10 {
			c.begun.set(blobName{fmt.Sprint("acme/r", i), digest}, validator{etag: `"one"`})
		}
		if got := len(c.begun.held); got != maxRemembered {
			t.Errorf("%d", got)
		}
	})
}
