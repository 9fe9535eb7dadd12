package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy/access"
)

// serveUpload answers what begins an upload or goes on with one. What comes is
// streamed to the upstream and hashed on the way; nothing of it is kept.
func (q *request) serveUpload(v *view) error {
	if q.route.session == "" {
		return q.startUpload(v)
	}
	u, ok := q.proxy.sealer.open(q.route.session)
	// The clock of the replica that began it may go before ours, or ours have been set back.
	if !ok || u.Repository != v.name || u.Caller != q.exactCaller() || q.begin.Sub(u.Begun).Abs() >= uploadKept {
		return unknownUpload(nil)
	}
	end, err := q.proxy.uploads.begin(q.r.Context(), u.ID)
	if err != nil {
		return err
	}
	defer end()
	switch q.r.Method {
	case http.MethodPatch:
		return q.appendUpload(v, u)
	case http.MethodPut:
		return q.commitUpload(v, u)
	case http.MethodDelete:
		if err := v.registered.Push.CancelUpload(q.r.Context(), v.repository, u.Location); err != nil {
			return pushError(err, q.wanted())
		}
		q.setID()
		q.w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		return q.uploadStatus(v, u)
	}
}

// startUpload begins an upload, or takes a blob over from another repository, or
// takes a whole blob at once.
func (q *request) startUpload(v *view) error {
	ctx := q.r.Context()
	if algorithm := q.query.Get("digest-algorithm"); algorithm != "" && algorithm != "sha256" {
		return invalidDigest(algorithm, "only sha256 is supported")
	}
	var digest v1.Hash
	if text := q.query.Get("digest"); text != "" {
		var err error
		if digest, err = parseDigest(text); err != nil {
			return err
		}
	}
	u := newSession(v.name, q.exactCaller(), q.begin)
	end, err := q.proxy.uploads.begin(q.r.Context(), u.ID)
	if err != nil {
		return err
	}
	defer end()
	location, mounted, err := q.mountOrStart(ctx, v)
	if err != nil {
		at := q.wanted()
		at.endpoint = endpointBase // no upload is missing, if anything the repository
		return pushError(err, at)
	}
	if mounted {
		mount, err := parseDigest(q.query.Get("mount"))
		if err == nil {
			q.sendStored(mount)
		}
		return err
	}
	u.Location = location
	if isZero(digest) {
		return q.sendUpload(http.StatusAccepted, u)
	}
	return q.finishUpload(v, u, digest)
}

// mountOrStart takes over a blob that this caller could pull from the repository
// that he names, and begins an upload otherwise, as the specification wants it.
func (q *request) mountOrStart(ctx context.Context, v *view) (location string, mounted bool, err error) {
	if digest, err := parseDigest(q.query.Get("mount")); err == nil {
		if from, ok := q.mountable(ctx, v, digest); ok {
			location, mounted, err := v.registered.Push.StartUpload(ctx, v.repository, digest, from)
			if err == nil || ctx.Err() != nil {
				return location, mounted, err
			}
			q.proxy.logger.Info("a blob could not be mounted", "repository", v.name, "from", from, "digest", digest.String(), "err", err)
		}
	}
	return v.registered.Push.StartUpload(ctx, v.repository, v1.Hash{}, "")
}

// mountable returns the upstream's name of the repository to mount digest from, if
// the caller could GET it there. Who can not learns nothing: not even whether it is
// there.
func (q *request) mountable(ctx context.Context, v *view, digest v1.Hash) (from string, ok bool) {
	name := q.query.Get("from")
	if !plausibleName(name) || !q.may(v.name, access.Push) {
		return "", false
	}
	query := url.Values{}
	if ns, ok := q.query["ns"]; ok {
		query["ns"] = ns
	}
	at, err := q.resolve(name, query, q.r.Host)
	if err != nil || at.upstream != v.upstream || !q.may(at.canonical(), access.Pull) {
		return "", false
	}
	a := q.asker()
	a.image, a.reference = name+"@"+digest.String(), digest.String()
	_, _, err = q.view(at).admitBlob(ctx, digest, a)
	return at.repository, err == nil
}

// appendUpload takes one piece: a chunk with a Content-Range, or all that comes.
func (q *request) appendUpload(v *view, u session) error {
	ranged, err := q.checkRange(u)
	if err != nil {
		return err
	}
	if u, err = q.relay(v, u, q.body(readPatience), q.r.ContentLength, ranged); err != nil {
		return err
	}
	return q.sendUpload(http.StatusAccepted, u)
}

// checkRange compares Content-Range with how far the upload is.
func (q *request) checkRange(u session) (ranged bool, err error) {
	value := q.r.Header.Get("Content-Range")
	if value == "" {
		return false, nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(value, "bytes "), "-")
	last, _, _ = strings.Cut(last, "/")
	from, fromOK := parseOffset(first)
	to, toOK := parseOffset(last)
	if !ok || !fromOK || !toOK || to < from || q.r.ContentLength >= 0 && q.r.ContentLength != to-from+1 {
		return false, &Error{Status: http.StatusBadRequest, Code: codeBlobUploadInvalid, Message: "invalid Content-Range " + quote(value) + ": want first-last of as many bytes as come"}
	}
	if from != u.Offset {
		return false, &Error{
			Status: http.StatusRequestedRangeNotSatisfiable, Code: codeRangeInvalid, Size: -1,
			Message: fmt.Sprintf("the piece begins at %d, but the upload has %d bytes", from, u.Offset),
		}
	}
	return true, nil
}

// commitUpload takes the last piece, if there is one, and makes a blob of the whole.
func (q *request) commitUpload(v *view, u session) error {
	digest, err := parseDigest(q.query.Get("digest"))
	if err != nil {
		return err
	}
	if _, err := q.checkRange(u); err != nil {
		return err
	}
	return q.finishUpload(v, u, digest)
}

// finishUpload relays the body, and commits what was hashed to digest and nothing
// else.
func (q *request) finishUpload(v *view, u session, digest v1.Hash) error {
	ctx := q.r.Context()
	source := q.body(readPatience)
	body := bufio.NewReaderSize(source, 16)
	if _, err := body.Peek(1); err != io.EOF { // an empty piece is not sent
		if u, err = q.relay(v, u, struct {
			io.Reader
			io.Closer
		}{body, source}, q.r.ContentLength, false); err != nil {
			return err
		}
	}
	got, err := u.digest()
	if err != nil {
		return err
	}
	if got != digest || u.Held > u.Offset {
		err := v.cancel(ctx, u)
		what := "what was uploaded hashes to " + got.String()
		if got == digest {
			what = "the upstream holds more than was uploaded"
		}
		return &Error{Status: http.StatusBadRequest, Code: codeDigestInvalid, Message: "invalid digest " + digest.String() + ": " + what, Err: err}
	}
	if err := v.registered.Push.CommitUpload(ctx, v.repository, u.Location, digest); err != nil {
		return pushError(err, q.wanted())
	}
	q.sendStored(digest)
	return nil
}

// uploadStatus tells from where the client has to go on. The upstream may hold more
// than what was hashed here, when a piece broke off: that is sent once more to be
// hashed, and no further.
func (q *request) uploadStatus(v *view, u session) error {
	next, held, err := v.registered.Push.UploadStatus(q.r.Context(), v.repository, u.Location)
	switch {
	case err != nil:
		return pushError(err, q.wanted())
	case held < 0: // none, or not told
		held = u.Held
	case held < u.Offset:
		return unknownUpload(v.cancel(q.r.Context(), u))
	}
	u.Location, u.Held = next, held
	return q.sendUpload(http.StatusNoContent, u)
}

// cancel gives an upload up, also when the client has left.
func (v *view) cancel(ctx context.Context, u session) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	return v.registered.Push.CancelUpload(ctx, v.repository, u.Location)
}

// sendUpload tells where an upload goes on.
func (q *request) sendUpload(status int, u session) error {
	location, err := q.uploadLocation(u)
	if err != nil {
		return err
	}
	q.setID()
	h := q.w.Header()
	h.Set("Location", location)
	h.Set("Range", uploadRange(u))
	h.Set("Docker-Upload-Uuid", u.ID)
	h.Set("Cache-Control", "no-store")
	if status != http.StatusNoContent {
		h.Set("Content-Length", "0")
	}
	q.w.WriteHeader(status)
	return nil
}

func (q *request) uploadLocation(u session) (string, error) {
	sealed, err := q.proxy.sealer.seal(u)
	return q.located("blobs/uploads/" + sealed), err
}

// uploadRange is how much of an upload there is, in the words of the specification,
// which have none for nothing.
func uploadRange(u session) string { return "0-" + strconv.FormatInt(max(u.Offset-1, 0), 10) }

// located is a path of the repository in terms of this request.
func (q *request) located(path string) string {
	location := "/v2/" + q.route.name + "/" + path
	if q.query.Has("ns") {
		location += "?" + url.Values{"ns": {q.query.Get("ns")}}.Encode()
	}
	return location
}

// sendStored tells that the repository holds a blob.
func (q *request) sendStored(digest v1.Hash) {
	q.setID()
	h := q.w.Header()
	h.Set("Location", q.located("blobs/"+digest.String()))
	h.Set("Docker-Content-Digest", digest.String())
	h.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
}

func unknownUpload(err error) *Error {
	return &Error{
		Status: http.StatusNotFound, Code: codeBlobUploadUnknown, Err: err,
		Message: "there is no such upload (any more): begin it anew",
	}
}

// codesOfPush are the codes of an upstream's refusal that are handed on.
var codesOfPush = []errcode.ErrorCode{
	codeBlobUploadInvalid, codeDigestInvalid, codeManifestBlobUnknown, codeManifestInvalid, codeNameInvalid, codeSizeInvalid, codeTagInvalid,
}

// pushError is the answer to what an upstream makes of a push: its own refusal
// where it is about what the client sent.
func pushError(err error, at wanted) error {
	r, ok := errors.AsType[Refusal](err)
	if _, own := errors.AsType[*Error](err); own || !ok {
		return err
	}
	who := "upstream " + at.place.upstream
	switch status := r.Status(); status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		e := &Error{Status: status, Code: codeManifestInvalid, Message: who + " refuses it", Err: err}
		if status == http.StatusUnprocessableEntity || status == http.StatusUnsupportedMediaType {
			e.Status = http.StatusBadRequest
		}
		if at.endpoint == endpointUpload {
			e.Code = codeBlobUploadInvalid
		}
		if status == http.StatusRequestEntityTooLarge {
			e.Code = codeSizeInvalid
		}
		for _, code := range codesOfPush {
			if code.String() == r.Code() {
				e.Code, e.Message = code, e.Message+": "+code.Message()
			}
		}
		return e
	case http.StatusMethodNotAllowed:
		return &Error{Status: status, Code: codeUnsupported, Message: who + " does not support it", Err: err}
	case http.StatusRequestedRangeNotSatisfiable:
		return &Error{Status: status, Code: codeRangeInvalid, Message: who + " holds another part of the upload: ask for its status", Size: -1, Err: err}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &Error{Status: http.StatusForbidden, Code: codeDenied, Message: who + " refuses: Vidimus has no credentials that may write to this repository", Err: err}
	case http.StatusNotFound:
		if at.endpoint == endpointUpload {
			return unknownUpload(err)
		}
		if code := r.Code(); code == codeManifestBlobUnknown.String() || code == codeBlobUnknown.String() {
			return &Error{Status: http.StatusBadRequest, Code: codeManifestBlobUnknown, Message: who + " does not hold all that the manifest references", Err: err}
		}
	}
	return err
}

// pushRule returns the push rule of a repository, or the answer to who pushes
// where nothing can be pushed.
func (v *view) pushRule(endpoint endpoint) (*policy.Push, error) {
	scope := v.Gate.Scope(v.name)
	unsupported := func(message string) error {
		return &Error{Status: http.StatusMethodNotAllowed, Code: codeUnsupported, Allow: readMethods(endpoint), Message: message}
	}
	switch {
	case scope.Push != nil && v.registered.Push != nil:
		return scope.Push, nil
	case scope.Push != nil:
		return nil, unsupported("nothing can be pushed to upstream " + v.upstream)
	case scope.Policy == "":
		return nil, unsupported("no policy matches " + v.name + ", so nothing can be pushed to it: add to policies a match with push: unsigned, or push: {sign: AUTHORITY}")
	}
	return nil, unsupported("policy " + printable(scope.Policy) + " lets nothing be pushed to " + v.name + ": add to it push: unsigned, or push: {sign: AUTHORITY}")
}
