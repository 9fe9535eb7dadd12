package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/proxy/access"
)

// request is one HTTP request on its way through the proxy. It belongs to one
// goroutine.
type request struct {
	*live
	w      *countingWriter
	r      *http.Request
	begin  time.Time
	path   string // escaped, as it was sent
	route  route
	query  url.Values // nil when there is none
	client string
	caller access.Caller
	pulls  bool       // the caller may pull from the repository
	id     []string   // X-Request-Id: the decision's, or one of its own; shared
	failed error      // for the access log
	reason string     // of failed, as the answer's detail gives it
	blob   blobWriter // when it is one that is sent
	at     place      // once resolved
	name   string     // the canonical repository, once resolved

	writer countingWriter // w
}

// writePatience is how long a client may take for one piece of an answer.
const writePatience = 2 * time.Minute

// countingWriter remembers what was answered, and waits no longer than
// writePatience for a client that takes nothing of it.
type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
	slow   interface{ SetWriteDeadline(time.Time) error } // nil when there is no such thing
	since  time.Time                                      // when it was waited for from
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.wait() // what it would return, Write does
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if err := w.wait(); err != nil {
		return 0, err
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// wait begins to wait for the client, unless it has just begun.
func (w *countingWriter) wait() error {
	if w.slow == nil {
		return nil
	}
	now := time.Now()
	if isWithin(time.Second, w.since, now) {
		return nil
	}
	w.since = now
	if err := w.slow.SetWriteDeadline(now.Add(writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// Unwrap lets http.ResponseController find the writer below.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func newRequest(p *Proxy, l *live, w http.ResponseWriter, r *http.Request) *request {
	q := &request{live: l, r: r, begin: p.now(), writer: countingWriter{ResponseWriter: w}}
	q.writer.slow, _ = w.(interface{ SetWriteDeadline(time.Time) error })
	q.w = &q.writer
	if q.writer.slow != nil && r.ContentLength != 0 {
		// That of the answer before on this connection is none for what net/http says when
		// the body is asked for (100 Continue). What fails here is told by what follows.
		_ = q.writer.slow.SetWriteDeadline(time.Time{})
	}
	q.client = clientOf(r, l.TrustedProxies)
	q.path = r.URL.EscapedPath()
	if len(q.path) != len(r.RequestURI) {
		// Parts of it are kept, and would keep alive all that was sent with it.
		q.path = strings.Clone(q.path)
	}
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersionHeader
	h["X-Content-Type-Options"] = noSniffHeader
	return q
}

// serve answers the request, or returns why it cannot. Nothing has been
// written when it returns an error.
func (q *request) serve() error {
	if q.path == hookPath {
		q.route.endpoint = endpointHook
		return q.serveHook()
	}
	var err error
	q.route, err = parseRoute(q.path)
	if unknown := q.identify(); unknown != nil {
		return unknown
	}
	if err != nil {
		return err
	}
	unsupported := q.refuseMethod()
	if q.r.URL.RawQuery != "" {
		if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil {
			return &Error{Status: http.StatusBadRequest, Code: codeNameInvalid, Message: "the query does not parse"}
		}
	}
	switch {
	case q.route.endpoint != endpointBase && q.route.endpoint != endpointCatalog:
	case unsupported != nil:
		return unsupported
	case q.route.endpoint == endpointBase:
		return q.serveBase()
	default:
		return q.serveCatalog()
	}
	at, err := q.resolve(q.route.name, q.query, q.r.Host)
	if err != nil && unsupported != nil {
		return unsupported
	}
	n, none := errors.AsType[*nowhere](err)
	if q.query.Has("ns") && (err == nil || none) { // which is known to be a registry's name then
		q.w.Header().Set("Oci-Namespace", q.query.Get("ns"))
	}
	if none {
		return q.refuse(q.r.Context(), n, q.route.digest, q.asker())
	}
	if err != nil {
		return err
	}
	q.at = at
	if err := q.authoriseRoute(at); err != nil {
		return err
	}
	if unsupported != nil {
		return unsupported
	}
	if q.changes() {
		v := q.view(at)
		q.name = v.name
		return q.push(v)
	}
	if q.route.endpoint == endpointManifest && q.pulls {
		if a, m := q.again(at); a != nil {
			q.name, q.id = a.name, a.id
			if a.warning != nil {
				q.w.Header()["Warning"] = a.warning
			}
			q.sendManifest(m)
			return nil
		}
	}
	v := q.view(at)
	q.name = v.name
	switch q.route.endpoint {
	case endpointManifest:
		return q.serveManifest(v)
	case endpointBlob:
		return q.serveBlob(v)
	case endpointTags:
		return q.serveTags(v)
	default:
		return q.serveReferrers(v)
	}
}

// refuseMethod refuses the methods that the endpoint does not know.
func (q *request) refuseMethod() error {
	allowed := q.route.methods()
	if slices.Contains(allowed, q.r.Method) {
		return nil
	}
	e := &Error{Status: http.StatusMethodNotAllowed, Code: codeUnsupported, Allow: strings.Join(allowed, ", ")}
	switch q.route.endpoint {
	case endpointBlob:
		e.Message = "a blob can only be read: it goes when no manifest references it any more"
	case endpointUpload:
		e.Message = "method " + printable(q.r.Method) + " is not supported for an upload that has this path"
	default:
		e.Message = "method " + printable(q.r.Method) + " is not supported"
	}
	return e
}

// methods are those that the endpoint knows.
func (r route) methods() []string {
	switch {
	case r.endpoint == endpointManifest:
		return []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}
	case r.endpoint == endpointUpload && r.session == "":
		return []string{http.MethodPost}
	case r.endpoint == endpointUpload:
		return []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}
	}
	return []string{http.MethodGet, http.MethodHead}
}

// readMethods is the Allow header where nothing can be pushed. Of uploads nothing is
// allowed then, and that is said (RFC 9110, section 10.2.1).
func readMethods(e endpoint) string {
	if e == endpointUpload {
		return ""
	}
	return "GET, HEAD"
}

// changes reports whether the request is one of a push.
func (q *request) changes() bool {
	return q.route.endpoint == endpointUpload || q.r.Method != http.MethodGet && q.r.Method != http.MethodHead
}

// asker describes the request for records and sentences.
func (q *request) asker() asker {
	a := asker{client: q.client, caller: q.callerName(), userAgent: printable(q.r.UserAgent()), image: q.route.name, reference: q.route.reference}
	switch {
	case q.route.tag != "":
		a.image += ":" + a.reference
	case a.reference != "":
		a.image += "@" + a.reference
	default:
		a.reference = listReference
	}
	return a
}

// listReference is the reference of a request for a repository's list of tags.
const listReference = "tags/list"

// wanted is what the request asks its upstream for.
func (q *request) wanted() wanted {
	return wanted{endpoint: q.route.endpoint, place: q.at, reference: q.route.reference}
}

// decided tells the client which decision this answer stands on.
func (q *request) decided(d policy.Decision) {
	q.id = []string{d.ID}
	switch {
	case d.Allowed && d.Exception != "":
		q.warn("299", "served under exception "+d.Exception+" until "+d.Expires.UTC().Format(time.DateOnly))
	case !d.Allowed && d.Reason != "": // what is only observed has no outcome yet
		q.warn("299", d.Sentence(q.asker().image))
	}
}

// warn adds a Warning header (RFC 7234, section 5.5), within what its readers
// accept.
func (q *request) warn(code, text string) {
	const most = 2048
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if len(text) > most {
		text = text[:most]
	}
	q.w.Header().Add("Warning", code+" - "+strconv.Quote("vidimus: "+text))
}

// fail answers with an error.
func (q *request) fail(err error) {
	q.failed = err
	e := asError(err, q.wanted())
	q.reason = e.reason()
	if q.w.status != 0 {
		// part of a body is out: only a broken connection tells the truth
		panic(http.ErrAbortHandler)
	}
	if e.Detail != nil && e.Detail.ID != "" {
		q.id = []string{e.Detail.ID}
		e.Detail.Reference = q.asker().reference
	}
	q.setID()
	writeError(q.w, q.r, e)
}

// setID names the answer; before its headers are written.
func (q *request) setID() {
	if q.id == nil {
		q.id = []string{policy.NewID()}
	}
	q.w.Header()["X-Request-Id"] = q.id
}

// end counts and logs the request.
func (q *request) end() {
	now := q.proxy.now()
	aborted := recover()
	q.proxy.metrics.served(q.route.endpoint, q.w.status, now.Sub(q.begin))
	q.log(now, aborted != nil)
	if aborted == nil {
		return
	}
	if aborted != http.ErrAbortHandler {
		q.proxy.logger.Error("panic while serving", "id", q.requestID(), "panic", aborted, "stack", stack())
		if q.w.status == 0 {
			writeError(q.w, q.r, unavailable("Vidimus cannot answer at the moment", retryAfterDefault, nil))
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// requestID is the answer's name; empty while it has none.
func (q *request) requestID() string {
	if q.id == nil {
		return ""
	}
	return q.id[0]
}

// log writes the request's line of the access log.
func (q *request) log(now time.Time, aborted bool) {
	level := slog.LevelInfo
	if q.w.status >= 500 || aborted {
		level = slog.LevelWarn
	}
	ctx, handler := q.r.Context(), q.proxy.access.Handler()
	if !handler.Enabled(ctx, level) {
		return
	}
	// not by the Logger, which would look for the line of code that calls it
	line := slog.NewRecord(now, level, "request", 0)
	line.AddAttrs(
		slog.String("id", q.requestID()), slog.String("client", q.client), slog.String("method", printable(q.r.Method)),
		slog.String("path", printable(q.loggedPath())), slog.String("repository", q.name), slog.String("reference", printable(q.route.reference)),
		slog.Int("status", q.w.status), slog.Int64("bytes", q.w.bytes), slog.Float64("seconds", now.Sub(q.begin).Seconds()),
		slog.String("userAgent", printable(q.r.UserAgent())),
	)
	if caller := q.callerName(); caller != "" {
		line.AddAttrs(slog.String("caller", caller))
	}
	if q.failed != nil {
		line.AddAttrs(slog.String("err", q.failed.Error()))
	}
	if q.reason != "" {
		line.AddAttrs(slog.String("reason", q.reason))
	}
	if aborted {
		line.AddAttrs(slog.Bool("aborted", true))
	}
	handler.Handle(ctx, line) // whose errors a Logger drops, too
}

// loggedPath is the path without what goes on with an upload, by which others could.
func (q *request) loggedPath() string {
	name, session, ok := cutLast(q.path, uploadsPath)
	if !ok || session == "" {
		return q.path
	}
	return name + uploadsPath + "..."
}

// clientOf returns the address of the client: the peer's, or, when the peer is
// a trusted proxy, the last address in X-Forwarded-For that is not one.
func clientOf(r *http.Request, trusted []netip.Prefix) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if len(trusted) == 0 {
		return host
	}
	address, err := netip.ParseAddr(host)
	if err != nil || !within(address, trusted) {
		return host
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		address = hop
		if !within(hop, trusted) {
			break
		}
	}
	return address.Unmap().String()
}

func within(address netip.Addr, prefixes []netip.Prefix) bool {
	address = address.Unmap()
	for _, prefix := range prefixes {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
