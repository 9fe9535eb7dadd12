package e2e_test

import (
	"crypto/sha512"
	"encoding/hex"
	"net/http"
)

func sha512Of(content []byte) string {
	sum := sha512.Sum512(content)
	return "sha512:" + hex.EncodeToString(sum[:])
}

// remove deletes what a registry may delete or not. It reports whether it did.
func (r *remote) remove(path string) bool {
	a := r.ask("DELETE", r.in(path), nil, nil, http.StatusAccepted, http.StatusBadRequest, http.StatusMethodNotAllowed)
	if a.status != http.StatusAccepted {
		r.says(a, "UNSUPPORTED")
	}
	return r.err == nil && a.status == http.StatusAccepted
}

var managementRequirements = []requirement{
	{"end-9: a tag is deleted", func(r *remote) {
		image := r.seeded("")
		r.image(image, "v1", "v2")
		r.get("manifests/v1", http.StatusOK) // so that it is known
		if r.remove("manifests/v1") {
			r.says(r.get("manifests/v1", http.StatusNotFound), "MANIFEST_UNKNOWN")
			r.isTags(r.get("tags/list", http.StatusOK), "v2")
		}
		r.isManifest(r.get("manifests/v2", http.StatusOK), image)
	}},
	{"end-9: a manifest is deleted, and with it its tags", func(r *remote) {
		image, other := r.seeded(""), r.seeded("other")
		r.image(other, "kept")
		digest := r.image(image, "v1")
		r.get("manifests/v1", http.StatusOK)
		if r.remove("manifests/" + digest) {
			r.says(r.get("manifests/"+digest, http.StatusNotFound), "MANIFEST_UNKNOWN")
			r.head("manifests/"+digest, http.StatusNotFound)
			r.says(r.get("manifests/v1", http.StatusNotFound), "MANIFEST_UNKNOWN")
		}
		r.isManifest(r.get("manifests/kept", http.StatusOK), other)
	}},
	{"end-9: a manifest that is not there is deleted", func(r *remote) {
		r.image(r.seeded(""), "v1")
		a := r.ask("DELETE", r.in("manifests/"+nowhere), nil, nil, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed)
		r.says(a, "MANIFEST_UNKNOWN", "UNSUPPORTED")
	}},
	{"end-9: a tag that is not there is deleted", func(r *remote) {
		r.image(r.seeded(""), "v1")
		a := r.ask("DELETE", r.in("manifests/v2"), nil, nil, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed)
		r.says(a, "MANIFEST_UNKNOWN", "UNSUPPORTED")
	}},
	{"end-9: what was deleted is pushed again", func(r *remote) {
		image := r.seeded("")
		if r.image(image, "v1"); r.remove("manifests/" + image.Digest().String()) {
			r.get("manifests/v1", http.StatusNotFound)
			r.image(image, "v1")
		}
		r.isManifest(r.get("manifests/v1", http.StatusOK), image)
	}},
	{"end-10: a blob is deleted", func(r *remote) {
		content := r.bytesOf(100)
		digest := r.blob(content)
		if r.remove("blobs/" + digest) {
			r.says(r.get("blobs/"+digest, http.StatusNotFound), "BLOB_UNKNOWN")
			return
		}
		r.isBlob(content)
	}},
	{"end-10: a blob that is not there is deleted", func(r *remote) {
		r.image(r.seeded(""), "v1")
		a := r.ask("DELETE", r.in("blobs/"+nowhere), nil, nil, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed)
		r.says(a, "BLOB_UNKNOWN", "UNSUPPORTED")
	}},
}
