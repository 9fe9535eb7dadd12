package proxy_test

import (
	"context"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/policy"
)

// A decision that was being reached while the signature that it rests on was deleted is
// not kept.
func TestADecisionUnderWayDoesNotOutlastItsSignature(t *testing.T) {
	w := newWorld(t, pushable)
	image := lying.Image("signed no longer")
	digest := w.up.PushSigned("acme/web", image, w.key, "v1")
	asked, goOn := make(chan struct{}), make(chan struct{})
	lie := w.up.Lie(lying.Manifest("acme/web", lying.SignatureTag(digest)).GET().First(1), lying.Before(func(ctx context.Context) {
		close(asked) // what it answers with was made up before
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	}))
	early := make(chan answer)
	go func() { early <- w.get(manifestPath(web, "v1")) }()
	<-asked
	lie.Stop()
	if a := w.do("DELETE", manifestPath(web, lying.SignatureTag(digest))); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	close(goOn)
	served(t, <-early, image) // it asked before
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", policy.ReasonUnsigned)
	refused(t, w.get(byDigest(web, image)), 403, "DENIED", policy.ReasonUnsigned)
	layer := blobPath(web, lying.Digest(image.Blobs[0]))
	refused(t, w.get(layer), 404, "BLOB_UNKNOWN", "")
}

// What is deleted that vouches for nothing costs no decision.
func TestADeletionThatTakesNothingAwayKeepsDecisions(t *testing.T) {
	w := newWorld(t, pushable)
	image, other := lying.Image("stays"), lying.Image("goes")
	digest := w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.PushSigned("acme/web", other, w.key, "v2")
	document := lying.Artifact("application/spdx+json", image.Descriptor(), lying.Layer{MediaType: "application/spdx+json", Data: []byte("{}")})
	w.up.Push("acme/web", document)
	served(t, w.get(manifestPath(web, "v1")), image)
	looks := lying.Manifest("acme/web", lying.SignatureTag(digest)).GET()
	before := len(w.up.Requests(looks))
	for _, reference := range []string{"v2", other.Digest().String(), document.Digest().String()} {
		if a := w.do("DELETE", manifestPath(web, reference)); a.status != 202 {
			t.Fatalf("%s: %d %s", reference, a.status, a.body)
		}
		served(t, w.get(manifestPath(web, "v1")), image)
	}
	if n := len(w.up.Requests(looks)); n != before {
		t.Errorf("its signatures were looked at %d times more", n-before)
	}
}
