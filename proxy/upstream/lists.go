package upstream

import (
	"context"
	"net/http"
)

// pages gets q and the pages that follow it, until use says that it is done or
// there are no more. next is the query of the page after this one, or empty.
func (c *Client) pages(ctx context.Context, q call, use func(body []byte, header http.Header, next string) (done bool, err error)) error {
	seen := map[string]bool{q.query: true}
	for range c.limits.Pages {
		body, header, _, err := c.whole(ctx, q, c.limits.Page, "the list")
		if err != nil {
			return err
		}
		next, more, err := c.nextPage(header, q.url(c.own))
		if err != nil {
			return c.in(q.String(), err)
		}
		done, err := use(body, header, next)
		if err != nil {
			return c.in(q.String(), err)
		}
		if done || !more {
			return nil
		}
		if seen[next] {
			return c.in(q.String(), fault(KindMismatch, "its Link headers go round in a circle"))
		}
		seen[next] = true
		q.query = next
	}
	return c.in(q.String(), beyond("the list has more than %d pages", c.limits.Pages))
}

// beyond is the fault of a list that is longer than our bounds.
func beyond(format string, args ...any) *Error {
	e := fault(KindMismatch, format, args...)
	e.beyond = true
	return e
}
