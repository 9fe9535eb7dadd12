package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// origin is the registry that everything is pulled from and pushed to: in memory, honest, as
// slow as it is told to be, and counting. It has no referrers API, as
// distribution's registry has none.
type origin struct {
	bytes *library
	tally *tally
	pace  atomic.Pointer[pace]

	mu           sync.RWMutex
	repositories map[string]*repository

	uploads uploads
}

// repository is what the origin has under one name.
type repository struct {
	manifests map[string]stored // by digest
	tags      map[string]string // digests
	blobs     map[string]blob   // of images, by digest
	payloads  map[string]blob   // of signature images, by digest
}

type stored struct {
	mediaType string
	body      []byte
}

func newOrigin(l *library) *origin {
	o := &origin{bytes: l, tally: newTally(), repositories: map[string]*repository{}, uploads: uploads{open: map[string]*upload{}}}
	o.pace.Store(&pace{})
	return o
}

// of returns a repository, which comes into being. The caller holds mu.
func (o *origin) of(name string) *repository {
	r, known := o.repositories[name]
	if !known {
		r = &repository{map[string]stored{}, map[string]string{}, map[string]blob{}, map[string]blob{}}
		o.repositories[name] = r
	}
	return r
}

// connectionKey is the key of a connection's freshness in the context of its
// requests.
type connectionKey struct{}

// server returns the HTTP server of the origin.
func (o *origin) server() *http.Server {
	return &http.Server{
		Handler: o,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			o.tally.connected()
			fresh := new(atomic.Bool)
			fresh.Store(true)
			return context.WithValue(ctx, connectionKey{}, fresh)
		},
	}
}

// ServeHTTP implements http.Handler.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := parseCall(r.URL.Path)
	kind := o.kind(call)
	if r.Method == http.MethodHead {
		kind = "HEAD " + kind
	}
	defer o.tally.begin(call.repository, kind)()
	fresh, _ := r.Context().Value(connectionKey{}).(*atomic.Bool)
	now := *o.pace.Load()
	now.wait(fresh != nil && fresh.Swap(false))

	switch {
	case call.isUpload():
		o.upload(w, r, call, now)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	case call.what == "":
		w.WriteHeader(http.StatusOK)
	case call.what == "manifests":
		o.manifest(w, r, call)
	case call.what == "blobs":
		o.blob(w, r, call, now)
	default:
		fail(w, http.StatusNotFound, "NAME_UNKNOWN")
	}
}

// call is the path of a request. what is empty for /v2/ itself.
type call struct{ repository, what, reference string }

func parseCall(path string) call {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if ok && rest == "" {
		return call{}
	}
	for _, what := range []string{"manifests", "blobs", "referrers", "tags"} {
		if i := strings.LastIndex(rest, "/"+what+"/"); ok && i > 0 {
			return call{rest[:i], what, rest[i+len(what)+2:]}
		}
	}
	return call{what: "unknown"}
}

func (o *origin) kind(c call) string {
	tag, isHash := strings.CutPrefix(c.reference, "sha256-")
	switch {
	case c.what == "":
		return kindPing
	case c.what == "referrers", c.what == "manifests" && isHash && len(tag) == 64:
		return kindReferrers
	case c.what == "manifests" && isHash && strings.HasSuffix(tag, ".sig"):
		return kindSignature
	case c.what == "manifests" && isHash && strings.HasSuffix(tag, ".cosign"):
		return kindLegacy
	case c.what == "manifests":
		return kindManifest
	case c.what != "blobs", c.isUpload():
		return kindOther
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if r, known := o.repositories[c.repository]; known {
		if _, isPayload := r.payloads[c.reference]; isPayload {
			return kindPayload
		}
	}
	return kindBlob
}

func (o *origin) manifest(w http.ResponseWriter, r *http.Request, c call) {
	m, digest, ok := o.lookup(c.repository, c.reference)
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	header := w.Header()
	header.Set("Docker-Content-Digest", digest)
	header.Set("Etag", strconv.Quote(digest))
	if names(r.Header.Get("If-None-Match"), digest) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", m.mediaType)
	header.Set("Content-Length", strconv.Itoa(len(m.body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(m.body) // who asked has left
	}
}

func (o *origin) lookup(repository, reference string) (m stored, digest string, ok bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	r, known := o.repositories[repository]
	if !known {
		return stored{}, "", false
	}
	if digest, ok = r.tags[reference]; !ok {
		digest = reference
	}
	m, ok = r.manifests[digest]
	return m, digest, ok
}

// names reports whether the value of an If-None-Match has the tag that the
// origin gives to digest.
func names(value, digest string) bool {
	for tag := range strings.SplitSeq(value, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == "*" || tag == strconv.Quote(digest) {
			return true
		}
	}
	return false
}

func (o *origin) blob(w http.ResponseWriter, r *http.Request, c call, now pace) {
	b, ok := o.content(c)
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	header := w.Header()
	header.Set("Accept-Ranges", "bytes")
	header.Set("Docker-Content-Digest", b.digest)
	header.Set("Etag", strconv.Quote(b.digest))
	header.Set("Content-Type", "application/octet-stream")
	from, end, status := byteRange(r.Header.Get("Range"), b.size())
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		header.Set("Content-Range", "bytes */"+strconv.FormatInt(b.size(), 10))
		fail(w, status, "RANGE_INVALID")
		return
	case http.StatusPartialContent:
		header.Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(end-1, 10)+"/"+strconv.FormatInt(b.size(), 10))
	}
	header.Set("Content-Length", strconv.FormatInt(end-from, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		// An error means that who asked has left: what went out is counted.
		_ = now.send(w, b, from, end, func(n int64) { o.tally.sent(c.repository, b.digest, n) })
	}
}

func (o *origin) content(c call) (blob, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	r, known := o.repositories[c.repository]
	if !known {
		return blob{}, false
	}
	b, ok := r.blobs[c.reference]
	if !ok {
		b, ok = r.payloads[c.reference]
	}
	return b, ok
}

// byteRange reads the value of a Range header of one range. Anything else asks
// for the whole, as RFC 9110 lets a server take it.
func byteRange(value string, size int64) (from, end int64, status int) {
	whole := func() (int64, int64, int) { return 0, size, http.StatusOK }
	spec, ok := strings.CutPrefix(value, "bytes=")
	first, last, found := strings.Cut(spec, "-")
	if !ok || !found {
		return whole()
	}
	a, errFirst := strconv.ParseUint(first, 10, 62)
	b, errLast := strconv.ParseUint(last, 10, 62)
	switch {
	case first == "" && errLast == nil: // the last b bytes
		from, end = max(0, size-int64(b)), size
	case errFirst != nil || last != "" && (errLast != nil || b < a):
		return whole()
	case last == "":
		from, end = int64(a), size
	default:
		from, end = int64(a), min(int64(b)+1, size)
	}
	if from >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return from, end, http.StatusPartialContent
}

// fail answers with an error of the distribution API.
func fail(w http.ResponseWriter, status int, code string) {
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": code, "message": http.StatusText(status)}}})
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Manifest implements signer.Registry.
func (o *origin) Manifest(_ context.Context, repository, reference string) ([]byte, error) {
	m, _, ok := o.lookup(repository, reference)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return m.body, nil
}

// Blob implements signer.Registry. What is signed here was not signed before, and so
// nothing is looked for.
func (o *origin) Blob(context.Context, string, v1.Hash, int64) ([]byte, error) {
	return nil, fs.ErrNotExist
}

// Referrers implements signer.Registry.
func (o *origin) Referrers(context.Context, string, v1.Hash) ([]v1.Descriptor, error) {
	return nil, nil
}

// PutBlob implements signer.Registry. Only signatures come this way.
func (o *origin) PutBlob(_ context.Context, repository string, _ v1.Hash, data []byte) error {
	b := blobOf(data)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of(repository).payloads[b.digest] = b
	return nil
}

// PutManifest implements signer.Registry.
func (o *origin) PutManifest(_ context.Context, repository, tag string, mediaType types.MediaType, data []byte) (bool, error) {
	digest := blobOf(data).digest
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.of(repository)
	r.manifests[digest] = stored{string(mediaType), data}
	r.tags[tag] = digest
	return false, nil
}
