package lying

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Match says which requests a lie is about. It is a value: its methods return
// a narrower one and leave the first as it was. The zero Match fits all.
type Match struct {
	method     string
	kind       Kind
	repository string
	reference  string
	where      []func(Request) bool
	from, to   int // which of the fitting requests, counted from 1; 0 is open
}

// Any fits every request.
func Any() Match { return Match{} }

// Ping fits requests for /v2/.
func Ping() Match { return Match{kind: KindPing} }

// Manifest fits requests for a manifest by this reference, a tag or a digest.
// An empty repository or reference fits any.
func Manifest(repository, reference string) Match {
	return Match{kind: KindManifest, repository: repository, reference: reference}
}

// ByTag fits requests for a manifest by any tag.
func ByTag(repository string) Match {
	return Manifest(repository, "").Where(func(q Request) bool { return !strings.Contains(q.Reference, ":") })
}

// ByDigest fits requests for a manifest by any digest.
func ByDigest(repository string) Match {
	return Manifest(repository, "").Where(func(q Request) bool { return strings.Contains(q.Reference, ":") })
}

// Blob fits requests for a blob; an empty repository or digest fits any.
func Blob(repository string, digest v1.Hash) Match {
	return Match{kind: KindBlob, repository: repository, reference: text(digest)}
}

// Referrers fits requests of the referrers API; an empty repository or digest
// fits any.
func Referrers(repository string, digest v1.Hash) Match {
	return Match{kind: KindReferrers, repository: repository, reference: text(digest)}
}

// Tags fits requests for a repository's list of tags.
func Tags(repository string) Match { return Match{kind: KindTags, repository: repository} }

// Token fits requests for a token at this registry's own /token.
func Token() Match { return Match{kind: KindToken} }

// Method fits only requests with this method.
func (m Match) Method(method string) Match { m.method = method; return m }

// GET fits only GET requests.
func (m Match) GET() Match { return m.Method("GET") }

// HEAD fits only HEAD requests.
func (m Match) HEAD() Match { return m.Method("HEAD") }

// Where fits only requests for which f is true as well.
func (m Match) Where(f func(Request) bool) Match {
	m.where = append(m.where[:len(m.where):len(m.where)], f)
	return m
}

// Nth fits only the nth of the requests that fit otherwise, counted from 1
// since Lie was called.
func (m Match) Nth(n int) Match { m.from, m.to = n, n; return m }

// First fits only the first n of the requests that fit otherwise.
func (m Match) First(n int) Match { m.from, m.to = 0, n; return m }

// From fits the nth and later of the requests that fit otherwise.
func (m Match) From(n int) Match { m.from, m.to = n, 0; return m }

// fits leaves the count aside.
func (m Match) fits(q Request) bool {
	if m.method != "" && m.method != q.Method ||
		m.kind != "" && m.kind != q.Kind ||
		m.repository != "" && m.repository != q.Repository ||
		m.reference != "" && m.reference != q.Reference {
		return false
	}
	for _, f := range m.where {
		if !f(q) {
			return false
		}
	}
	return true
}

// Lie is what Registry.Lie began. Stop ends it.
type Lie struct {
	registry *Registry
	match    Match
	faults   []Fault
	seen     int
	stopped  bool
	prevents bool
}

// Lie changes the answers to the requests that match from now on.
func (r *Registry) Lie(match Match, faults ...Fault) *Lie {
	r.mu.Lock()
	defer r.mu.Unlock()
	lie := &Lie{registry: r, match: match, faults: faults}
	r.lies = append(r.lies, lie)
	return lie
}

// Prevent is Lie for requests that are not even acted upon: they change nothing, and
// the faults make the answer, of which 500 is the default.
func (r *Registry) Prevent(match Match, faults ...Fault) *Lie {
	lie := r.Lie(match, faults...)
	r.mu.Lock()
	defer r.mu.Unlock()
	lie.prevents = true
	return lie
}

// Stop makes the registry honest again about this. Answers under way stay lies.
func (l *Lie) Stop() {
	l.registry.mu.Lock()
	defer l.registry.mu.Unlock()
	l.stopped = true
}

// BeHonest ends all lies.
func (r *Registry) BeHonest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lies = nil
}

// faults returns what the lies do to the answer to q, and counts it. prevented tells
// that q is not acted upon.
func (r *Registry) faults(q Request) (faults []Fault, prevented bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lie := range r.lies {
		if lie.stopped || !lie.match.fits(q) {
			continue
		}
		lie.seen++
		if lie.seen >= lie.match.from && (lie.match.to == 0 || lie.seen <= lie.match.to) {
			faults = append(faults, lie.faults...)
			prevented = prevented || lie.prevents
		}
	}
	return faults, prevented
}

// text returns a digest as text, the zero one as "".
func text(digest v1.Hash) string {
	if digest == (v1.Hash{}) {
		return ""
	}
	return digest.String()
}
