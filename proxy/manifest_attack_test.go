package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

const web = "ghcr.io/acme/web"

// untyped sends no Content-Type at all.
func untyped(a *lying.Answer) { a.Header["Content-Type"] = nil }

func TestManifestsOfALyingUpstream(t *testing.T) {
	image, evil := lying.Image("web"), lying.Image("evil")
	by := map[string]string{"tag": "v1", "digest": image.Digest().String()}
	tests := []struct {
		name   string
		faults []lying.Fault
		status map[string]int // by tag and by digest
		reason string
	}{
		{"B2 other bytes", []lying.Fault{lying.Body(evil.Body)}, map[string]int{"tag": 403, "digest": 502}, ""},
		{"B2 one bit", []lying.Fault{lying.FlipByte(20)}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B4 truncated", []lying.Fault{lying.Truncate(100)}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B4 longer", []lying.Fault{lying.Longer([]byte("{}"))}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B4 longer by white space", []lying.Fault{lying.Longer([]byte("\n"))}, map[string]int{"tag": 403, "digest": 502}, ""},
		{"B4 without a length", []lying.Fault{lying.Chunked()}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B4 a shorter length", []lying.Fault{lying.Length(100)}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B5 endless", []lying.Fault{lying.Endless()}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B6 another digest header", []lying.Fault{lying.DigestHeader(evil.Digest().String())}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B6 a malformed digest header", []lying.Fault{lying.DigestHeader("sha256:../../x")}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B6 sha512 in the digest header", []lying.Fault{lying.DigestHeader("sha512:" + strings.Repeat("ab", 64))}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B6 two digest headers", []lying.Fault{lying.DigestHeader(image.Digest().String(), evil.Digest().String())}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B7 schema 1 with a forged digest", []lying.Fault{
			lying.ContentType("application/vnd.docker.distribution.manifest.v1+prettyjws"), lying.Body(evil.Body), lying.DigestHeader(image.Digest().String()),
		}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B8 called an index", []lying.Fault{lying.ContentType(string(types.OCIImageIndex))}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B8 called docker's", []lying.Fault{lying.ContentType(string(types.DockerManifestSchema2))}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B8 called by another case and with a parameter", []lying.Fault{
			lying.ContentType("Application/vnd.OCI.image.manifest.v1+json; charset=utf-8"),
		}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B8 called nothing", []lying.Fault{untyped}, map[string]int{"tag": 200, "digest": 200}, ""},
		{"B17 compressed", []lying.Fault{lying.Gzip()}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"B17 called compressed", []lying.Fault{lying.ContentEncoding("br")}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"C11 a header that is too large", []lying.Fault{lying.Header("X-Large", strings.Repeat("x", 100<<10))}, map[string]int{"tag": 502, "digest": 502}, ""},
		{"C11 no HTTP", []lying.Fault{lying.Raw("SSH-2.0-OpenSSH\r\n\r\n")}, map[string]int{"tag": 502, "digest": 502}, ""},
	}
	for _, test := range tests {
		for way, reference := range by {
			t.Run(test.name+" by "+way, func(t *testing.T) {
				w := newWorld(t)
				w.up.PushSigned("acme/web", image, w.key, "v1")
				w.up.Lie(lying.Manifest("acme/web", reference), test.faults...)
				path := manifestPath(web, reference)
				switch a := w.get(path); test.status[way] {
				case 200:
					served(t, a, image)
				case 403:
					refused(t, a, 403, "DENIED", "unsigned")
				default:
					refused(t, a, 502, "UNAVAILABLE", "upstream-mismatch")
				}
				w.up.BeHonest()
				w.clock.pass(time.Minute)
				served(t, w.get(path), image)
			})
		}
	}
}

func TestB1ATagThatMovesBetweenHeadAndGet(t *testing.T) {
	w := newWorld(t)
	image, evil := lying.Image("web"), lying.Image("evil")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.Push("acme/web", evil)
	w.up.Lie(lying.Manifest("acme/web", "v1").From(2), lying.Content200(evil), lying.DigestHeader(image.Digest().String()))
	path := manifestPath(web, "v1")
	if a := w.head(path); a.status != 200 || a.header.Get("Docker-Content-Digest") != image.Digest().String() {
		t.Fatalf("HEAD: %d %v", a.status, a.header)
	}
	served(t, w.get(path), image)
	w.clock.pass(time.Minute)
	refused(t, w.get(path, "If-None-Match", `"`+image.Digest().String()+`"`), 403, "DENIED", "unsigned")
	refused(t, w.get(path), 403, "DENIED", "unsigned")
}

// What two clients could take for two different things is served to none,
// though it is signed.
func TestB8B10AmbiguousManifests(t *testing.T) {
	image := lying.Image("web")
	plain := string(image.Body)
	index := string(lying.Index(image).Body)
	config, _ := json.Marshal(lying.Layer{MediaType: types.OCIConfigJSON, Data: image.Blobs[0]}.Descriptor())
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("%s is not in %s", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	tests := map[string]string{
		"B8 manifests and layers":               replace(plain, `"schemaVersion"`, `"manifests":[],"schemaVersion"`),
		"B8 manifests and config":               replace(index, `"schemaVersion"`, `"config":`+string(config)+`,"schemaVersion"`),
		"B8 an index that calls itself image":   replace(index, string(types.OCIImageIndex), string(types.OCIManifestSchema1)),
		"B8 an image that calls itself index":   replace(plain, string(types.OCIManifestSchema1), string(types.OCIImageIndex)),
		"B8 an unknown media type":              replace(plain, string(types.OCIManifestSchema1), "application/vnd.oci.image.manifest.v9+json"),
		"B8 an empty media type":                replace(plain, string(types.OCIManifestSchema1), ""),
		"B8 a media type in another case":       replace(plain, string(types.OCIManifestSchema1), "Application/vnd.oci.image.manifest.v1+json"),
		"B8 schema 1":                           replace(plain, `"schemaVersion":2`, `"schemaVersion":1`),
		"B8 fsLayers of schema 1":               replace(plain, `"schemaVersion"`, `"fsLayers":[],"schemaVersion"`),
		"B8 no schema version":                  replace(plain, `"schemaVersion":2`, `"schema":2`),
		"B10 a duplicate key":                   replace(plain, `"schemaVersion":2`, `"schemaVersion":2,"layers":[]`),
		"B10 a key twice in different cases":    replace(plain, `"schemaVersion":2`, `"schemaVersion":2,"Layers":[]`),
		"B10 layers in another case":            replace(plain, `"layers"`, `"Layers"`),
		"B10 config in another case":            replace(plain, `"config"`, `"CONFIG"`),
		"B10 layers with a long s":              replace(plain, `"layers"`, `"layer\u017f"`),
		"B10 a digest in another case":          replace(plain, `"digest"`, `"Digest"`),
		"B10 a descriptor's type in capitals":   replace(plain, `"config":{"mediaType"`, `"config":{"MediaType"`),
		"B10 a layer's type in capitals":        replace(plain, `"layers":[{"mediaType"`, `"layers":[{"mediatype"`),
		"B10 a child's type in capitals":        replace(index, `"manifests":[{"mediaType"`, `"manifests":[{"mediatype"`),
		"B10 a child's platform in capitals":    replace(index, `"platform"`, `"Platform"`),
		"B10 trailing data":                     plain + `{}`,
		"B10 a byte order mark":                 "\ufeff" + plain,
		"B10 invalid UTF-8":                     replace(plain, `"schemaVersion"`, "\"x\":\"\xff\",\"schemaVersion\""),
		"B10 no number":                         replace(plain, `"schemaVersion":2`, `"schemaVersion":NaN`),
		"B10 deep nesting":                      replace(plain, `"schemaVersion"`, `"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`,"schemaVersion"`),
		"B10 UTF-16":                            string(bytes.Join(bytes.Split([]byte(plain), nil), []byte{0})),
		"B13 a digest with two sizes":           replace(plain, `"layers":[`, `"layers":[`+replace(string(config), `"size":`, `"size":1`)+`,`),
		"B13 a negative size":                   replace(plain, `"size":`, `"size":-`),
		"B13 no digest":                         replace(plain, `"digest"`, `"digests"`),
		"B13 a null layer":                      replace(plain, `"layers":[`, `"layers":[null,`),
		"B19 a short digest":                    replace(plain, `"digest":"sha256:`, `"digest":"sha256:ab","x":"`),
		"B19 a digest that climbs":              replace(plain, `"digest":"sha256:`, `"digest":"sha256:../../`),
		"B19 an unknown algorithm":              replace(plain, `"digest":"sha256:`, `"digest":"sha1:`),
		"B19 a digest in capitals":              replace(plain, `"digest":"sha256:`, `"digest":"SHA256:`),
		"not an object":                         `[]`,
		"null":                                  `null`,
		"nothing":                               ``,
		"an image without config":               replace(plain, `"config"`, `"configuration"`),
		"a subject without digest":              replace(plain, `"schemaVersion"`, `"subject":{},"schemaVersion"`),
		"a subject that is no object":           replace(plain, `"schemaVersion"`, `"subject":7,"schemaVersion"`),
		"an artifact manifest of OCI's old one": replace(plain, string(types.OCIManifestSchema1), "application/vnd.oci.artifact.manifest.v1+json"),
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			content := lying.RawManifest(string(types.OCIManifestSchema1), []byte(body), image.Blobs...)
			w.up.PushSigned("acme/web", content, w.key, "v1")
			w.up.Push("acme/web", image)
			w.up.Lie(lying.Manifest("acme/web", ""), untyped)
			for _, reference := range []string{"v1", content.Digest().String()} {
				refused(t, w.get(manifestPath(web, reference)), 502, "UNAVAILABLE", "upstream-mismatch")
			}
		})
	}
}

func TestB9OneDigestUnderTwoNames(t *testing.T) {
	w := newWorld(t)
	bare := lying.ImageManifest{OmitType: true, Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}}.Build()
	w.up.PushSigned("acme/web", bare, w.key, "v1")
	lie := w.up.Lie(lying.Manifest("acme/web", ""), lying.ContentType(string(types.OCIImageIndex)))
	path := manifestPath(web, bare.Digest().String())
	refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
	lie.Stop()
	served(t, w.get(path), bare)
	w.up.Lie(lying.Any(), lying.Status(500))
	served(t, w.get(path), bare) // what is known of the bytes is not told anew
}

func TestB5EvidenceIsBounded(t *testing.T) {
	image := lying.Image("web")
	huge := lying.Signature(lying.P256(), bytes.Repeat([]byte("x"), 2<<20))
	for name, lie := range map[string]func(w *world, payload lying.Content){
		"an endless signature manifest": func(w *world, _ lying.Content) {
			w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), lying.Endless())
		},
		"an endless payload": func(w *world, signatures lying.Content) {
			w.up.Lie(lying.Blob("acme/web", lying.Digest(signatures.Blobs[1])), lying.Endless())
		},
		"another payload": func(w *world, signatures lying.Content) {
			w.up.Lie(lying.Blob("acme/web", lying.Digest(signatures.Blobs[1])), lying.FlipByte(3))
		},
	} {
		t.Run(name+" is no decision", func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			signatures := w.up.SignAs("acme/web", image.Digest(), "", map[string]any{"env": "prod"}, w.key)
			lie(w, signatures)
			refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
			w.up.BeHonest()
			served(t, w.get(manifestPath(web, "v1")), image)
		})
	}
	t.Run("a payload that says it is huge is not fetched", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", image, "v1")
		w.up.Push("acme/web", lying.Signatures(huge), tag(image.Digest()))
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "payload-invalid")
		if got := w.up.Log(lying.Blob("acme/web", lying.Digest(huge.Data))); len(got) != 0 {
			t.Errorf("fetched: %v", got)
		}
	})
}

func TestB18ForeignLayersAreNotFetched(t *testing.T) {
	w := newWorld(t)
	elsewhere := lying.Start(t)
	foreign := lying.Layer{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Data: []byte("foreign"),
		URLs: []string{elsewhere.URL + "/layer"},
	}
	image := lying.ImageWith("web", foreign)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.Delete("acme/web", lying.Digest(foreign.Data))
	served(t, w.get(manifestPath(web, "v1")), image)
	refused(t, w.get(blobPath(web, lying.Digest(foreign.Data))), http.StatusNotFound, "BLOB_UNKNOWN", "")
	asked(t, elsewhere)
}

func TestManifestsAreServedAsTheyAre(t *testing.T) {
	list := lying.DockerList(lying.DockerImage("a"), lying.DockerImage("b"))
	bare := lying.ImageManifest{OmitType: true, Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}}.Build()
	for name, content := range map[string]lying.Content{
		"an OCI image": lying.Image("a"), "docker's schema 2": lying.DockerImage("a"), "an OCI index": lying.Index(lying.Image("a"), lying.Image("b")),
		"docker's list": list, "an image that does not name its type": bare,
		"an artifact":             lying.ImageManifest{ArtifactType: "application/x-chart", Config: lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")}}.Build(),
		"B22 a Helm chart's type": lying.ImageManifest{Config: lying.Layer{MediaType: "application/vnd.cncf.helm.config.v1+json", Data: []byte("{}")}}.Build(),
		"white space around it":   lying.RawManifest(string(types.OCIManifestSchema1), fmt.Appendf(nil, "  %s\n\n", lying.Image("a").Body), lying.Image("a").Blobs...),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", content, w.key, "v1")
			for _, accept := range []string{"", "*/*", "application/json", string(types.DockerManifestSchema2)} {
				a := w.get(manifestPath(web, "v1"), "Accept", accept)
				served(t, a, content)
				head := w.head(manifestPath(web, content.Digest().String()), "Accept", accept)
				if head.status != a.status || len(head.body) != 0 || head.header.Get("Content-Length") != fmt.Sprint(len(content.Body)) {
					t.Errorf("HEAD: %d %v", head.status, head.header)
				}
				for _, changing := range []string{"Date", "X-Request-Id"} {
					head.header.Del(changing)
					a.header.Del(changing)
				}
				if fmt.Sprint(head.header) != fmt.Sprint(a.header) {
					t.Errorf("headers of HEAD and GET differ:\n%v\n%v", head.header, a.header)
				}
			}
		})
	}
}
