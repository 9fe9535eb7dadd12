package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// nowhere is a digest of nothing that is there.
var nowhere = lying.Digest([]byte("nobody has pushed this")).String()

var pullRequirements = []requirement{
	{"end-1: the API is there", func(r *remote) { r.ask("GET", "/v2/", nil, nil, http.StatusOK) }},
	{"end-2: GET of a blob", func(r *remote) {
		content := r.bytesOf(70_000)
		digest := r.blob(content)
		r.publish(content)
		a := r.get("blobs/"+digest, http.StatusOK)
		r.is(a, "Docker-Content-Digest", digest)
		if r.err == nil && !bytes.Equal(a.body, content) {
			r.failf("the blob is another")
		}
	}},
	{"end-2: GET of a blob that no manifest references", func(r *remote) {
		r.get("blobs/"+r.blob(r.bytesOf(1000)), http.StatusOK)
	}},
	{"end-2: HEAD of a blob", func(r *remote) {
		digest := r.blob(r.bytesOf(1234))
		a := r.head("blobs/"+digest, http.StatusOK)
		r.is(a, "Content-Length", "1234")
		r.is(a, "Docker-Content-Digest", digest)
	}},
	{"end-2: a blob that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.get("blobs/"+nowhere, http.StatusNotFound), "BLOB_UNKNOWN")
		r.head("blobs/"+nowhere, http.StatusNotFound)
	}},
	{"end-2: a repository that is not there", func(r *remote) {
		r.says(r.get("blobs/"+nowhere, http.StatusNotFound), "BLOB_UNKNOWN", "NAME_UNKNOWN")
	}},
	{"end-2: what is not a digest", func(r *remote) {
		r.says(r.get("blobs/sha256:0123", http.StatusBadRequest, http.StatusNotFound))
	}},
	{"end-2: a range of a blob", func(r *remote) { r.ranged("bytes=10-19", 10, 20) }},
	{"end-2: a range to the end of a blob", func(r *remote) { r.ranged("bytes=900-", 900, 1000) }},
	{"end-2: the last bytes of a blob", func(r *remote) { r.ranged("bytes=-7", 993, 1000) }},
	{"end-2: a range beyond the end of a blob", func(r *remote) { r.ranged("bytes=990-2000", 990, 1000) }},
	{"end-2: a range after the end of a blob", func(r *remote) {
		digest := r.blob(r.bytesOf(1000))
		r.publish(r.bytesOf(1000))
		a := r.ask("GET", r.in("blobs/"+digest), http.Header{"Range": {"bytes=1000-"}}, nil, http.StatusRequestedRangeNotSatisfiable)
		r.is(a, "Content-Range", "bytes */1000")
	}},
	{"end-3: GET of a manifest by tag", func(r *remote) {
		image := r.seeded("")
		r.image(image, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), image)
	}},
	{"end-3: GET of a manifest by digest", func(r *remote) {
		image := r.seeded("")
		r.isManifest(r.get("manifests/"+r.image(image), http.StatusOK), image)
	}},
	{"end-3: HEAD of a manifest by tag and digest", func(r *remote) {
		image := r.seeded("")
		for _, reference := range []string{"v1", r.image(image, "v1")} {
			a := r.head("manifests/"+reference, http.StatusOK)
			r.is(a, "Content-Length", fmt.Sprint(len(image.Body)))
			r.is(a, "Content-Type", image.MediaType)
			r.is(a, "Docker-Content-Digest", image.Digest().String())
		}
	}},
	{"end-3: a tag that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.get("manifests/v2", http.StatusNotFound), "MANIFEST_UNKNOWN")
		r.head("manifests/v2", http.StatusNotFound)
	}},
	{"end-3: a digest that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.get("manifests/"+nowhere, http.StatusNotFound), "MANIFEST_UNKNOWN")
		r.head("manifests/"+nowhere, http.StatusNotFound)
	}},
	{"end-3: a repository that is not there", func(r *remote) {
		r.says(r.get("manifests/v1", http.StatusNotFound), "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
	}},
	{"end-3: what is neither tag nor digest", func(r *remote) {
		r.says(r.get("manifests/.not-a-tag", http.StatusBadRequest, http.StatusNotFound))
	}},
	{"a name that is none", func(r *remote) {
		r.repository += "/UPPER"
		r.says(r.get("manifests/v1", http.StatusBadRequest, http.StatusNotFound))
	}},
	{"end-3: manifests keep their media type and bytes", func(r *remote) {
		for i, content := range []lying.Content{
			r.seeded(""), lying.DockerImage(r.repository), lying.Index(r.seeded("one"), r.seeded("two")),
			lying.DockerList(lying.DockerImage(r.repository+"one"), lying.DockerImage(r.repository+"two")),
			lying.ImageManifest{Config: lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")}, ArtifactType: "application/vnd.example",
				Layers: []lying.Layer{{MediaType: "application/vnd.example.layer", Data: r.bytesOf(100)}}}.Build(),
		} {
			tag := fmt.Sprintf("v%d", i)
			r.image(content, tag)
			r.isManifest(r.get("manifests/"+tag, http.StatusOK), content)
			r.isManifest(r.get("manifests/"+content.Digest().String(), http.StatusOK), content)
		}
	}},
}

// isManifest wants an answer to have the content.
func (r *remote) isManifest(a reply, content lying.Content) {
	r.is(a, "Content-Type", content.MediaType)
	r.is(a, "Docker-Content-Digest", content.Digest().String())
	if r.err == nil && !bytes.Equal(a.body, content.Body) {
		r.failf("the manifest is another: %s", a.body)
	}
}

// ranged wants a range of a blob of a thousand bytes.
func (r *remote) ranged(value string, from, to int) {
	content := r.bytesOf(1000)
	digest := r.blob(content)
	r.publish(content)
	for range 2 { // the second time it is known
		a := r.ask("GET", r.in("blobs/"+digest), http.Header{"Range": {value}}, nil, http.StatusPartialContent)
		r.is(a, "Content-Range", fmt.Sprintf("bytes %d-%d/1000", from, to-1))
		r.is(a, "Content-Length", fmt.Sprint(to-from))
		if r.err == nil && !bytes.Equal(a.body, content[from:to]) {
			r.failf("%s is %q", value, a.body)
		}
	}
}

var discoveryRequirements = []requirement{
	{"end-8a: the tags of a repository, in order", func(r *remote) {
		r.image(r.seeded(""), "b", "a", "c10", "c9", "A")
		r.isTags(r.get("tags/list", http.StatusOK), "A", "a", "b", "c10", "c9")
	}},
	{"end-8a: the tags of a repository that is not there", func(r *remote) {
		r.says(r.get("tags/list", http.StatusNotFound), "NAME_UNKNOWN")
	}},
	{"end-8b: no more tags than were asked for", func(r *remote) {
		r.image(r.seeded(""), "a", "b", "c", "d")
		r.isTags(r.get("tags/list?n=2", http.StatusOK), "a", "b")
		r.isTags(r.get("tags/list?n=4", http.StatusOK), "a", "b", "c", "d")
	}},
	{"end-8b: no tags", func(r *remote) {
		r.image(r.seeded(""), "a", "b")
		r.isTags(r.get("tags/list?n=0", http.StatusOK))
	}},
	{"end-8b: the tags after a tag", func(r *remote) {
		r.image(r.seeded(""), "a", "b", "c", "d")
		r.isTags(r.get("tags/list?last=b", http.StatusOK), "c", "d")
		r.isTags(r.get("tags/list?n=1&last=b", http.StatusOK), "c")
		r.isTags(r.get("tags/list?n=3&last=d", http.StatusOK))
	}},
	{"end-8b: page after page by Link", func(r *remote) {
		r.image(r.seeded(""), "a", "b", "c", "d", "e")
		next, pages := "/tags/list?n=2", 0
		for _, want := range [][]string{{"a", "b"}, {"c", "d"}, {"e"}} {
			target := next
			if pages == 0 {
				target = r.in("tags/list?n=2")
			}
			a := r.ask("GET", target, nil, nil, http.StatusOK)
			r.isTags(a, want...)
			pages++
			if r.err != nil {
				return
			}
			link := a.header.Get("Link")
			if pages == 3 {
				if link != "" {
					r.failf("the last page has the Link %s", link)
				}
				return
			}
			inner, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if !ok || !strings.Contains(rest, `rel="next"`) {
				r.failf("page %d has the Link %q", pages, link)
				return
			}
			next = inner
			if !strings.HasPrefix(next, "/") && !strings.HasPrefix(next, "http") {
				r.failf("the Link goes to %s", next)
			}
		}
	}},
	{"end-12a: the referrers of what has none", func(r *remote) {
		digest := r.image(r.seeded(""), "v1")
		r.isReferrers(r.get("referrers/"+digest, http.StatusOK))
	}},
	{"end-12a: the referrers of what is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.isReferrers(r.get("referrers/"+nowhere, http.StatusOK))
	}},
	{"end-12a: what is not a digest", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.get("referrers/v1", http.StatusBadRequest))
	}},
	{"end-12a: all referrers, as they describe themselves", func(r *remote) {
		r.isReferrers(r.get("referrers/"+r.referred(), http.StatusOK), "application/vnd.one", "application/vnd.one", "application/vnd.two")
	}},
	{"end-12a: the annotations of referrers", func(r *remote) {
		a := r.get("referrers/"+r.referred(), http.StatusOK)
		if r.err == nil && strings.Count(string(a.body), `"of":"conformance"`) != 3 {
			r.failf("want annotations in %s", a.body)
		}
	}},
	{"end-12b: the referrers of one type", func(r *remote) {
		a := r.get("referrers/"+r.referred()+"?artifactType=application/vnd.one", http.StatusOK)
		r.is(a, "OCI-Filters-Applied", "artifactType")
		r.isReferrers(a, "application/vnd.one", "application/vnd.one")
	}},
	{"end-12b: the referrers of a type that none has", func(r *remote) {
		a := r.get("referrers/"+r.referred()+"?artifactType=application/vnd.three", http.StatusOK)
		r.is(a, "OCI-Filters-Applied", "artifactType")
		r.isReferrers(a)
	}},
	{"end-12a: a referrer that came before its subject", func(r *remote) {
		image := r.seeded("")
		r.image(r.refersTo(image.Descriptor(), "application/vnd.one", 1))
		r.image(image, "v1")
		r.isReferrers(r.get("referrers/"+image.Digest().String(), http.StatusOK), "application/vnd.one")
	}},
	{"end-12a: a referrer that was deleted", func(r *remote) {
		image := r.seeded("")
		r.image(image, "v1")
		digest := r.image(r.refersTo(image.Descriptor(), "application/vnd.one", 1))
		r.image(r.refersTo(image.Descriptor(), "application/vnd.two", 2))
		r.ask("DELETE", r.in("manifests/"+digest), nil, nil, http.StatusAccepted)
		r.isReferrers(r.get("referrers/"+image.Digest().String(), http.StatusOK), "application/vnd.two")
	}},
}

// isTags wants a list of tags.
func (r *remote) isTags(a reply, want ...string) {
	var body struct {
		Name string
		Tags []string
	}
	r.decode(a, &body)
	if !strings.HasSuffix(r.repository, body.Name) || body.Name == "" && r.err == nil {
		r.failf("the name is %q", body.Name)
	}
	if r.err == nil && fmt.Sprint(body.Tags) != fmt.Sprint(want) {
		r.failf("tags %v, want %v", body.Tags, want)
	}
}

// refersTo is an artifact with a subject.
func (r *remote) refersTo(subject v1.Descriptor, artifactType string, n int) lying.Content {
	return lying.ImageManifest{
		ArtifactType: artifactType, Subject: &subject, Annotations: map[string]string{"of": "conformance", "n": fmt.Sprint(n)},
		Config: lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")},
		Layers: []lying.Layer{{MediaType: "text/plain", Data: r.bytesOf(50 + n)}},
	}.Build()
}

// referred pushes an image and what refers to it, and returns the image's digest.
func (r *remote) referred() string {
	image := r.seeded("")
	r.image(image, "v1")
	for i, artifactType := range []string{"application/vnd.one", "application/vnd.two", "application/vnd.one"} {
		r.image(r.refersTo(image.Descriptor(), artifactType, i))
	}
	return image.Digest().String()
}
