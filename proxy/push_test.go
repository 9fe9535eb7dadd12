package proxy_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"vidimus/e2e/lying"
)

// A denial that was being reached while the signature came is not kept, and answers
// nobody who asks after it.
func TestADenialUnderWayDoesNotOutlastASignature(t *testing.T) {
	w := newWorld(t, pushable)
	image := lying.Image("signed meanwhile")
	digest := w.up.Push("acme/web", image, "v1")
	evidence := lying.Signatures(lying.Signature(w.key, lying.Payload("ghcr.io/acme/web", digest, nil)))
	for _, blob := range evidence.Blobs {
		w.up.PutBlob("acme/web", lying.Digest(blob).String(), blob)
	}
	asked, goOn := make(chan struct{}), make(chan struct{})
	lie := w.up.Lie(lying.Manifest("acme/web", lying.SignatureTag(digest)).GET().First(1), lying.Before(func(ctx context.Context) {
		close(asked)
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	}))
	early := make(chan answer)
	go func() { early <- w.get(manifestPath(web, "v1")) }()
	<-asked
	lie.Stop()
	put := w.send("PUT", "/v2/ghcr.io/acme/web/manifests/"+lying.SignatureTag(digest), bytes.NewReader(evidence.Body), "Content-Type", evidence.MediaType)
	if put.status != 201 {
		t.Fatalf("%d %s", put.status, put.body)
	}
	served(t, w.get(manifestPath(web, "v1")), image) // while the first is still being decided
	close(goOn)
	if a := <-early; a.status != 403 && a.status != 200 {
		t.Errorf("the first is answered %d %s", a.status, a.body)
	}
	served(t, w.get(manifestPath(web, "v1")), image)
	w.clock.pass(time.Second)
	served(t, w.get(manifestPath(web, digest.String())), image)
}
