package lying

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Values of Answer.Length.
const (
	LengthOfBody int64 = -1 // say how long the body is
	LengthUnsaid int64 = -2 // say nothing; the body is chunked
)

// Answer is what will be sent. A Fault may change every field but Request.
type Answer struct {
	Request Request

	Status int
	Header http.Header // Content-Length is made from Length
	// Body is whole: the Range of the request is cut out of it when it is
	// sent, unless IgnoreRange or If-Range names another Etag. A HEAD sends only
	// its length.
	Body        []byte
	IgnoreRange bool
	Length      int64 // Content-Length to say, or a Length constant
	// Unconditional sends a manifest also when If-None-Match names it: a
	// registry that does not know conditions.
	Unconditional bool

	Cut     int    // break the connection after so many bytes of the body; -1 never
	Endless bool   // after the body go on with zeros until the client leaves
	Raw     []byte // when not nil, written to the connection instead of an answer
	Reset   bool   // reset the connection instead of an answer

	Stalls []Stall                     // pauses in the body
	Pace   <-chan int                  // when not nil, how many bytes may go out next; closed, the rest
	Before []func(ctx context.Context) // run before anything is sent
	After  []func()                    // run after all was sent
}

// Stall pauses after so many bytes of the body until a channel is closed.
type Stall struct {
	After int
	Until <-chan struct{}
}

// send writes the answer. ctx ends when the client leaves or the registry
// closes; a broken connection is made by panicking with http.ErrAbortHandler,
// as net/http wants it.
func (a *Answer) send(ctx context.Context, w http.ResponseWriter, req *http.Request) {
	defer func() {
		for _, f := range a.After {
			f()
		}
	}()
	for _, f := range a.Before {
		f(ctx)
	}
	if ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if a.Reset || a.Raw != nil {
		a.sendRaw(w)
		return
	}
	body := a.cutRange(req)
	header := w.Header()
	for key, values := range a.Header {
		header[key] = values
	}
	switch {
	case a.Length >= 0:
		header.Set("Content-Length", strconv.FormatInt(a.Length, 10))
	case a.Length == LengthOfBody && !a.Endless && a.Status != http.StatusNotModified:
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.Status)
	if req.Method == http.MethodHead {
		return
	}
	a.sendBody(ctx, w, body)
}

// sendBody writes body with its stalls, pace and break.
func (a *Answer) sendBody(ctx context.Context, w http.ResponseWriter, body []byte) {
	flush := http.NewResponseController(w).Flush
	broken := a.Cut >= 0 && a.Cut < len(body)
	if broken {
		body = body[:a.Cut]
	}
	if a.Pace != nil || a.Length == LengthUnsaid {
		_ = flush() // a client may wait for headers; and net/http counts what it holds
	}
	for sent := 0; ; {
		next := len(body)
		for _, stall := range a.Stalls {
			if stall.After == sent {
				_ = flush()
				wait(ctx, stall.Until)
			} else if stall.After > sent {
				next = min(next, stall.After)
			}
		}
		if sent == len(body) {
			break
		}
		next = a.paced(ctx, sent, next)
		if a.Length >= 0 && int64(next) > a.Length {
			next = max(sent, int(a.Length)) // net/http lets nothing longer out
		}
		if next == sent {
			break
		}
		if _, err := w.Write(body[sent:next]); err != nil {
			return
		}
		sent = next
		if sent < len(body) {
			_ = flush()
		}
	}
	if broken {
		_ = flush()
		panic(http.ErrAbortHandler)
	}
	for zeros := make([]byte, 64<<10); a.Endless && ctx.Err() == nil; {
		if _, err := w.Write(zeros); err != nil {
			return
		}
	}
}

// paced returns how far the body may be sent now.
func (a *Answer) paced(ctx context.Context, sent, next int) int {
	if a.Pace == nil {
		return next
	}
	select {
	case n, ok := <-a.Pace:
		if ok {
			return min(next, sent+n)
		}
		return next
	case <-ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// wait returns when until is closed, and breaks the connection when ctx ends
// before.
func wait(ctx context.Context, until <-chan struct{}) {
	select {
	case <-until:
	case <-ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// sendRaw takes the connection over, HTTP/1.1 only.
func (a *Answer) sendRaw(w http.ResponseWriter) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if a.Reset {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return
	}
	_, _ = buffered.Write(a.Raw)
	_ = buffered.Flush()
}

// notModified makes 304 of an answer with the manifest that If-None-Match names,
// as registries do. Other bytes than its Etag's are a lie, and are sent.
func (a *Answer) notModified() {
	etag := a.Header.Get("Etag")
	if a.Unconditional || a.Request.Kind != KindManifest || a.Status != http.StatusOK || etag != strconv.Quote(Digest(a.Body).String()) {
		return
	}
	for _, value := range a.Request.Header.Values("If-None-Match") {
		if value == etag || value == "*" {
			a.Status, a.Body = http.StatusNotModified, nil
			return
		}
	}
}

// cutRange answers one range of a blob with 206, as registries do.
func (a *Answer) cutRange(req *http.Request) []byte {
	spec, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	if condition := req.Header.Get("If-Range"); condition != "" && condition != a.Header.Get("Etag") {
		return a.Body
	}
	if !ok || a.IgnoreRange || a.Request.Kind != KindBlob || a.Status != http.StatusOK || strings.Contains(spec, ",") {
		return a.Body
	}
	first, last, ok := parseRange(spec, len(a.Body))
	if !ok {
		a.Status = http.StatusRequestedRangeNotSatisfiable
		a.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(a.Body)))
		return nil
	}
	a.Status = http.StatusPartialContent
	a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(a.Body)))
	return a.Body[first : last+1]
}

func parseRange(spec string, size int) (first, last int, ok bool) {
	from, to, found := strings.Cut(spec, "-")
	first, errFirst := strconv.Atoi(from)
	last, errLast := strconv.Atoi(to)
	switch {
	case !found || from == "" && errLast != nil:
		return 0, 0, false
	case from == "":
		first, last = max(0, size-last), size-1
	case errFirst != nil || to != "" && errLast != nil:
		return 0, 0, false
	case to == "":
		last = size - 1
	}
	last = min(last, size-1)
	return first, last, first >= 0 && first <= last
}
