package proxy_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// polyglot is a simple-signing payload about digest that is also a tar archive
// with one file: the header of a V7 archive is printable text, and lies in the
// payload's first annotation.
func polyglot(t *testing.T, digest v1.Hash, file string) []byte {
	t.Helper()
	const prefix = `{"optional":{"a":"/../`
	header := []byte(strings.Repeat(" ", 512))
	name := prefix + strings.Repeat("./", (100-len(prefix)-2)/2) + "f"
	copy(header, name+strings.Repeat("f", 100-len(name)))
	copy(header[100:], "0000644 ")                       // mode
	copy(header[108:], "0000000 ")                       // owner
	copy(header[116:], "0000000 ")                       // group
	copy(header[124:], fmt.Sprintf("%011o ", len(file))) // size
	copy(header[136:], "00000000000 ")                   // time
	header[156] = '0'                                    // a regular file
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o  ", sum))
	body := file + strings.Repeat(" ", (512-len(file)%512)%512)
	payload := string(header) + body + fmt.Sprintf(`"},"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, digest)

	archive := tar.NewReader(strings.NewReader(payload))
	if _, err := archive.Next(); err != nil {
		t.Fatalf("no archive: %v", err)
	}
	if got, err := io.ReadAll(archive); err != nil || string(got) != file {
		t.Fatalf("the archive holds %q, %v", got, err)
	}
	return []byte(payload)
}

// A payload that is an archive as well would be unpacked by clients that look at
// no media type, podman for one: what rides on a signed image's name must never
// be an image.
func TestA15AnImageWhoseLayersArePayloadsToo(t *testing.T) {
	image := lying.Image("web")
	runnable := `{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/sh","-c","evil"]},"rootfs":{"type":"layers","diff_ids":[]}}`
	plain := `{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`
	for _, c := range []struct {
		name    string
		config  string
		payload func(t *testing.T) []byte
		subject bool
	}{
		{"an archive with a subject", runnable, func(t *testing.T) []byte { return polyglot(t, image.Digest(), "evil") }, true},
		{"an archive without a subject", runnable, func(t *testing.T) []byte { return polyglot(t, image.Digest(), "evil") }, false},
		{"an archive with a plain config", plain, func(t *testing.T) []byte { return polyglot(t, image.Digest(), "evil") }, true},
		{"a true payload with a config that runs something", runnable, func(t *testing.T) []byte { return lying.Payload("", image.Digest(), nil) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			evil := lying.ImageManifest{
				Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte(c.config)},
				Layers: []lying.Layer{lying.Signature(w.foreign, c.payload(t))},
			}
			if c.subject {
				evil.Subject = new(image.Descriptor())
			}
			content := evil.Build()
			at := strings.TrimSuffix(tag(image.Digest()), ".sig")
			w.up.Push("acme/web", content, "v2", at+".cosign", at+".att")
			for _, reference := range []string{"v2", at + ".cosign", at + ".att", content.Digest().String()} {
				refused(t, w.get(manifestPath(web, reference)), 403, "DENIED", "unsigned")
			}
			for _, blob := range content.Blobs {
				refused(t, w.get(blobPath(web, lying.Digest(blob))), 404, "BLOB_UNKNOWN", "")
			}
		})
	}
}

// Under a tag of its own even true evidence is asked for as an image.
func TestEvidenceUnderAnOrdinaryTag(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	for name, content := range map[string]lying.Content{
		"a signature with a subject": lying.ImageManifest{
			Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte("{}")}, Subject: new(image.Descriptor()),
			Layers: []lying.Layer{lying.Signature(w.key, lying.Payload("", image.Digest(), nil))},
		}.Build(),
		"a bundle": bundle(image.Descriptor(), image.Digest()),
	} {
		t.Run(name, func(t *testing.T) {
			w.up.Push("acme/web", content, "v2")
			refused(t, w.get(manifestPath(web, "v2")), 403, "DENIED", "unsigned")
			served(t, w.get(manifestPath(web, content.Digest().String())), content)
		})
	}
}

func TestThePolyglotIsWhatItsTestSays(t *testing.T) {
	if !bytes.HasPrefix(polyglot(t, lying.Image("web").Digest(), "x"), []byte(`{"optional"`)) {
		t.Error("no payload")
	}
}

// The record names what was served, and what it is about beside it.
func TestTheRecordOfEvidenceNamesTheEvidence(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	a := w.get(manifestPath(web, tag(image.Digest())))
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	records := w.records.list()
	last := records[len(records)-1]
	if last.Digest != lying.Digest(a.body).String() || last.Subject != image.Digest().String() || last.Reference != tag(image.Digest()) || last.Decision != "allowed" {
		t.Errorf("served %s, on record: %+v", lying.Digest(a.body), last)
	}
	if got := a.header.Get("X-Request-Id"); got != last.ID {
		t.Errorf("the answer's id is %s, the record's %s", got, last.ID)
	}
	for _, r := range records[:len(records)-1] {
		if r.Digest != image.Digest().String() || r.Subject != "" {
			t.Errorf("beside it: %+v", r)
		}
	}
}
