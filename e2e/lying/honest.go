package lying

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// honest works out what an honest registry answers, and does what it would do.
func (r *Registry) honest(req *http.Request, q *Request, body []byte) *Answer {
	a := &Answer{
		Request: *q,
		Status:  http.StatusOK,
		Header:  http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}},
		Length:  LengthOfBody,
		Cut:     -1,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.Kind == KindToken {
		r.token(a)
		return a
	}
	if r.challenged(a, req) {
		return a
	}
	reading := q.Method == http.MethodGet || q.Method == http.MethodHead
	switch {
	case q.Kind == KindPing:
	case q.Kind == KindManifest && reading:
		r.manifest(a)
	case q.Kind == KindManifest && q.Method == http.MethodPut:
		r.putManifest(a, body)
	case q.Kind == KindManifest && q.Method == http.MethodDelete:
		r.deleteManifest(a)
	case q.Kind == KindBlob && reading:
		r.blob(a)
	case q.Kind == KindUpload:
		r.upload(a, body)
	case q.Kind == KindTags && reading && q.Reference == "list":
		r.tags(a)
	case q.Kind == KindReferrers && reading && !r.noReferrers:
		r.referrers(a)
	case q.Kind == KindCatalog && reading:
		a.json("application/json", map[string]any{"repositories": slices.Sorted(maps.Keys(r.repos))})
	default:
		NotFound()(a)
	}
	return a
}

func (r *Registry) manifest(a *Answer) {
	m, digest, ok := r.repo(a.Request.Repository).manifest(a.Request.Reference)
	if !ok {
		NotFound()(a)
		return
	}
	a.Body = m.body
	a.Header.Set("Content-Type", m.mediaType)
	a.Header.Set("Docker-Content-Digest", digest)
	a.Header.Set("Etag", strconv.Quote(digest))
}

func (r *Registry) blob(a *Answer) {
	body, ok := r.repo(a.Request.Repository).blobs[a.Request.Reference]
	if !ok {
		NotFound()(a)
		return
	}
	a.Body = body
	a.Header.Set("Content-Type", "application/octet-stream")
	a.Header.Set("Docker-Content-Digest", a.Request.Reference)
	a.Header.Set("Etag", strconv.Quote(a.Request.Reference))
	a.Header.Set("Accept-Ranges", "bytes")
}

func (r *Registry) tags(a *Answer) {
	repo, ok := r.repos[a.Request.Repository]
	if !ok {
		NotFound()(a)
		return
	}
	all := slices.Sorted(maps.Keys(repo.tags))
	if last := a.Request.Query.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	page := all
	n, err := strconv.Atoi(a.Request.Query.Get("n"))
	if err != nil {
		n = r.pageSize
	}
	if n > 0 && n < len(all) {
		page = all[:n]
		a.next(url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}})
	}
	a.json("application/json", map[string]any{"name": a.Request.Repository, "tags": page})
}

func (r *Registry) referrers(a *Answer) {
	repo := r.repo(a.Request.Repository)
	wanted := a.Request.Query.Get("artifactType")
	found := []v1.Descriptor{}
	for _, digest := range slices.Sorted(maps.Keys(repo.manifests)) {
		desc, subject := describe(repo.manifests[digest])
		if subject == a.Request.Reference && (wanted == "" || wanted == desc.ArtifactType) {
			found = append(found, desc)
		}
	}
	if wanted != "" {
		a.Header.Set("OCI-Filters-Applied", "artifactType")
	}
	from, _ := strconv.Atoi(a.Request.Query.Get("from")) // absent is 0
	found = found[min(max(from, 0), len(found)):]
	if r.pageSize > 0 && r.pageSize < len(found) {
		found = found[:r.pageSize]
		query := url.Values{"from": {strconv.Itoa(from + r.pageSize)}}
		if wanted != "" {
			query.Set("artifactType", wanted)
		}
		a.next(query)
	}
	a.json(string(types.OCIImageIndex), v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: found,
	})
}

// describe returns the descriptor under which a referrers list shows a
// manifest, and its subject.
func describe(m stored) (desc v1.Descriptor, subject string) {
	var fields struct {
		ArtifactType string            `json:"artifactType"`
		Config       v1.Descriptor     `json:"config"`
		Subject      v1.Descriptor     `json:"subject"`
		Annotations  map[string]string `json:"annotations"`
	}
	if json.Unmarshal(m.body, &fields) != nil {
		return v1.Descriptor{}, ""
	}
	if fields.ArtifactType == "" {
		fields.ArtifactType = string(fields.Config.MediaType)
	}
	return v1.Descriptor{
		MediaType:    types.MediaType(m.mediaType),
		Digest:       Digest(m.body),
		Size:         int64(len(m.body)),
		ArtifactType: fields.ArtifactType,
		Annotations:  fields.Annotations,
	}, text(fields.Subject.Digest)
}

func (r *Registry) putManifest(a *Answer, body []byte) {
	digest := Digest(body).String()
	mediaType := a.Request.Header.Get("Content-Type")
	repo := r.repo(a.Request.Repository)
	if r.compares && !repo.holds(a.Request) {
		Status(http.StatusPreconditionFailed)(a)
		return
	}
	repo.manifests[digest] = stored{mediaType, body}
	if !strings.Contains(a.Request.Reference, ":") {
		repo.tags[a.Request.Reference] = digest
	}
	a.Status = http.StatusCreated
	a.Header.Set("Docker-Content-Digest", digest)
	a.Header.Set("Location", "/v2/"+a.Request.Repository+"/manifests/"+digest)
	if _, subject := describe(stored{mediaType, body}); subject != "" && !r.noReferrers {
		a.Header.Set("OCI-Subject", subject)
	}
}

// holds reports whether what a write asks for holds of what it replaces.
func (repo *repository) holds(q Request) bool {
	_, digest, there := repo.manifest(q.Reference)
	if match := q.Header.Get("If-Match"); match != "" && (!there || match != strconv.Quote(digest)) {
		return false
	}
	return q.Header.Get("If-None-Match") != "*" || !there
}

// next adds the Link to the next page.
func (a *Answer) next(query url.Values) {
	a.Header.Set("Link", "<"+a.Request.Path+"?"+query.Encode()+`>; rel="next"`)
}

// json makes v the body.
func (a *Answer) json(contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Status(http.StatusInternalServerError)(a)
		return
	}
	a.Body = body
	a.Header.Set("Content-Type", contentType)
}
