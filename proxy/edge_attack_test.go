package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// TestAReferrerThatLiesAboutALayer is of a signed image, whose layer it gives another
// size. Whoever may push next to an image can have one, and whoever may pull has it
// looked for from then on.
func TestAReferrerThatLiesAboutALayer(t *testing.T) {
	for _, size := range []int{-1, 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			layer := noiseBytes(21, 200<<10)
			image := imageOf(layer)
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			config := []byte("{}")
			referrer := lying.Content{MediaType: string(types.OCIManifestSchema1), Blobs: [][]byte{config}, Body: lying.Encode(fields{
				"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": "application/x-report",
				"config":  fields{"mediaType": "application/vnd.oci.empty.v1+json", "size": len(config), "digest": lying.Digest(config).String()},
				"layers":  []fields{{"mediaType": "application/x-report", "size": len(layer) + size, "digest": lying.Digest(layer).String()}},
				"subject": fields{"mediaType": image.MediaType, "size": len(image.Body), "digest": image.Digest().String()},
			})}
			w.up.Push("acme/web", referrer)
			served(t, w.get(manifestPath(web, "v1")), image)
			served(t, w.get(byDigest(web, referrer)), referrer)
			path := blobPath(web, lying.Digest(layer))
			if a := w.head(path); a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(len(layer)) {
				t.Errorf("HEAD: %d %v", a.status, a.header)
			}
			servedBlob(t, w.get(path), layer)
			servedBlob(t, w.get(path), layer)
		})
	}
}
