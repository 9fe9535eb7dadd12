package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
)

// Tags returns one page of the repository's tags after last, at most n (0: as
// many as the upstream gives), and whether there are more. The order is the
// upstream's; what is not a tag by its grammar is left out.
//
// Upstreams that page by marks of their own do not know last. Where such a page
// ended is remembered, so that a list that is read page by page goes on there;
// when it is not, pages are read up to the one that holds last.
func (c *Client) Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error) {
	if err := checkRepository(repository); err != nil {
		return nil, false, err
	}
	if last != "" {
		if err := checkReference(last); err != nil {
			return nil, false, err
		}
	}
	n = max(n, 0)
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	page, err := c.tagsAfter(ctx, repository, n, last)
	if err != nil {
		return nil, false, err
	}
	if n > 0 && len(page.tags) > n {
		return page.tags[:n], true, nil
	}
	if page.next != "" && len(page.tags) > 0 {
		c.marks.set(tagMark{repository, n, page.tags[len(page.tags)-1]}, page.next)
	}
	return page.tags, page.next != "", nil
}

// tagPage is one page of tags, and the query of the one after it or empty.
type tagPage struct {
	tags []string
	next string
}

func (c *Client) tagsAfter(ctx context.Context, repository string, n int, last string) (tagPage, error) {
	q := call{method: http.MethodGet, repository: repository, path: "tags/list"}
	if query, ok := c.marks.get(tagMark{repository, n, last}); ok && last != "" {
		q.query = query
		page, err := c.findTags(ctx, q, "")
		if e, ok := errors.AsType[*Error](err); !ok || e.kind != KindMismatch {
			return page, err
		}
		// The mark may have expired.
	}
	query := url.Values{}
	if n > 0 {
		query.Set("n", strconv.Itoa(n))
	}
	if last != "" {
		query.Set("last", last)
	}
	q.query = query.Encode()
	return c.findTags(ctx, q, last)
}

// findTags returns the first page with tags after last, from the page q on. An
// upstream that understood last shows it: the page neither holds last, nor links
// to the next without a last. What is left is guessed by looking for last in the
// pages that follow; when it is in none of them, the first page was it.
func (c *Client) findTags(ctx context.Context, q call, last string) (tagPage, error) {
	var first *tagPage
	var page tagPage
	reached := last == ""
	err := c.pages(ctx, q, func(body []byte, _ http.Header, next string) (bool, error) {
		tags, err := parseTags(body)
		if err != nil {
			return false, err
		}
		if at := slices.Index(tags, last); !reached && at >= 0 {
			tags, reached = tags[at+1:], true
		}
		page = tagPage{tags, next}
		if first == nil {
			first = &tagPage{tags, next}
			reached = reached || next == "" || hasParameter(next, "last")
		}
		return reached && len(tags) > 0, nil
	})
	if e, ok := errors.AsType[*Error](err); err != nil && !(ok && e.beyond && first != nil && !reached) {
		return tagPage{}, err
	}
	if !reached {
		return *first, nil
	}
	return page, nil
}

func hasParameter(query, name string) bool {
	values, err := url.ParseQuery(query)
	return err == nil && values.Has(name)
}

func parseTags(body []byte) ([]string, error) {
	var answer struct {
		Tags []string `json:"tags"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil, fault(KindMismatch, "the list of tags is not what the specification says")
	}
	return slices.DeleteFunc(answer.Tags, func(tag string) bool { return !tagGrammar().MatchString(tag) }), nil
}

// tagMark is the end of a page that was read with n tags a page.
type tagMark struct {
	repository string
	n          int
	last       string
}

// tagMarks remembers the query of the page after a mark, for a bounded number of
// marks. The zero value is ready.
type tagMarks struct {
	mu   sync.Mutex
	next map[tagMark]string
}

// maxMarkLength bounds one query that is remembered.
const maxMarkLength = 4 << 10

func (m *tagMarks) set(mark tagMark, query string) {
	if len(query) > maxMarkLength {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = remember(m.next, mark, query)
}

func (m *tagMarks) get(mark tagMark) (query string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	query, ok = m.next[mark]
	return query, ok
}
