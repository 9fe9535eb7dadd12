package main

import (
	"net/http"
	"testing"
	"time"

	"vidimus/e2e/lying"
)

// The same image pushed on another day is signed as it was, in whatever form: who pushed
// it and when is that of the first time, and nothing is added.
func TestWhatIsPushedAgainLaterIsNotSignedAgain(t *testing.T) {
	t.Parallel()
	for _, repository := range []string{"acme/web", "tags/web", "bundles/web"} {
		t.Run(repository, func(t *testing.T) {
			t.Parallel()
			up := lying.Start(t)
			p := newPushing(t, up)
			image := lying.Image("web")
			p.created(p.image("local/"+repository, image, "v1"))
			p.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
			p.start()
			up.Forget()
			p.created(p.image("local/"+repository, image, "v1"))
			for _, q := range up.Requests(lying.Manifest(repository, "").Method(http.MethodPut)) {
				if q.Reference != image.Digest().String() && q.Reference != "v1" {
					t.Errorf("%s", q)
				}
			}
		})
	}
}
