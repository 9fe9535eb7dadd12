package proxy_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// inlined is an image for linux/amd64 of one file, all of it inside one
// descriptor: manifest, config and layer are its data.
func inlined(t *testing.T, file string) v1.Descriptor {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "bin/evil", Mode: 0o755, Size: int64(len(file))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/bin/evil"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, lying.Digest(layer.Bytes()))
	desc := func(mediaType types.MediaType, data []byte) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: lying.Digest(data), Size: int64(len(data)), Data: data}
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": desc(types.OCIConfigJSON, []byte(config)),
		"layers": []v1.Descriptor{desc(types.OCIUncompressedLayer, layer.Bytes())},
	})
	if err != nil {
		t.Fatal(err)
	}
	return desc(types.OCIManifestSchema1, body)
}

// craneExport returns what crane export would write: the files of an image,
// empty when it could not be pulled.
func craneExport(t *testing.T, w *world, reference string) string {
	t.Helper()
	sep := ":"
	if strings.Contains(reference, ":") {
		sep = "@"
	}
	ref, err := name.ParseReference(strings.TrimPrefix(w.server.URL, "http://")+"/"+web+sep+reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Log(err)
		return ""
	}
	out, err := io.ReadAll(mutate.Extract(image))
	if err != nil {
		t.Log(err)
		return ""
	}
	return string(out)
}

// A list of referrers may carry an image in a descriptor's data: crane and
// containerd take it from there and ask for no child that a gate could refuse.
func TestA15AnImageInsideTheDataOfAListing(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	at := lying.FallbackTag(image.Digest())
	elsewhere := lying.Image("evil").Descriptor()
	elsewhere.URLs = []string{"https://attacker.example/manifest"}
	abroad := lying.IndexOf(elsewhere)
	w.up.Push("acme/web", abroad, at)
	refused(t, w.get(manifestPath(web, at)), 403, "DENIED", "unsigned")
	w.clock.pass(time.Minute)
	listing := lying.IndexOf(inlined(t, "unsigned"))
	w.up.Push("acme/web", listing, at)
	for _, reference := range []string{at, listing.Digest().String()} {
		if got := craneExport(t, w, reference); strings.Contains(got, "unsigned") {
			t.Errorf("crane export of %s extracted an unsigned image", reference)
		}
		refused(t, w.get(manifestPath(web, reference)), 403, "DENIED", "unsigned")
	}
}

// A referrer's own parts may come along in their descriptors when they are what
// the digest says, as clients write the empty config; from elsewhere they may not.
func TestA15WhatComesAlongInAReferrer(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	sbomLayer := lying.Layer{MediaType: "application/spdx+json", Data: []byte(`{"spdxVersion":"SPDX-2.3"}`)}
	build := func(change func(config, layer map[string]any)) lying.Content {
		config := map[string]any{"mediaType": lying.EmptyConfig, "digest": lying.Digest([]byte("{}")).String(), "size": 2}
		layer := map[string]any{"mediaType": sbomLayer.MediaType, "digest": lying.Digest(sbomLayer.Data).String(), "size": len(sbomLayer.Data)}
		change(config, layer)
		return lying.ImageManifest{
			Config: lying.Layer{MediaType: lying.EmptyConfig, Data: []byte("{}")}, Layers: []lying.Layer{sbomLayer},
			Subject: new(image.Descriptor()), Extra: map[string]any{"config": config, "layers": []any{layer}},
		}.Build()
	}
	good := build(func(config, _ map[string]any) { config["data"] = []byte("{}") })
	w.up.Push("acme/web", good)
	served(t, w.get(byDigest(web, good)), good)
	for name, change := range map[string]func(config, layer map[string]any){
		"a config with other data": func(config, _ map[string]any) { config["data"] = []byte("[]") },
		"a layer with other data":  func(_, layer map[string]any) { layer["data"] = []byte("x") },
		"a layer from elsewhere":   func(_, layer map[string]any) { layer["urls"] = []string{"https://attacker.example/layer"} },
	} {
		t.Run(name, func(t *testing.T) {
			content := build(change)
			w.up.Push("acme/web", content)
			refused(t, w.get(byDigest(web, content)), 403, "DENIED", "unsigned")
		})
	}
}
