// Package lying is an upstream registry for tests: it keeps everything in
// memory, speaks the distribution API honestly, and lies on command.
//
// A test fills it, tells it how to lie, and looks at what was asked of it:
//
//	up := lying.Start(t)
//	key := lying.P256()
//	web := lying.Image("web")
//	up.Push("acme/web", web, "v1")
//	up.Sign("acme/web", web.Digest(), key)
//	up.Lie(lying.Manifest("acme/web", "v1").GET(), lying.Body(other.Body))
//	...
//	up.Log() // "GET /v2/acme/web/manifests/v1", ...
//
// A lie is a Match, which says which requests, and Faults, which say how the
// honest answer to them is changed. Faults compose: they are applied in the
// order in which they were given, those of an earlier lie first.
//
// What it stores is never checked: a test may put bytes under a digest that is
// not theirs. It trusts nobody, is trusted by nobody, and belongs in tests only.
package lying

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is one registry. It is an http.Handler and safe for concurrent use.
type Registry struct {
	// URL is where Start and StartTLS listen, without a slash at the end.
	URL string
	// Host is the host and port of URL.
	Host string

	done chan struct{} // closed when the registry stops: nobody hangs any more
	cert []byte        // PEM of the certificate, with StartTLS

	mu       sync.Mutex
	repos    map[string]*repository
	lies     []*Lie
	requests []*Request
	changed  chan struct{} // closed and replaced at each new request
	access   Access
	tokens   map[string][]string // token to its scopes
	issued   int
	uploads  map[string][]byte

	noReferrers bool
	compares    bool
	pageSize    int
}

// repository is what one repository holds.
type repository struct {
	manifests map[string]stored // by digest
	tags      map[string]string // to digest
	blobs     map[string][]byte // by digest
}

// stored is one manifest and the media type that it is served with.
type stored struct {
	mediaType string
	body      []byte
}

// New returns an empty registry that listens nowhere. Close ends what hangs.
func New() *Registry {
	return &Registry{
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		repos:   map[string]*repository{},
		tokens:  map[string][]string{},
		uploads: map[string][]byte{},
	}
}

// Start returns a registry that listens on 127.0.0.1 until the test ends.
func Start(tb testing.TB) *Registry { return start(tb, "127.0.0.1:0", false) }

// StartTLS is Start with a certificate of its own for 127.0.0.1 and
// example.com; CA returns it.
func StartTLS(tb testing.TB) *Registry { return start(tb, "127.0.0.1:0", true) }

// StartAt is Start on another address of the loopback range, as 127.0.0.2:0.
func StartAt(tb testing.TB, addr string) *Registry { return start(tb, addr, false) }

func start(tb testing.TB, addr string, secure bool) *Registry {
	tb.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatalf("lying: listen on %s: %v", addr, err)
	}
	r := New()
	server := &httptest.Server{Listener: listener, Config: &http.Server{
		Handler:  r,
		ErrorLog: log.New(io.Discard, "", 0), // broken connections are its trade
	}}
	if secure {
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		server.StartTLS()
		r.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	} else {
		server.Start()
	}
	r.URL, r.Host = server.URL, listener.Addr().String()
	tb.Cleanup(func() { r.Close(); server.CloseClientConnections(); server.Close() })
	return r
}

// CA returns the PEM certificate of a registry made by StartTLS.
func (r *Registry) CA() []byte { return slices.Clone(r.cert) }

// Close ends every answer that hangs. What Start started closes by itself.
func (r *Registry) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// Push puts content, all that it references, and tags for it into repository.
func (r *Registry) Push(repository string, content Content, tags ...string) v1.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.push(repository, content, tags...)
}

func (r *Registry) push(repository string, content Content, tags ...string) v1.Hash {
	repo := r.repo(repository)
	for _, child := range content.Children {
		r.push(repository, child)
	}
	for _, blob := range content.Blobs {
		repo.blobs[Digest(blob).String()] = blob
	}
	digest := content.Digest()
	repo.manifests[digest.String()] = stored{content.MediaType, content.Body}
	for _, tag := range tags {
		repo.tags[tag] = digest.String()
	}
	return digest
}

// PutManifest puts a manifest under a digest that need not be its own, and
// nothing that it references.
func (r *Registry) PutManifest(repository, digest, mediaType string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repository).manifests[digest] = stored{mediaType, body}
}

// PutBlob puts a blob under a digest that need not be its own.
func (r *Registry) PutBlob(repository, digest string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repository).blobs[digest] = body
}

// Tag makes tag name digest, whether or not the repository holds it.
func (r *Registry) Tag(repository, tag string, digest v1.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repository).tags[tag] = digest.String()
}

// DeleteTag removes a tag.
func (r *Registry) DeleteTag(repository, tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repo(repository).tags, tag)
}

// Delete removes a manifest and the blob with a digest; tags to it dangle.
func (r *Registry) Delete(repository string, digest v1.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repo(repository)
	delete(repo.manifests, digest.String())
	delete(repo.blobs, digest.String())
}

// WithoutReferrers turns the referrers API off: it answers 404, and clients
// keep the fallback tag.
func (r *Registry) WithoutReferrers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noReferrers = true
}

// Compares makes the registry honour If-Match and If-None-Match of writes to a tag: it
// answers 412 and stores nothing when they do not hold.
func (r *Registry) Compares() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compares = true
}

// PageSize makes lists of tags and referrers end after n entries and go on at
// a Link. Zero is no pages.
func (r *Registry) PageSize(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pageSize = n
}

// repo returns a repository and makes it when need be; r.mu is held.
func (r *Registry) repo(name string) *repository {
	repo := r.repos[name]
	if repo == nil {
		repo = &repository{map[string]stored{}, map[string]string{}, map[string][]byte{}}
		r.repos[name] = repo
	}
	return repo
}

// Tags returns the tags of a repository, sorted.
func (r *Registry) Tags(repository string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.repo(repository).tags))
}

// Manifest returns what reference, a tag or digest, names.
func (r *Registry) Manifest(repository, reference string) (body []byte, mediaType string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, _, ok := r.repo(repository).manifest(reference)
	return m.body, m.mediaType, ok
}

func (repo *repository) manifest(reference string) (stored, string, bool) {
	digest, tagged := repo.tags[reference]
	if !tagged {
		digest = reference
	}
	m, ok := repo.manifests[digest]
	return m, digest, ok
}

// ServeHTTP records the request, works out the honest answer, lets the lies
// change it, and sends what the request's conditions leave of it.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	go func() {
		select {
		case <-r.done:
			cancel()
		case <-ctx.Done():
		}
	}()

	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	record := r.record(req)
	faults, prevented := r.faults(*record)
	answer := &Answer{Request: *record, Header: http.Header{}, Length: LengthOfBody, Cut: -1}
	if prevented {
		Status(http.StatusInternalServerError)(answer)
	} else {
		answer = r.honest(req, record, body)
	}
	for _, fault := range faults {
		fault(answer)
	}
	answer.notModified()
	r.mu.Lock()
	record.Status = answer.Status
	r.mu.Unlock()
	answer.send(ctx, w, req)
}
