package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// The repositories of the upstream that is pulled from over many crashes.
const (
	signedImages   = "acme/web"      // each under a tag of its own, one of them under movingTag
	signedIndex    = "acme/multi"    // whose children have no signatures
	unsignedImages = "acme/unsigned" // of which nothing may ever be seen
	movingTag      = "moving"
)

// layerSizes are those of the images' layers. Those around 64 KiB and 256 KiB
// are kept, checked or sent in another way on either side of the bound.
var layerSizes = []int{0, 1 << 10, 64 << 10, 64<<10 + 1, 256 << 10, 256<<10 + 1, 700 << 10, 1 << 20, 3<<20 + 7}

// crashContent is what the upstream has, and what may be seen of it.
type crashContent struct {
	images   []lying.Content
	index    lying.Content
	unsigned lying.Content
	secret   [][]byte // the blobs of unsigned that no other image has

	manifests map[v1.Hash]lying.Content // all that may be seen, by digest

	mu     sync.Mutex
	moving map[v1.Hash]bool // what movingTag has named
}

func newCrashContent() *crashContent {
	c := &crashContent{
		manifests: map[v1.Hash]lying.Content{},
		moving:    map[v1.Hash]bool{},
	}
	noise := rand.NewChaCha8([32]byte{})
	layer := func(size int) lying.Layer {
		data := make([]byte, size)
		noise.Read(data) // never fails
		return lying.Layer{MediaType: types.OCIUncompressedLayer, Data: data}
	}
	common := layer(300 << 10)
	image := func(seed string, i int) lying.Content {
		a, b := layerSizes[i%len(layerSizes)], layerSizes[(i+3)%len(layerSizes)]
		return lying.ImageWith(seed, layer(a), layer(b), common)
	}
	for i := range layerSizes {
		c.images = append(c.images, image(imageTag(i), i))
	}
	c.index = lying.Index(image("child one", 2), image("child two", 5))
	c.unsigned = image("unsigned", 4)
	c.manifests[c.index.Digest()] = c.index
	shown := map[v1.Hash]bool{}
	for _, image := range slices.Concat(c.images, c.index.Children) {
		c.manifests[image.Digest()] = image
		for _, blob := range image.Blobs {
			shown[lying.Digest(blob)] = true
		}
	}
	for _, blob := range c.unsigned.Blobs {
		if !shown[lying.Digest(blob)] {
			c.secret = append(c.secret, blob)
		}
	}
	return c
}

// push puts everything where it is pulled from.
func (c *crashContent) push(up *lying.Registry, key lying.Key) {
	for i, image := range c.images {
		up.PushSigned(signedImages, image, key, imageTag(i))
	}
	up.PushSigned(signedIndex, c.index, key, "v1")
	up.Push(unsignedImages, c.unsigned, "v1")
	c.move(up, 0)
}

func imageTag(i int) string { return fmt.Sprint("v", i) }

// move makes movingTag name another image.
func (c *crashContent) move(up *lying.Registry, to int) {
	digest := c.images[to].Digest()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moving[digest] = true
	up.Tag(signedImages, movingTag, digest)
}

// named reports whether movingTag has named digest.
func (c *crashContent) named(digest v1.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moving[digest]
}

// pieceSize is how much the upstream sends at a time.
const pieceSize = 64 << 10

// startPaced serves up at several paces, so that at any moment transfers are under
// way, and tells of their beginnings and ends.
func startPaced(t *testing.T, up *lying.Registry, happened func(moment)) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pace := time.Duration(rand.IntN(4)) * time.Millisecond
		up.ServeHTTP(&pacedWriter{w, r.Context(), pace, happened}, r)
	}))
	t.Cleanup(func() {
		up.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// pacedWriter sends a body piece by piece.
type pacedWriter struct {
	http.ResponseWriter
	ctx      context.Context // of the request that is answered
	pace     time.Duration   // between two pieces
	happened func(moment)
}

func (w *pacedWriter) Write(p []byte) (written int, err error) {
	for piece := range slices.Chunk(p, pieceSize) {
		if written > 0 {
			select {
			case <-time.After(w.pace):
			case <-w.ctx.Done():
				return written, w.ctx.Err()
			}
		}
		n, err := w.ResponseWriter.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		if len(p) > pieceSize {
			if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
				return written, err
			}
			switch written {
			case len(piece):
				w.happened(arriving)
			case len(p):
				w.happened(arrived)
			}
		}
	}
	return written, nil
}
