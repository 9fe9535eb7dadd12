package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kinds of errors, see Error.Kind.
const (
	KindUnauthorized = "unauthorized" // 401 after authentication, or no credentials
	KindForbidden    = "forbidden"    // 403
	KindRateLimited  = "rate-limited" // 429
	KindUnavailable  = "unavailable"  // unreachable, reset, timeout, 408, 5xx
	KindTLS          = "tls"          // certificate or handshake
	KindRefused      = "refused"      // our own rules forbid the address, redirect or realm
	KindMismatch     = "mismatch"     // oversized or malformed answer; its text names no host, for clients are told it
)

// Error is what went wrong at an upstream. Its text holds no credential, no
// token, no query of a URL and nothing of an answer's body or header but a
// status, a known error code, and the host of a URL that was refused.
type Error struct {
	upstream   string
	operation  string
	kind       string
	text       string
	advice     string
	where      string // of the configuration
	setting    string // what to write there
	retryAfter time.Duration
	status     int // of the answer that is not the expected one, or 0
	code       string
	transient  bool  // another try may help
	beyond     bool  // a list that is longer than our bounds
	cause      error // fs.ErrNotExist, io.ErrUnexpectedEOF or a context's error
}

// Error tells the upstream, the operation and what happened.
func (e *Error) Error() string {
	text := e.text
	if e.operation != "" {
		text = e.operation + ": " + text
	}
	if e.upstream != "" {
		text = "upstream " + e.upstream + ": " + text
	}
	return text
}

// Kind is one of the Kind constants, or empty for an error that matches
// fs.ErrNotExist.
func (e *Error) Kind() string { return e.kind }

// RetryAfter is how long the upstream asked to be left alone, at most an hour;
// zero when it did not ask.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Advice is what would mend it, or empty. Unlike the text it names no host.
func (e *Error) Advice() string { return e.advice }

// Status is that of an answer that was not the expected one, or 0.
func (e *Error) Status() int { return e.status }

// Code is the distribution specification's error code in that answer, or empty.
func (e *Error) Code() string { return e.code }

// advise adds advice to e, and returns e.
func (e *Error) advise(format string, args ...any) *Error {
	e.advice = fmt.Sprintf(format, args...)
	return e
}

// Setting is a line of YAML that would mend it, and the part of the configuration where
// it is to be written; both empty when there is none. It names hosts and addresses.
func (e *Error) Setting() (where, config string) { return e.where, e.setting }

// set adds a setting to e, and returns e.
func (e *Error) set(where, format string, args ...any) *Error {
	e.where, e.setting = where, fmt.Sprintf(format, args...)
	return e
}

// Unwrap returns fs.ErrNotExist, io.ErrUnexpectedEOF, the context's error or nil.
func (e *Error) Unwrap() error { return e.cause }

// fault returns an Error that says nothing yet about upstream and operation.
func fault(kind, format string, args ...any) *Error {
	return &Error{kind: kind, text: fmt.Sprintf(format, args...)}
}

// in completes err with the upstream and the operation that it happened in.
func (c *Client) in(operation string, err error) error {
	if err == nil {
		return nil
	}
	inner, ok := errors.AsType[*Error](err)
	if !ok {
		inner = &Error{kind: KindUnavailable, text: "broken off"}
	}
	whole := *inner
	whole.upstream, whole.operation = c.name, operation
	return &whole
}

// maxRetryAfter bounds what an upstream may ask for.
const maxRetryAfter = time.Hour

// statusFault returns the error for an answer that is not the expected one, and
// looks into its body, limit bytes of it, for an error code.
func statusFault(response *http.Response, limit int64) *Error {
	status := response.StatusCode
	e := &Error{status: status, text: statusText(status), retryAfter: retryAfter(response.Header)}
	if code := errorCode(response.Body, limit); code != "" {
		e.text += " (" + code + ")"
		e.code = code
	}
	switch {
	case status == http.StatusNotFound:
		e.cause = fs.ErrNotExist
	case status == http.StatusUnauthorized:
		e.kind = KindUnauthorized
	case status == http.StatusForbidden, status == http.StatusUnavailableForLegalReasons:
		e.kind = KindForbidden
	case status == http.StatusTooManyRequests:
		e.kind, e.transient = KindRateLimited, true
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.kind, e.transient = KindUnavailable, true
	case status >= 500, status == http.StatusRequestTimeout:
		e.kind = KindUnavailable
	default:
		e.kind = KindMismatch
	}
	return e
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// errorCode returns the first code of an OCI error body that the distribution
// specification knows. Any other text stays out of our errors: an upstream may
// send back what it was sent.
func errorCode(body io.Reader, limit int64) string {
	data, err := io.ReadAll(io.LimitReader(body, limit))
	if err != nil {
		return ""
	}
	var answer struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(data, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	code := answer.Errors[0].Code
	if !slices.Contains([]string{
		"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN",
		"NAME_INVALID", "NAME_UNKNOWN", "RANGE_INVALID", "SIZE_INVALID", "TAG_INVALID", "TOOMANYREQUESTS", "UNAUTHORIZED",
		"UNAVAILABLE", "UNKNOWN", "UNSUPPORTED",
	}, code) {
		return ""
	}
	return code
}

// retryAfter reads RFC 9110's Retry-After in both of its forms.
func retryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// transportFault returns the error for a request that got no answer, or for an
// answer whose body broke. ctx is the request's.
func transportFault(ctx context.Context, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if cause := ctx.Err(); cause != nil {
		if e, ok := errors.AsType[*Error](context.Cause(ctx)); ok {
			return e
		}
		e := fault(KindUnavailable, "given up by who asked")
		if errors.Is(cause, context.DeadlineExceeded) {
			e = fault(KindUnavailable, "no answer within the time that there was")
		}
		e.cause = cause
		return e
	}
	if text, ok := tlsText(err); ok {
		e := fault(KindTLS, "%s", text)
		if strings.Contains(text, "; ") {
			e.advice = text
		}
		return e
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fault(KindUnavailable, "timeout: %s", connectionText(err, "no answer in time"))
	}
	if malformed(err) {
		return fault(KindMismatch, "malformed or oversized HTTP")
	}
	e := fault(KindUnavailable, "%s", connectionText(err, "the connection broke"))
	lookup, ok := errors.AsType[*net.DNSError](err)
	e.transient = !ok || !lookup.IsNotFound
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.cause = io.ErrUnexpectedEOF
	}
	return e
}

// tlsText says in our own words what is wrong with a handshake, and behind a
// semicolon what may mend it.
func tlsText(err error) (string, bool) {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "the certificate has expired or is not yet valid", true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate is signed by an unknown authority; name its own with the key ca", true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the certificate is for another host", true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate is not valid", true
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return alert.Error(), true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return "the answer is not TLS; is it an http:// registry?", true
	}
	if strings.Contains(err.Error(), "tls: ") {
		return "the TLS handshake did not succeed", true
	}
	return "", false
}

// malformed recognises an answer that is not HTTP or too much of it, for most of
// which net/http has no type.
func malformed(err error) bool {
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return true
	}
	text := err.Error()
	return slices.ContainsFunc([]string{
		"malformed", "response headers exceeded", "header list larger than", "Content-Length", "transfer encoding", "chunk",
	}, func(part string) bool { return strings.Contains(text, part) })
}

// connectionText describes a broken connection with what the system says, never
// with what the other side sent; otherwise is for what the system has no word.
func connectionText(err error, otherwise string) string {
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		return lookup.Error()
	}
	where := ""
	if op, ok := errors.AsType[*net.OpError](err); ok {
		where = op.Op
		if op.Addr != nil {
			where += " " + op.Addr.String()
		}
		where += ": "
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return where + number.Error()
	}
	return where + otherwise
}
