package lying

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Fault changes one answer. A test may write its own.
type Fault func(*Answer)

// Body sends other bytes. The headers, Docker-Content-Digest among them, stay
// those of the honest answer, but Content-Length is that of the other bytes.
func Body(body []byte) Fault { return func(a *Answer) { a.Body = body } }

// Edit sends what f makes of the honest bytes; f must not write to them.
func Edit(f func([]byte) []byte) Fault { return func(a *Answer) { a.Body = f(a.Body) } }

// FlipByte inverts the byte at offset of the body, from the end when negative.
func FlipByte(offset int) Fault {
	return Edit(func(body []byte) []byte {
		body = slices.Clone(body)
		i := offset
		if i < 0 {
			i += len(body)
		}
		body[i] ^= 0xff
		return body
	})
}

// Content200 answers as if the request had named content: its bytes, Content-Type
// and Docker-Content-Digest, with status 200.
func Content200(content Content) Fault {
	return func(a *Answer) {
		a.Status, a.Body = http.StatusOK, content.Body
		a.Header.Set("Content-Type", content.MediaType)
		a.Header.Set("Docker-Content-Digest", content.Digest().String())
	}
}

// Truncate ends the body after n bytes as if that were all: Content-Length
// agrees.
func Truncate(n int) Fault {
	return Edit(func(body []byte) []byte { return body[:min(n, len(body))] })
}

// Break breaks the connection after n bytes of the body; Content-Length is
// that of the whole.
func Break(n int) Fault { return func(a *Answer) { a.Cut = n } }

// Longer appends extra to the body; Content-Length agrees.
func Longer(extra []byte) Fault {
	return Edit(func(body []byte) []byte { return slices.Concat(body, extra) })
}

// Length says another Content-Length than that of the body. A shorter one ends
// the body there, a longer one breaks the connection at the body's end.
func Length(n int64) Fault { return func(a *Answer) { a.Length = n } }

// Chunked says no Content-Length.
func Chunked() Fault { return func(a *Answer) { a.Length = LengthUnsaid } }

// Endless goes on with zeros after the body until the client leaves.
func Endless() Fault { return func(a *Answer) { a.Endless = true } }

// Hang sends nothing, not even headers, until the channel is closed, the
// client leaves or the registry closes.
func Hang(until <-chan struct{}) Fault {
	return Before(func(ctx context.Context) { wait(ctx, until) })
}

// HangAfter sends headers and n bytes of the body, and the rest when the
// channel is closed.
func HangAfter(n int, until <-chan struct{}) Fault {
	return func(a *Answer) { a.Stalls = append(a.Stalls, Stall{n, until}) }
}

// Drip sends as many bytes of the body as each number on the channel says, and
// the rest when it is closed.
func Drip(pace <-chan int) Fault { return func(a *Answer) { a.Pace = pace } }

// Reset resets the connection instead of answering.
func Reset() Fault { return func(a *Answer) { a.Reset = true } }

// Raw writes these bytes to the connection instead of an answer, and closes it.
func Raw(wire string) Fault { return func(a *Answer) { a.Raw = []byte(wire) } }

// Header sets a header to these values, several lines for several; with none
// it removes the header.
func Header(key string, values ...string) Fault {
	return func(a *Answer) {
		if len(values) == 0 {
			a.Header.Del(key)
			return
		}
		a.Header[http.CanonicalHeaderKey(key)] = values
	}
}

// DigestHeader forges Docker-Content-Digest.
func DigestHeader(values ...string) Fault { return Header("Docker-Content-Digest", values...) }

// ContentType forges Content-Type.
func ContentType(values ...string) Fault { return Header("Content-Type", values...) }

// ContentEncoding claims an encoding and leaves the body as it is.
func ContentEncoding(encoding string) Fault { return Header("Content-Encoding", encoding) }

// Gzip compresses the body and says so in Content-Encoding.
func Gzip() Fault {
	return func(a *Answer) {
		a.Header.Set("Content-Encoding", "gzip")
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(a.Body) // a bytes.Buffer takes everything
		_ = w.Close()
		a.Body = packed.Bytes()
	}
}

// Status answers with this status and an error body in the registry's form.
func Status(status int) Fault {
	return func(a *Answer) {
		body, _ := json.Marshal(map[string]any{"errors": []any{ // strings always encode
			map[string]string{"code": code(status, a.Request), "message": http.StatusText(status)},
		}})
		a.Status, a.Body = status, body
		a.Header.Set("Content-Type", "application/json")
		a.Header.Del("Docker-Content-Digest")
		a.Header.Del("Etag")
	}
}

// NotFound answers 404.
func NotFound() Fault { return Status(http.StatusNotFound) }

// RetryAfter adds a Retry-After header in seconds.
func RetryAfter(d time.Duration) Fault {
	return Header("Retry-After", strconv.Itoa(int(d/time.Second)))
}

// Redirect sends the client elsewhere.
func Redirect(status int, url string) Fault {
	return func(a *Answer) {
		Status(status)(a)
		a.Header.Set("Location", url)
		a.Body = nil
	}
}

// NotModified answers 304, whatever was asked.
func NotModified() Fault {
	return func(a *Answer) { a.Status, a.Body = http.StatusNotModified, nil }
}

// Unconditional sends the manifest although If-None-Match names it.
func Unconditional() Fault { return func(a *Answer) { a.Unconditional = true } }

// Challenge answers 401 with these WWW-Authenticate headers.
func Challenge(values ...string) Fault {
	return func(a *Answer) {
		Status(http.StatusUnauthorized)(a)
		Header("WWW-Authenticate", values...)(a)
	}
}

// IgnoreRange answers a request with a Range with 200 and the whole.
func IgnoreRange() Fault { return func(a *Answer) { a.IgnoreRange = true } }

// When applies faults only where the answer so far has this status: a registry
// that hides what it does not hold is When(404, Status(403)).
func When(status int, faults ...Fault) Fault {
	return func(a *Answer) {
		if a.Status != status {
			return
		}
		for _, fault := range faults {
			fault(a)
		}
	}
}

// Before runs f before the answer is sent and after it was made up: f may
// block, and must return when its context ends. When f changes the registry,
// the change shows from the next request on.
func Before(f func(ctx context.Context)) Fault {
	return func(a *Answer) { a.Before = append(a.Before, f) }
}

// Then runs f after the answer was sent, for example to move a tag between a
// HEAD and its GET. The client may have the answer before f ends; what must be
// in place before the client can go on belongs in Before.
func Then(f func()) Fault { return func(a *Answer) { a.After = append(a.After, f) } }

// code is the error code that a registry sends with a status.
func code(status int, q Request) string {
	switch status {
	case http.StatusUnauthorized:
		return "UNAUTHORIZED"
	case http.StatusForbidden:
		return "DENIED"
	case http.StatusTooManyRequests:
		return "TOOMANYREQUESTS"
	case http.StatusNotFound:
		switch q.Kind {
		case KindBlob:
			return "BLOB_UNKNOWN"
		case KindManifest:
			return "MANIFEST_UNKNOWN"
		}
		return "NAME_UNKNOWN"
	}
	return "UNKNOWN"
}
