package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// isBlob wants a blob to be there for who pushes, and for everybody once a manifest
// that references it was pulled.
func (r *remote) isBlob(content []byte) {
	digest := lying.Digest(content).String()
	r.is(r.head("blobs/"+digest, http.StatusOK), "Content-Length", fmt.Sprint(len(content)))
	r.publish(content)
	a := r.get("blobs/"+digest, http.StatusOK)
	if r.err == nil && !bytes.Equal(a.body, content) {
		r.failf("the blob has %d bytes that are not those that were pushed", len(a.body))
	}
}

// isStored wants an answer that a blob is stored, and that it is where that says.
func (r *remote) isStored(a reply, content []byte) {
	r.isBlob(content)
	at := r.ask("GET", r.located(a), nil, nil, http.StatusOK)
	if r.err == nil && !bytes.Equal(at.body, content) {
		r.failf("another blob is at its Location")
	}
}

// publish pushes and pulls a manifest that references a blob, which is there.
func (r *remote) publish(content []byte) {
	image := lying.ImageManifest{Config: lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")}, ArtifactType: "application/vnd.example",
		Layers: []lying.Layer{{MediaType: "application/octet-stream", Data: content}}}.Build()
	r.blob([]byte("{}"))
	r.put(image.Digest().String(), image, http.StatusCreated)
	r.get("manifests/"+image.Digest().String(), http.StatusOK)
}

// chunk sends a piece of an upload, and returns where it goes on.
func (r *remote) chunk(location string, content []byte, from int, statuses ...int) reply {
	piece := fmt.Sprintf("%d-%d", from, from+len(content)-1)
	return r.ask("PATCH", location, binary("Content-Range", piece), content, statuses...)
}

var blobRequirements = []requirement{
	{"end-4a: an upload begins", func(r *remote) { r.begin() }},
	{"end-4b: a blob in one POST", func(r *remote) {
		content := r.bytesOf(5000)
		digest := lying.Digest(content).String()
		a := r.ask("POST", with(r.base+r.in("blobs/uploads/"), digest), binary(), content, http.StatusCreated, http.StatusAccepted)
		if a.status == http.StatusAccepted { // it is not supported, and goes on as any
			a = r.ask("PUT", with(r.located(a), digest), binary(), content, http.StatusCreated)
		}
		r.isStored(a, content)
	}},
	{"end-4b: another digest than that of the blob", func(r *remote) {
		a := r.ask("POST", with(r.base+r.in("blobs/uploads/"), nowhere), binary(), r.bytesOf(50), http.StatusBadRequest, http.StatusAccepted)
		if a.status == http.StatusBadRequest {
			r.says(a, "DIGEST_INVALID")
		}
		r.get("blobs/"+nowhere, http.StatusNotFound)
	}},
	{"end-6: a blob in POST and PUT", func(r *remote) {
		content := r.bytesOf(5000)
		a := r.ask("PUT", with(r.begin(), lying.Digest(content).String()), binary(), content, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-6: an empty blob", func(r *remote) {
		a := r.ask("PUT", with(r.begin(), lying.Digest(nil).String()), binary(), nil, http.StatusCreated)
		r.isStored(a, nil)
	}},
	{"end-6: the same blob again", func(r *remote) {
		content := r.bytesOf(5000)
		r.blob(content)
		r.blob(content)
		r.isBlob(content)
	}},
	{"end-6: another digest than that of the blob", func(r *remote) {
		content := r.bytesOf(50)
		r.says(r.ask("PUT", with(r.begin(), nowhere), binary(), content, http.StatusBadRequest), "DIGEST_INVALID")
		r.get("blobs/"+nowhere, http.StatusNotFound)
		r.get("blobs/"+lying.Digest(content).String(), http.StatusNotFound)
	}},
	{"end-6: no digest", func(r *remote) {
		r.says(r.ask("PUT", r.begin(), binary(), r.bytesOf(50), http.StatusBadRequest))
	}},
	{"end-6: what is no digest", func(r *remote) {
		r.says(r.ask("PUT", with(r.begin(), "sha256:0123"), binary(), r.bytesOf(50), http.StatusBadRequest), "DIGEST_INVALID")
	}},
	{"end-6: an upload that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.ask("PUT", with(r.base+r.in("blobs/uploads/0b0fa2a9-7dd0-4ecf-8e1b-000000000000"), nowhere), binary(), nil, http.StatusNotFound), "BLOB_UPLOAD_UNKNOWN")
	}},
	{"end-6: a blob with SHA-512", func(r *remote) {
		content := r.bytesOf(60)
		r.ask("PUT", with(r.begin(), sha512Of(content)), binary(), content, http.StatusCreated)
		r.get("blobs/"+sha512Of(content), http.StatusOK)
	}},
	{"end-5: a blob in one PATCH, streamed", func(r *remote) {
		content := r.bytesOf(100_000)
		a := r.ask("PATCH", r.begin(), binary("Transfer-Encoding", "chunked"), content, http.StatusAccepted)
		a = r.ask("PUT", with(r.located(a), lying.Digest(content).String()), nil, nil, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-5: a blob in pieces, each with its range", func(r *remote) {
		content := r.bytesOf(9000)
		location := r.begin()
		for from := 0; from < len(content); from += 3000 {
			a := r.chunk(location, content[from:from+3000], from, http.StatusAccepted)
			r.is(a, "Range", fmt.Sprintf("0-%d", from+2999))
			location = r.located(a)
		}
		a := r.ask("PUT", with(location, lying.Digest(content).String()), nil, nil, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-6: the last piece comes with the PUT", func(r *remote) {
		content := r.bytesOf(9000)
		location := r.located(r.chunk(r.begin(), content[:4000], 0, http.StatusAccepted))
		a := r.ask("PUT", with(location, lying.Digest(content).String()), binary("Content-Range", "4000-8999"), content[4000:], http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-5: a piece out of order", func(r *remote) {
		content := r.bytesOf(9000)
		location := r.located(r.chunk(r.begin(), content[:3000], 0, http.StatusAccepted))
		r.chunk(location, content[6000:], 6000, http.StatusRequestedRangeNotSatisfiable)
		a := r.ask("GET", location, nil, nil, http.StatusNoContent) // and the upload goes on
		r.is(a, "Range", "0-2999")
		location = r.located(r.chunk(r.located(a), content[3000:], 3000, http.StatusAccepted))
		a = r.ask("PUT", with(location, lying.Digest(content).String()), nil, nil, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-5: the first piece is not the first", func(r *remote) {
		r.chunk(r.begin(), r.bytesOf(3000), 3000, http.StatusRequestedRangeNotSatisfiable)
	}},
	{"end-5: a piece twice", func(r *remote) {
		content := r.bytesOf(3000)
		location := r.located(r.chunk(r.begin(), content, 0, http.StatusAccepted))
		r.chunk(location, content, 0, http.StatusRequestedRangeNotSatisfiable)
	}},
	{"end-5: another digest than that of the pieces", func(r *remote) {
		location := r.located(r.chunk(r.begin(), r.bytesOf(3000), 0, http.StatusAccepted))
		r.says(r.ask("PUT", with(location, nowhere), nil, nil, http.StatusBadRequest), "DIGEST_INVALID")
	}},
	{"end-5: an upload that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.chunk(r.base+r.in("blobs/uploads/0b0fa2a9-7dd0-4ecf-8e1b-000000000000"), []byte("x"), 0, http.StatusNotFound), "BLOB_UPLOAD_UNKNOWN")
	}},
	{"end-13: how far an upload is", func(r *remote) {
		location := r.located(r.chunk(r.begin(), r.bytesOf(3000), 0, http.StatusAccepted))
		a := r.ask("GET", location, nil, nil, http.StatusNoContent)
		r.is(a, "Range", "0-2999")
		r.located(a)
	}},
	{"end-13: an upload that is not there", func(r *remote) {
		r.image(r.seeded(""), "v1")
		r.says(r.get("blobs/uploads/0b0fa2a9-7dd0-4ecf-8e1b-000000000000", http.StatusNotFound), "BLOB_UPLOAD_UNKNOWN")
	}},
	{"end-14: an upload is given up", func(r *remote) {
		location := r.located(r.chunk(r.begin(), r.bytesOf(3000), 0, http.StatusAccepted))
		r.ask("DELETE", location, nil, nil, http.StatusNoContent)
		r.says(r.ask("GET", location, nil, nil, http.StatusNotFound), "BLOB_UPLOAD_UNKNOWN")
	}},
	{"end-11: a blob is mounted from another repository", func(r *remote) {
		content := r.bytesOf(4000)
		other := r.sibling("-other")
		digest := other.blob(content)
		other.publish(content)
		if other.err != nil {
			r.failf("%w", other.err)
		}
		a := r.ask("POST", r.in("blobs/uploads/?mount="+digest+"&from="+other.repository), nil, nil, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-11: an upload begins where nothing can be mounted", func(r *remote) {
		content := r.bytesOf(4000)
		digest := lying.Digest(content).String()
		a := r.ask("POST", r.in("blobs/uploads/?mount="+digest+"&from="+r.repository+"-none"), nil, nil, http.StatusAccepted)
		a = r.ask("PUT", with(r.located(a), digest), binary(), content, http.StatusCreated)
		r.isStored(a, content)
	}},
	{"end-11: a mount that does not say from where", func(r *remote) {
		content := r.bytesOf(4000)
		digest := lying.Digest(content).String()
		a := r.ask("POST", r.in("blobs/uploads/?mount="+digest), nil, nil, http.StatusAccepted)
		a = r.ask("PUT", with(r.located(a), digest), binary(), content, http.StatusCreated)
		r.isStored(a, content)
	}},
}

var manifestRequirements = []requirement{
	{"end-7: a manifest by tag", func(r *remote) {
		image := r.seeded("")
		r.image(image)
		a := r.put("v1", image, http.StatusCreated)
		r.is(a, "Docker-Content-Digest", image.Digest().String())
		r.isManifest(r.ask("GET", r.located(a), accepting, nil, http.StatusOK), image)
		r.isManifest(r.get("manifests/v1", http.StatusOK), image)
	}},
	{"end-7: a manifest by digest", func(r *remote) {
		image := r.seeded("")
		for _, blob := range image.Blobs {
			r.blob(blob)
		}
		a := r.put(image.Digest().String(), image, http.StatusCreated)
		r.isManifest(r.ask("GET", r.located(a), accepting, nil, http.StatusOK), image)
	}},
	{"end-7: a tag moves", func(r *remote) {
		one, two := r.seeded("one"), r.seeded("two")
		r.image(one, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), one)
		r.image(two, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), two)
		r.isManifest(r.get("manifests/"+one.Digest().String(), http.StatusOK), one)
	}},
	{"end-7: another digest than that of the manifest", func(r *remote) {
		image := r.seeded("")
		r.image(image)
		r.says(r.put(nowhere, image, http.StatusBadRequest), "DIGEST_INVALID")
		r.get("manifests/"+nowhere, http.StatusNotFound)
	}},
	{"end-7: a manifest whose blobs are not there", func(r *remote) {
		a := r.put("v1", r.seeded(""), http.StatusCreated, http.StatusNotFound, http.StatusBadRequest) // a registry may take it
		if a.status != http.StatusCreated {
			r.says(a, "MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "MANIFEST_INVALID")
			r.get("manifests/v1", http.StatusNotFound)
		}
	}},
	{"end-7: what is no manifest", func(r *remote) {
		broken := lying.RawManifest("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion": 2, `))
		r.says(r.put("v1", broken, http.StatusBadRequest), "MANIFEST_INVALID")
	}},
	{"end-7: what is no tag", func(r *remote) {
		image := r.seeded("")
		r.image(image)
		r.says(r.put(".not-a-tag", image, http.StatusBadRequest, http.StatusNotFound))
	}},
	{"end-7: a manifest of 4 MiB", func(r *remote) { r.sized(4 << 20) }},
	{"end-7: an image without layers", func(r *remote) {
		image := lying.ImageManifest{Config: lying.Layer{MediaType: "application/vnd.oci.image.config.v1+json", Data: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)}}.Build()
		r.image(image, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), image)
	}},
	{"end-7: an index in an index", func(r *remote) {
		inner := lying.Index(r.seeded("one"))
		outer := lying.Index(inner, r.seeded("two"))
		r.image(outer, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), outer)
		r.isManifest(r.get("manifests/"+inner.Digest().String(), http.StatusOK), inner)
	}},
	{"end-7: a manifest of schema 1", func(r *remote) {
		old := lying.RawManifest("application/vnd.docker.distribution.manifest.v1+json", []byte(`{"schemaVersion":1,"name":"x","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}`))
		r.put("v1", old, http.StatusCreated)
	}},
	{"end-7: a subject, and OCI-Subject", func(r *remote) {
		image := r.seeded("")
		r.image(image, "v1")
		artifact := r.refersTo(image.Descriptor(), "application/vnd.one", 1)
		for _, blob := range artifact.Blobs {
			r.blob(blob)
		}
		r.is(r.put(artifact.Digest().String(), artifact, http.StatusCreated), "OCI-Subject", image.Digest().String())
	}},
	{"end-7: an index with a subject", func(r *remote) {
		image := r.seeded("")
		r.image(image, "v1")
		subject := image.Descriptor()
		body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
			"artifactType": "application/vnd.index", "manifests": []v1.Descriptor{}, "subject": subject})
		if err != nil {
			r.failf("%w", err)
		}
		index := lying.RawManifest("application/vnd.oci.image.index.v1+json", body)
		r.is(r.put(index.Digest().String(), index, http.StatusCreated), "OCI-Subject", image.Digest().String())
		r.isReferrers(r.get("referrers/"+image.Digest().String(), http.StatusOK), "application/vnd.index")
	}},
	{"end-7: a subject that is not there, and a tag", func(r *remote) {
		artifact := r.refersTo(r.seeded("never pushed").Descriptor(), "application/vnd.one", 1)
		r.image(artifact, "v1")
		r.isManifest(r.get("manifests/v1", http.StatusOK), artifact)
	}},
}

// sized pushes a manifest of so many bytes.
func (r *remote) sized(size int) {
	image := func(padding int) lying.Content {
		return lying.ImageManifest{
			Config:      lying.Layer{MediaType: "application/vnd.oci.image.config.v1+json", Data: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)},
			Annotations: map[string]string{"padding": strings.Repeat("x", padding)},
		}.Build()
	}
	content := image(size - len(image(0).Body))
	if len(content.Body) != size {
		r.failf("the manifest has %d bytes", len(content.Body))
	}
	r.image(content, "v1")
	r.isManifest(r.get("manifests/v1", http.StatusOK), content)
}

// decode reads the JSON of an answer.
func (r *remote) decode(a reply, into any) {
	if r.err != nil {
		return
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		r.failf("%q: %w", a.body, err)
	}
}

// isReferrers wants an index of referrers with these types, in any order.
func (r *remote) isReferrers(a reply, artifactTypes ...string) {
	r.is(a, "Content-Type", "application/vnd.oci.image.index.v1+json")
	var body struct {
		SchemaVersion int
		MediaType     string
		Manifests     []struct {
			MediaType, Digest, ArtifactType string
			Size                            int64
		}
	}
	r.decode(a, &body)
	if r.err != nil {
		return
	}
	if body.SchemaVersion != 2 || body.MediaType != "application/vnd.oci.image.index.v1+json" || body.Manifests == nil {
		r.failf("no index: %s", a.body)
	}
	var got []string
	for _, desc := range body.Manifests {
		got = append(got, desc.ArtifactType)
		at := r.get("manifests/"+desc.Digest, http.StatusOK)
		r.is(at, "Content-Type", desc.MediaType)
		if r.err == nil && int64(len(at.body)) != desc.Size {
			r.failf("a referrer has %d bytes, and is said to have %d", len(at.body), desc.Size)
		}
	}
	slices.Sort(got)
	if r.err == nil && !slices.Equal(got, artifactTypes) {
		r.failf("referrers of types %v, want %v", got, artifactTypes)
	}
}
