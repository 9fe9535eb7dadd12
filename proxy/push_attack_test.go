package proxy_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"vidimus/e2e/lying"
)

// What a tag named before a push is not believed after it, though the upstream had
// been asked before and answers late.
func TestAnAnswerUnderWayDoesNotOutlastAPush(t *testing.T) {
	before, after := lying.Image("before"), lying.Image("after")
	for name, change := range map[string]func(w *world) answer{
		"put": func(w *world) answer {
			return w.send("PUT", manifestPath("ghcr.io/open/web", "v1"), bytes.NewReader(after.Body), "Content-Type", after.MediaType)
		},
		"deleted": func(w *world) answer { return w.do("DELETE", manifestPath("ghcr.io/open/web", "v1")) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pushable)
			w.up.Push("open/web", after)
			w.up.Push("open/web", before, "v1")
			asked, goOn := make(chan struct{}), make(chan struct{})
			w.up.Lie(lying.Manifest("open/web", "v1").GET().First(1), lying.Before(func(ctx context.Context) {
				close(asked)
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			}))
			early := make(chan answer)
			go func() { early <- w.get(manifestPath("ghcr.io/open/web", "v1")) }()
			<-asked
			if a := change(w); a.status != 201 && a.status != 202 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			close(goOn)
			served(t, <-early, before) // it asked before
			a := w.get(manifestPath("ghcr.io/open/web", "v1"))
			if name == "put" {
				served(t, a, after)
			} else {
				refused(t, a, 404, "MANIFEST_UNKNOWN", "")
			}
		})
	}
}

// The sealed text by which an upload goes on is for its client alone.
func TestAnUploadStandsInNoLog(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	session := strings.TrimPrefix(at, uploads)
	w.goesOn(w.send("PATCH", at, strings.NewReader("x")), 202, 1)
	w.send("PUT", at+"x", nil)
	w.send("PUT", at+"%20", nil)
	log := w.log.String()
	if !strings.Contains(log, uploads) {
		t.Errorf("uploads are not in the log: %s", log)
	}
	for i := 0; i+20 < len(session); i += 20 {
		if strings.Contains(log, session[i:i+20]) {
			t.Fatalf("the log tells %q of it", session[i:i+20])
		}
	}
}
