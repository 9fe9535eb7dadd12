package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// The codes of the distribution specification that are answered.
var (
	codeDenied              = errcode.ErrorCodeDenied
	codeUnauthorized        = errcode.ErrorCodeUnauthorized
	codeUnavailable         = errcode.ErrorCodeUnavailable
	codeUnsupported         = errcode.ErrorCodeUnsupported
	codeTooManyRequests     = errcode.ErrorCodeTooManyRequests
	codeNameInvalid         = errcode.ErrorCodeNameInvalid
	codeNameUnknown         = errcode.ErrorCodeNameUnknown
	codeTagInvalid          = errcode.ErrorCodeTagInvalid
	codeDigestInvalid       = errcode.ErrorCodeDigestInvalid
	codeManifestUnknown     = errcode.ErrorCodeManifestUnknown
	codeBlobUnknown         = errcode.ErrorCodeBlobUnknown
	codeManifestInvalid     = errcode.ErrorCodeManifestInvalid
	codeManifestBlobUnknown = errcode.ErrorCodeManifestBlobUnknown
	codeBlobUploadUnknown   = errcode.ErrorCodeBlobUploadUnknown
	codeBlobUploadInvalid   = errcode.ErrorCodeBlobUploadInvalid
	codeSizeInvalid         = errcode.ErrorCodeSizeInvalid
	codeRangeInvalid        = errcode.ErrorCodeRangeInvalid
	codePaginationNumber    = errcode.ErrorCodePaginationNumberInvalid
)

// Reasons that stand in an answer's detail beside those of a policy decision.
const (
	reasonUpstreamMismatch = "upstream-mismatch"
	reasonNoUpstream       = "no-upstream"
)

// retryAfterDefault is what a client is told to wait when nobody knows better.
const retryAfterDefault = 5 * time.Second

// Error is an answer that is not content. It is safe to show to a client: its
// text holds no credential and nothing of an upstream but its name and status.
type Error struct {
	Status     int
	Code       errcode.ErrorCode
	Message    string
	Reason     string // short form of Message for programs; in the detail
	Detail     *Detail
	RetryAfter time.Duration
	Allow      string // the Allow header of a 405
	Challenge  string // the WWW-Authenticate header of a 401
	Size       int64  // of the content, for a 416; -1: not told
	Err        error  // what caused it; for the log, not for the client
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Detail is what an error's "detail" holds when it tells a decision: always all
// of its members, empty where there is nothing to tell.
type Detail struct {
	ID         string         `json:"id"`
	Reason     string         `json:"reason"`
	Repository string         `json:"repository"`
	Reference  string         `json:"reference"`
	Digest     string         `json:"digest"`
	Policy     string         `json:"policy"`
	Evidence   []policy.Piece `json:"evidence"` // a list, never null
	Hint       string         `json:"hint"`
}

// bareDetail is the "detail" of an error that is no decision.
type bareDetail struct {
	Reason string `json:"reason"`
}

// reason is what the detail gives as reason; empty when there is none.
func (e *Error) reason() string {
	if e.Detail != nil {
		return e.Detail.Reason
	}
	return e.Reason
}

// wanted is what a request asks an upstream for. It decides what its absence is
// called.
type wanted struct {
	endpoint  endpoint
	place     place  // the zero place when it is not known
	reference string // tag or digest
}

// image names what is wanted as the upstream knows it.
func (w wanted) image() string {
	if strings.Contains(w.reference, ":") {
		return w.place.repository + "@" + w.reference
	}
	return w.place.repository + ":" + w.reference
}

// asError is the one map from what went wrong to what a client is told. at is
// what was asked for.
func asError(err error, at wanted) *Error {
	// First of all, for what it wraps may be any of the others.
	if d, ok := errors.AsType[*undecided](err); ok {
		return &Error{
			Status: http.StatusServiceUnavailable, Code: codeUnavailable, Message: d.sentence(),
			Detail: decisionDetail(d.decision, policy.ReasonInconclusive), RetryAfter: retryAfter(d.err), Err: d.err,
		}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, errMismatch) {
		return mismatchError(err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(at, err)
	}
	if f, ok := errors.AsType[Fault](err); ok {
		return faultError(f, at.place.upstream, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return unavailable("the upstream did not answer in time", retryAfterDefault, err)
	}
	return unavailable("Vidimus cannot answer at the moment", retryAfterDefault, err)
}

// faultError tells of a fault of the upstream by that name, empty when it is not
// known. The fault's own words name hosts and addresses: they are for the log.
func faultError(f Fault, upstream string, err error) *Error {
	who := "the upstream registry"
	if upstream != "" {
		who = "upstream " + upstream
	}
	switch f.Kind() {
	case KindMismatch:
		return mismatchError(fmt.Errorf("%w: %w", errMismatch, err))
	case KindRateLimited:
		return &Error{
			Status: http.StatusTooManyRequests, Code: codeTooManyRequests,
			Message: who + " limits the rate of requests", RetryAfter: retryAfter(err), Err: err,
		}
	case KindUnauthorized, KindForbidden:
		return &Error{
			Status: http.StatusForbidden, Code: codeDenied,
			Message: who + " refuses: there is no such repository, or Vidimus has no credentials that may read it", Err: err,
		}
	case KindTLS:
		return unavailable(advised("the TLS connection to "+who+" failed", f), retryAfter(err), err)
	case KindRefused:
		return unavailable(advised(who+" leads to what Vidimus does not follow", f), retryAfter(err), err)
	default:
		return unavailable(who+" is unreachable or failing", retryAfter(err), err)
	}
}

// advised is text with what the fault advises.
func advised(text string, f Fault) string {
	if a, ok := f.(Adviser); ok && a.Advice() != "" {
		return text + ": " + a.Advice()
	}
	return text
}

func retryAfter(err error) time.Duration {
	if f, ok := errors.AsType[Fault](err); ok && f.RetryAfter() > 0 {
		return f.RetryAfter()
	}
	return retryAfterDefault
}

func unavailable(message string, after time.Duration, err error) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: codeUnavailable, Message: message, RetryAfter: after, Err: err}
}

// errMismatch marks upstream bytes that are not what they should be.
var errMismatch = errors.New("the upstream sent wrong content")

func mismatchError(err error) *Error {
	return &Error{
		Status: http.StatusBadGateway, Code: codeUnavailable, Message: err.Error(),
		Reason: reasonUpstreamMismatch, Err: err,
	}
}

// notFound names what is not there. It stands in answers as it is: repository,
// tag and digest have passed their grammars.
func notFound(at wanted, err error) *Error {
	e := &Error{Status: http.StatusNotFound, Err: err}
	known := at.place != place{}
	switch at.endpoint {
	case endpointManifest:
		e.Code, e.Message = codeManifestUnknown, "the upstream registry holds no such manifest"
		if known {
			e.Message = "the upstream registry " + at.place.upstream + " holds no manifest " + at.image()
		}
	case endpointBlob:
		e.Code, e.Message = codeBlobUnknown, "the upstream registry holds no such blob in this repository"
		if known {
			e.Message = "the upstream registry " + at.place.upstream + " holds no blob " + at.image()
		}
	default:
		e.Code, e.Message = codeNameUnknown, "the upstream registry knows no such repository"
		if known {
			e.Message = "the upstream registry " + at.place.upstream + " knows no repository " + at.place.repository
		}
	}
	return e
}

func unreachableBlob() *Error {
	return &Error{
		Status: http.StatusNotFound, Code: codeBlobUnknown,
		Message: "no allowed manifest of this repository that Vidimus knows references this blob; pull the manifest first",
	}
}

func invalidName(name string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Code: codeNameInvalid,
		Message: "invalid repository name " + quote(name) + ": want lower-case components of letters and digits, joined by '.', '_', '-' and '/', at most 255 characters",
	}
}

func invalidDigest(digest, why string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: codeDigestInvalid, Message: "invalid digest " + quote(digest) + ": " + why}
}

// decisionDetail leaves the reference to the request, which knows how it was
// written.
func decisionDetail(d policy.Decision, reason string) *Detail {
	detail := &Detail{
		ID: d.ID, Reason: reason, Repository: d.Subject.Repository,
		Policy: d.Policy, Evidence: d.Pieces(), Hint: d.Hint,
	}
	for i := range detail.Evidence {
		detail.Evidence[i].Checks = nil // the record has them
	}
	if !isZero(d.Subject.Digest) {
		detail.Digest = d.Subject.Digest.String()
	}
	return detail
}

// undecided is a decision that could not be reached.
type undecided struct {
	decision policy.Decision
	image    string
	err      error
}

// Error is for the log: the sentence, which is for clients, and the cause.
func (u *undecided) Error() string { return u.sentence() + ": " + printableText(u.err.Error()) }
func (u *undecided) Unwrap() error { return u.err }
func (u *undecided) sentence() string {
	return u.decision.Sentence(u.image)
}

// denied is the answer to a decision that denies.
func denied(d policy.Decision, image string) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: codeDenied,
		Message: d.Sentence(image), Detail: decisionDetail(d, d.Reason),
	}
}

// writeError answers with e. Headers of a success that were set before are
// taken back: an error must not be cached or mistaken for content.
func writeError(w http.ResponseWriter, r *http.Request, e *Error) {
	h := w.Header()
	for _, name := range []string{"Docker-Content-Digest", "Etag", "Content-Length", "Content-Range", "Accept-Ranges", "Age", "Warning", "Link", "Oci-Filters-Applied"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", e.Challenge)
	}
	if e.Status == http.StatusMethodNotAllowed {
		h.Set("Allow", e.Allow)
	}
	if e.Status == http.StatusRequestedRangeNotSatisfiable && e.Size >= 0 {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(e.Size, 10))
	}
	wire := errcode.Error{Code: e.Code, Message: e.Message}
	if e.Detail != nil {
		wire.Detail = e.Detail
	} else if e.Reason != "" {
		wire.Detail = bareDetail{Reason: e.Reason}
	}
	body, err := json.Marshal(errcode.Errors{wire})
	if err != nil {
		body = []byte(`{"errors":[{"code":"UNAVAILABLE","message":"the error could not be encoded"}]}`)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		w.Write(append(body, '\n'))
	}
}

// printable returns at most 128 bytes of s with everything but printable ASCII
// replaced, so that a name from a request or an upstream cannot break a line,
// a header or a terminal.
func printable(s string) string {
	const most = 128
	cut := len(s) > most
	if cut {
		s = s[:most]
	} else if isPrintable(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func quote(s string) string { return strconv.Quote(printable(s)) }

// isZero reports whether a digest is not set.
func isZero(digest v1.Hash) bool { return digest == v1.Hash{} }

// conflict is the answer to a push that would take the place of something else.
func conflict(message string) *Error {
	return &Error{Status: http.StatusConflict, Code: codeDenied, Message: message}
}

// revoked is the answer to a push of what is never served.
func revoked(digest v1.Hash) *Error {
	return &Error{Status: http.StatusForbidden, Code: codeDenied, Message: digest.String() + " is revoked: it can neither be pushed nor pulled", Reason: policy.ReasonRevoked}
}
