package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"vidimus/e2e/lying"
)

// unhurried is a connection to a client that may take nothing: it notes whether
// anything was written before somebody said how long that may last.
type unhurried struct {
	*httptest.ResponseRecorder
	until   time.Time
	forever bool
}

func (u *unhurried) SetWriteDeadline(at time.Time) error {
	u.until = at
	return nil
}

func (u *unhurried) note() {
	left := time.Until(u.until)
	u.forever = u.forever || left <= 0 || left > 5*time.Minute
}

func (u *unhurried) WriteHeader(status int) { u.note(); u.ResponseRecorder.WriteHeader(status) }
func (u *unhurried) Write(p []byte) (int, error) {
	u.note()
	return u.ResponseRecorder.Write(p)
}

// D7: who reads nothing of an answer, whatever the answer, keeps a place for a while
// and not for ever: one connection of HTTP/2 has room for hundreds that wait.
func TestD7NoAnswerWaitsForItsReaderForEver(t *testing.T) {
	image, unsigned := lying.Image("web"), lying.Image("unsigned")
	w := newWorld(t)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.Push("acme/web", unsigned, "v2")
	pull(t, w, web, "v1", image)
	for name, test := range map[string]struct {
		method, path string
		status       int
	}{
		"a manifest":            {"GET", manifestPath(web, "v1"), 200},
		"the head of one":       {"HEAD", manifestPath(web, "v1"), 200},
		"a blob":                {"GET", blobPath(web, lying.Digest(image.Blobs[1])), 200},
		"the head of a blob":    {"HEAD", blobPath(web, lying.Digest(image.Blobs[1])), 200},
		"a denial":              {"GET", manifestPath(web, "v2"), 403},
		"tags":                  {"GET", "/v2/" + web + "/tags/list", 200},
		"referrers":             {"GET", "/v2/" + web + "/referrers/" + image.Digest().String(), 200},
		"the catalog":           {"GET", "/v2/_catalog", 200},
		"the base":              {"GET", "/v2/", 200},
		"what is no path":       {"GET", "/", 404},
		"a method that is none": {"BREW", manifestPath(web, "v1"), 405},
	} {
		t.Run(name, func(t *testing.T) {
			client := &unhurried{ResponseRecorder: httptest.NewRecorder()}
			w.proxy.ServeHTTP(client, httptest.NewRequest(test.method, test.path, http.NoBody))
			if client.Code != test.status {
				t.Fatalf("status %d, want %d: %s", client.Code, test.status, client.Body)
			}
			if client.forever {
				t.Error("it waits for its reader for ever")
			}
		})
	}
}

// asking is a body that notes until when its reader could be told to go on.
type asking struct {
	*unhurried
	late bool
}

func (a *asking) Read([]byte) (int, error) {
	a.late = a.late || !a.until.IsZero() && !a.until.After(time.Now())
	return 0, io.EOF
}

// How long the last answer of a connection could take is not how long the next request
// may wait before its client is told to send what it has.
func TestTheTimeOfAnAnswerIsNotThatOfTheNextRequest(t *testing.T) {
	w := newWorld(t, pushable)
	client := &unhurried{ResponseRecorder: httptest.NewRecorder(), until: time.Now().Add(-time.Second)}
	body := &asking{unhurried: client}
	request := httptest.NewRequest("PUT", manifestPath("ghcr.io/open/web", "v1"), body)
	request.ContentLength = 10
	request.Header.Set("Expect", "100-continue")
	w.proxy.ServeHTTP(client, request)
	if client.Code != 400 {
		t.Fatalf("status %d: %s", client.Code, client.Body)
	}
	if body.late {
		t.Error("its time to be answered was over before it was read")
	}
	if client.forever {
		t.Error("it waits for its reader for ever")
	}
}
