package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy/access"
	"vidimus/verifier"
)

// Upstream is one upstream registry, as seen by the proxy. Repository names are
// the upstream's own, without its name in front. Nothing that an Upstream
// returns is believed: the proxy hashes and bounds it again.
//
// An error that matches fs.ErrNotExist says that the upstream holds no such
// thing. Other errors may implement Fault to say more.
type Upstream interface {
	// Manifest returns the bytes of the manifest that reference (a tag, or
	// algorithm:hex) names, as the upstream sent them, and their Content-Type
	// header. It is one GET, retried within bounds. When held is a digest, and
	// only then, the upstream may answer that reference is unchanged: that it
	// still names held, whose bytes are not sent again.
	Manifest(ctx context.Context, repository, reference string, held v1.Hash) (body []byte, contentType string, unchanged bool, err error)

	// Blob opens a blob at offset. size is the blob's whole size as far as the
	// upstream told, or -1. The body is not verified; the caller closes it.
	Blob(ctx context.Context, repository string, digest v1.Hash, offset int64) (body io.ReadCloser, size int64, err error)

	// Exists answers without an error when a HEAD for the blob in this repository
	// is answered with 200. size is the blob's as far as that says, or -1.
	Exists(ctx context.Context, repository string, digest v1.Hash) (size int64, err error)

	// Tags returns one page of the repository's tags after last, at most n (0:
	// as many as the upstream gives), and whether there are more.
	Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error)

	// Referrers returns the descriptors that the referrers API lists for
	// digest, all pages within bounds, filtered by artifactType when it is not
	// empty. It matches fs.ErrNotExist when the upstream has no such API.
	Referrers(ctx context.Context, repository string, digest v1.Hash, artifactType string) ([]v1.Descriptor, error)
}

// Fault is what an Upstream's error may tell beyond its text. Kind is one of
// the Kind constants; RetryAfter is zero when the upstream asked for nothing.
type Fault interface {
	error
	Kind() string
	RetryAfter() time.Duration
}

// Adviser is what a Fault may be besides: it tells what would mend it, which may
// be a key to set, and names no host and no address, so that clients may read it.
type Adviser interface {
	Advice() string // empty when there is none
}

// Kinds of faults.
const (
	KindUnauthorized = "unauthorized" // 401 after authentication, or no credentials
	KindForbidden    = "forbidden"    // 403
	KindRateLimited  = "rate-limited" // 429
	KindUnavailable  = "unavailable"  // unreachable, reset, timeout, 408, 5xx
	KindTLS          = "tls"          // certificate or handshake
	KindRefused      = "refused"      // our own rules forbid the address, redirect or realm
	KindMismatch     = "mismatch"     // oversized or malformed answer
)

// Store holds content by digest. It believes nothing that it holds: the end of
// what a reader hands out is held back until the whole content has hashed to its
// digest in this process, and those very bytes with it.
// Readers are sequential and belong to one goroutine; closing one early stops
// nobody else.
type Store interface {
	// Open returns the content of digest, which is held, and its size. It
	// matches fs.ErrNotExist when it is not, though it may be arriving.
	Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error)

	// Fetch returns the bytes of the content of digest from first up to, not
	// including, end (negative: its end), and the size of the whole. When the
	// content is not held it is fetched: from is
	// called, once for all concurrent callers of one owner, and what it yields
	// streams to every reader and into the store. A transfer is never shared
	// between owners and outlives ctx. from is called again with a larger
	// offset when a transfer breaks. size is the content's size, at which a
	// longer or shorter transfer fails; -1 when it is not known. The reader may
	// implement io.WriterTo, and Held() bool: whether the content was there
	// before it was asked for.
	Fetch(ctx context.Context, owner string, digest v1.Hash, size, first, end int64, from func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)) (io.ReadCloser, int64, error)

	// Prefetch is Fetch of all of a content without a reader. It returns when the
	// content is held, or why it is not; when ctx ends, the transfer ends too
	// unless somebody reads it.
	Prefetch(ctx context.Context, owner string, digest v1.Hash, size int64, from func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)) error

	// Put stores content whose digest the caller has computed; it is hashed
	// again.
	Put(ctx context.Context, digest v1.Hash, content []byte) error
}

// Index remembers, for each canonical repository, what its upstream delivered
// there and where to look for what allows it. Everything in it is a hint that
// is checked again in hashed bytes.
type Index interface {
	// Tag returns what tag meant when the upstream last confirmed it. It
	// matches fs.ErrNotExist when nothing is known.
	Tag(ctx context.Context, repository, tag string) (digest v1.Hash, confirmed time.Time, err error)

	// SetTag remembers what tag means; the zero digest forgets it. Lists of
	// referrers are remembered so too, under names that no tag has.
	SetTag(ctx context.Context, repository, tag string, digest v1.Hash, confirmed time.Time) error

	// Delivered remembers that repository's upstream delivered digest, or
	// answered 200 to HEAD for it; with edges that the manifest digest, which
	// was admitted, references each of them.
	Delivered(ctx context.Context, repository string, digest v1.Hash, edges ...v1.Hash) error

	// Known reports whether repository delivered digest, and the manifests of
	// repository that reference it, the most recently admitted first, a
	// bounded number.
	Known(ctx context.Context, repository string, digest v1.Hash) (delivered bool, parents []v1.Hash, err error)

	// Repositories returns the repositories with admitted manifests, sorted,
	// at most n after the name last.
	Repositories(ctx context.Context, n int, last string) ([]string, error)
}

// Gate decides. policy.Evaluator implements it.
type Gate interface {
	// Evaluate decides about subject with evidence read from registry. An
	// error means that no decision could be reached; the Decision then carries
	// what is known (identifier, policy, evidence) and denies.
	Evaluate(ctx context.Context, registry verifier.Registry, subject policy.Subject) (policy.Decision, error)

	// Scope tells, without evidence, under what a canonical repository falls.
	Scope(repository string) policy.Scope

	// Revoked reports whether the configuration names digest as never served.
	Revoked(digest v1.Hash) bool
}

// Access says who may talk to the proxy. access.Control implements it. It decides
// nothing about content: what a caller may pull passes the gate all the same.
type Access interface {
	// Identify tells who makes a request. Its error is access.ErrCredentials when
	// credentials came that do not hold, whatever would be allowed without them;
	// access.ErrBusy; or that of the request's context.
	Identify(r *http.Request) (access.Caller, error)

	// Allows reports whether caller may do action in a canonical repository.
	Allows(caller access.Caller, repository string, action access.Action) bool

	// AllowsSome reports whether caller may do anything in any repository.
	AllowsSome(caller access.Caller) bool
}

// Recorder keeps decision records.
type Recorder interface {
	// Record keeps one decision before it takes effect. An error means that
	// the decision must not be acted upon.
	Record(ctx context.Context, record Record) error
}

// Record is one decision, as it is kept: one line of JSON. A decision that
// answers under further references is recorded again under each of them, with
// the same identifier, at the first request for it.
type Record struct {
	ID          string          `json:"id"`
	Time        time.Time       `json:"time"`
	Action      string          `json:"action,omitempty"` // push, hook or delete; empty: a pull, or what looks for one
	Decision    string          `json:"decision"`         // allowed | denied | inconclusive
	Reason      string          `json:"reason,omitempty"`
	Explained   string          `json:"explained,omitempty"`
	Hint        string          `json:"hint,omitempty"`
	Causes      []string        `json:"causes,omitempty"` // what could not be read, when it is inconclusive
	Repository  string          `json:"repository"`       // canonical
	Reference   string          `json:"reference"`        // tag or digest that was asked for
	Digest      string          `json:"digest"`
	Policy      string          `json:"policy,omitempty"`
	Enforcement string          `json:"enforcement"`
	Served      bool            `json:"served"`
	Authorities []string        `json:"authorities,omitempty"` // that have signed
	Via         string          `json:"via,omitempty"`         // the allowed index that lists it
	Subject     string          `json:"subject,omitempty"`     // the image that this is a signature or other referrer of
	Exception   string          `json:"exception,omitempty"`
	Evidence    json.RawMessage `json:"evidence,omitempty"` // a list of policy.Piece
	Remedies    []policy.Remedy `json:"remedies,omitempty"` // what would mend it, as hint says and beyond
	Client      string          `json:"client"`             // its address
	Caller      string          `json:"caller,omitempty"`   // who it is, where callers are known
	Access      string          `json:"access,omitempty"`   // the right under which it was read though it is not allowed
	UserAgent   string          `json:"userAgent,omitempty"`
	Revision    string          `json:"revision"`
}

// Revision is one consistent configuration of a Proxy. A request ends under
// the revision that it began with. It is not changed once it is in use.
type Revision struct {
	ID              string
	Upstreams       map[string]Registered // by name
	DefaultUpstream string                // a name in Upstreams, or empty
	Gate            Gate
	ExternalHost    string // host[:port] of http.externalURL, or empty
	TagTTL          time.Duration
	MaxStale        time.Duration
	TrustedProxies  []netip.Prefix // whose X-Forwarded-For is believed
	RequireRecord   bool           // a decision that cannot be recorded is not acted upon
	HookToken       string         // whoever shows it may tell of pushes; empty: nobody may

	// Access says who may do what. Nil is a proxy without users: whoever reaches it
	// may pull, and push and delete where that is configured; nobody may sign or
	// inspect what is not admitted.
	Access Access
}

// Registered is one upstream and the names it goes by.
type Registered struct {
	Upstream Upstream
	URLHost  string   // host[:port] of its URL: another name that signatures may use
	Hosts    []string // values of the Host header that mean it

	// Push is Upstream for what is pushed; nil: nothing can be.
	Push Pushable
	// Signers sign what is pushed there, by the authority's name. One that is
	// missing has no key at the moment.
	Signers map[string]Signer

	// Scarce reports whether the upstream said of late that almost nothing is
	// left of its rate limit; it lapses by itself. Nil never does.
	Scarce func() bool
}
