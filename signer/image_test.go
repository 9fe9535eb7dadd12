package signer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// TestWhatCosignWrites makes the signature image that cosign made from the same
// payload and signature, and wants cosign's bytes.
func TestWhatCosignWrites(t *testing.T) {
	want, wantConfig, payload := golden(t, "cosign-signatures.json"), golden(t, "cosign-config.json"), golden(t, "cosign-payload.json")
	theirs, err := v1.ParseManifest(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(theirs.Layers[0].Annotations[signatureAnnotation])
	if err != nil {
		t.Fatal(err)
	}

	j, err := new(Signer).signatureJob(Request{}, payload, signature)
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, err := newSignatureImage(false).with(j.layers...).encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(wantConfig), string(config)); diff != "" {
		t.Errorf("config: %s", diff)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(manifest)); diff != "" {
		t.Errorf("manifest: %s", diff)
	}

	key, err := ParsePrivateKey(golden(t, "cosign-p256.key"), []byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := parseSignatureImage(want)
	if err != nil {
		t.Fatal(err)
	}
	if !back.holds(key.Public(), payload, digestOf(payload)) {
		t.Error("cosign's signature by the same key is not recognised")
	}
	if back.holds(mustKey(t).Public(), payload, digestOf(payload)) {
		t.Error("cosign's signature is taken for another key's")
	}
}

// foreign is a signature image with everything that must survive: white space,
// unknown fields, unknown annotations, a layer of another type, odd escapes.
const foreign = `{
  "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
  "layers": [
    {"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json", "size":1, "digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "annotations":{"dev.cosignproject.cosign/signature":"<&>\u0041", "dev.sigstore.cosign/bundle":"{\"Payload\":1}", "x":"` + "\u2028" + `"}, "unknown": [1.0, 1e2]},
    {"mediaType":"application/x-other","size":3,"digest":"sha512:bb"}
  ],
  "annotations": {"org.example": "kept"}, "unknown": {"a": null}
}`

func TestOthersLayersAreKeptByteForByte(t *testing.T) {
	img, err := parseSignatureImage([]byte(foreign))
	if err != nil {
		t.Fatal(err)
	}
	layer := describe(envelope.MediaTypeSimpleSigning, []byte("payload"))
	manifest, config, err := img.with(mustLayer(t, layer)).encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{
		foreign[strings.Index(foreign, `{"mediaType":"application/vnd.dev.cosign`):strings.Index(foreign, `,
    {"mediaType":"application/x-other"`)],
		`{"mediaType":"application/x-other","size":3,"digest":"sha512:bb"}`,
		`"annotations":{"org.example": "kept"},"unknown":{"a": null}}`,
	} {
		if !bytes.Contains(manifest, []byte(kept)) {
			t.Errorf("%s\nis not in\n%s", kept, manifest)
		}
	}
	var got v1.ConfigFile
	if err := json.Unmarshal(bytes.ReplaceAll(config, []byte("sha512:bb"), []byte("sha256:"+strings.Repeat("b", 64))), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.RootFS.DiffIDs) != 3 || got.RootFS.DiffIDs[2] != layer.Digest {
		t.Errorf("diff IDs %v", got.RootFS.DiffIDs)
	}
	if len(img.layers) != 2 {
		t.Error("the image that was read has changed")
	}
}

func TestMediaTypesOfSignatureImages(t *testing.T) {
	withConfig := func(mediaType string) string {
		return `{"schemaVersion":2,"config":{"mediaType":"` + mediaType + `","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`
	}
	docker, err := parseSignatureImage([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` + withConfig("application/vnd.docker.container.image.v1+json")[len(`{"schemaVersion":2,`):]))
	if err != nil {
		t.Fatal(err)
	}
	other, err := parseSignatureImage([]byte(withConfig("application/vnd.oci.empty.v1+json")))
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		Media, ConfigType types.MediaType
		WritesConfig      bool
	}
	for name, tt := range map[string]struct {
		img  signatureImage
		want outcome
	}{
		"new":                          {newSignatureImage(false), outcome{types.OCIManifestSchema1, types.OCIConfigJSON, true}},
		"new, Docker's":                {newSignatureImage(true), outcome{types.DockerManifestSchema2, types.DockerConfigJSON, true}},
		"an existing one of Docker's":  {docker, outcome{types.DockerManifestSchema2, types.DockerConfigJSON, true}},
		"one whose config is no image": {other, outcome{types.OCIManifestSchema1, "application/vnd.oci.empty.v1+json", false}},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, config, err := tt.img.encode()
			if err != nil {
				t.Fatal(err)
			}
			m, err := v1.ParseManifest(bytes.NewReader(manifest))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, outcome{tt.img.media, m.Config.MediaType, config != nil}); diff != "" {
				t.Error(diff)
			}
			if config != nil && m.Config.Digest != digestOf(config) {
				t.Error("the manifest names another config")
			}
		})
	}
}

func TestWhatIsNoSignatureImageIsNotWrittenTo(t *testing.T) {
	const config = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`
	for name, data := range map[string]string{
		"empty":                    ``,
		"not JSON":                 `<html>`,
		"not an object":            `[]`,
		"an index":                 `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		"an index without a type":  `{"schemaVersion":2,"manifests":[]}`,
		"both":                     `{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`,
		"schema 1":                 `{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws",` + config + `,"layers":[]}`,
		"a media type of no image": `{"schemaVersion":2,"mediaType":"text/plain",` + config + `,"layers":[]}`,
		"a media type of no text":  `{"schemaVersion":2,"mediaType":1,` + config + `,"layers":[]}`,
		"no config":                `{"schemaVersion":2,"layers":[]}`,
		"no layers":                `{"schemaVersion":2,` + config + `}`,
		"layers are no list":       `{"schemaVersion":2,` + config + `,"layers":{}}`,
		"a layer is no descriptor": `{"schemaVersion":2,` + config + `,"layers":[1]}`,
		"a layer without a digest": `{"schemaVersion":2,` + config + `,"layers":[{}]}`,
		"duplicate layers":         `{"schemaVersion":2,` + config + `,"layers":[],"layers":[]}`,
		"layers in two cases":      `{"schemaVersion":2,` + config + `,"layers":[],"Layers":[]}`,
		"data after it":            `{"schemaVersion":2,` + config + `,"layers":[]}{}`,
		"too large":                `{"schemaVersion":2,` + config + `,"layers":[]` + strings.Repeat(" ", maxManifestSize) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseSignatureImage([]byte(data)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestASignatureImageDoesNotGrowBeyondAManifest(t *testing.T) {
	img := newSignatureImage(false)
	layer := describe(envelope.MediaTypeSimpleSigning, []byte("payload"))
	layer.Annotations = map[string]string{"filler": strings.Repeat("x", maxManifestSize/2)}
	for range 2 {
		img = img.with(mustLayer(t, layer))
	}
	if _, _, err := img.encode(); err == nil {
		t.Error("no error")
	}
}

// FuzzSignatureImage: no panic, and adding a layer to what is accepted keeps
// every layer before it as it was, byte for byte, and can be read again.
func FuzzSignatureImage(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add(golden(f, "cosign-signatures.json"))
	f.Add([]byte(`{"config":{},"layers":[{"digest":"x","annotations":{"a":1}}]}`))
	layer := describe(envelope.MediaTypeSimpleSigning, []byte("payload"))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := parseSignatureImage(data)
		if err != nil {
			return
		}
		manifest, _, err := img.with(mustLayer(t, layer)).encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseSignatureImage(manifest)
		if err != nil {
			t.Fatalf("%s: %v", manifest, err)
		}
		if len(again.layers) != len(img.layers)+1 || len(again.fields) != len(img.fields) {
			t.Fatalf("%d layers became %d, %d fields became %d", len(img.layers), len(again.layers), len(img.fields), len(again.fields))
		}
		for i := range img.layers {
			if !bytes.Equal(img.layers[i].raw, again.layers[i].raw) {
				t.Errorf("layer %d: %s became %s", i, img.layers[i].raw, again.layers[i].raw)
			}
		}
	})
}

func mustLayer(t *testing.T, desc v1.Descriptor) signatureLayer {
	t.Helper()
	layer, err := newLayer(desc)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}
