package lying

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// upload takes a blob in one POST, or in POST, PATCH and PUT; tells how far it is;
// gives it up; or takes it over from another repository.
func (r *Registry) upload(a *Answer, body []byte) {
	id := a.Request.Reference
	content, known := r.uploads[id]
	if a.Request.Method != http.MethodPost && !known {
		NotFound()(a)
		return
	}
	switch a.Request.Method {
	case http.MethodPost:
		if r.mount(a) {
			return
		}
		r.issued++
		id = fmt.Sprintf("upload-%d", r.issued)
		a.Status = http.StatusAccepted
	case http.MethodPatch, http.MethodPut:
		if first, _, ranged := strings.Cut(a.Request.Header.Get("Content-Range"), "-"); ranged && first != fmt.Sprint(len(content)) {
			Status(http.StatusRequestedRangeNotSatisfiable)(a)
			return
		}
		a.Status = http.StatusAccepted
	case http.MethodGet:
		a.Status = http.StatusNoContent
	case http.MethodDelete:
		delete(r.uploads, id)
		a.Status = http.StatusNoContent
		return
	default:
		NotFound()(a)
		return
	}
	content = append(bytes.Clone(content), body...)
	r.uploads[id] = content
	a.Header.Set("Location", "/v2/"+a.Request.Repository+"/blobs/uploads/"+id)
	a.Header.Set("Range", fmt.Sprintf("0-%d", max(0, len(content)-1)))
	digest := a.Request.Query.Get("digest")
	if digest == "" || a.Request.Method != http.MethodPost && a.Request.Method != http.MethodPut {
		return
	}
	delete(r.uploads, id)
	if Digest(content).String() != digest {
		Status(http.StatusBadRequest)(a)
		return
	}
	r.repo(a.Request.Repository).blobs[digest] = content
	a.stored(digest)
}

// mount takes a blob over from another repository.
func (r *Registry) mount(a *Answer) bool {
	digest, from := a.Request.Query.Get("mount"), a.Request.Query.Get("from")
	content, ok := r.repo(from).blobs[digest]
	if digest == "" || !ok {
		return false
	}
	r.repo(a.Request.Repository).blobs[digest] = content
	a.stored(digest)
	return true
}

func (a *Answer) stored(digest string) {
	a.Status = http.StatusCreated
	a.Header.Set("Location", "/v2/"+a.Request.Repository+"/blobs/"+digest)
	a.Header.Set("Docker-Content-Digest", digest)
}

// Uploads returns how many uploads were begun and neither ended nor given up.
func (r *Registry) Uploads() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.uploads)
}

// Blob returns the blob of digest that a repository holds.
func (r *Registry) Blob(repository string, digest v1.Hash) (content []byte, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	content, ok = r.repo(repository).blobs[digest.String()]
	return content, ok
}

// deleteManifest removes a tag, or a manifest with all tags that name it.
func (r *Registry) deleteManifest(a *Answer) {
	repo := r.repo(a.Request.Repository)
	reference := a.Request.Reference
	if _, _, ok := repo.manifest(reference); !ok {
		NotFound()(a)
		return
	}
	a.Status = http.StatusAccepted
	if !strings.Contains(reference, ":") {
		delete(repo.tags, reference)
		return
	}
	delete(repo.manifests, reference)
	maps.DeleteFunc(repo.tags, func(_, digest string) bool { return digest == reference })
}
