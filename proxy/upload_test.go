package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/verifier"
)

// pushable lets everything be pushed into ghcr.io/acme/** and ghcr.io/open/**, as it
// comes.
func pushable(_ *world, s *settings) {
	for i := range s.policies {
		if name := s.policies[i].Name; name == "acme" || name == "open" {
			s.policies[i].Push = &policy.Push{Delete: true}
		}
	}
}

// send is do with a body.
func (w *world) send(method, path string, body io.Reader, headers ...string) answer {
	w.t.Helper()
	r, err := http.NewRequest(method, w.server.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Add(pair[0], pair[1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	response, err := w.web.Do(r)
	if err != nil {
		return answer{broken: err}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, content, err}
}

// chunks hides how long what is read is.
func chunks(content []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(content)} }

const uploads = "/v2/ghcr.io/open/web/blobs/uploads/"

// upload begins an upload, and returns where it goes on.
func (w *world) upload() string {
	w.t.Helper()
	return w.goesOn(w.send("POST", uploads, nil), 202, 0)
}

// goesOn wants an answer about an upload of n bytes, and returns where it goes on.
func (w *world) goesOn(a answer, status, n int) string {
	w.t.Helper()
	location := a.header.Get("Location")
	if want := fmt.Sprintf("0-%d", max(n-1, 0)); a.status != status || a.header.Get("Range") != want || location == "" {
		w.t.Fatalf("%d, Range %q, want %d, %q: %s", a.status, a.header.Get("Range"), status, want, a.body)
	}
	return location
}

func withDigest(location string, digest v1.Hash) string {
	return location + "?digest=" + digest.String()
}

// stored wants an answer that a blob is there, and the upstream to hold it.
func (w *world) stored(a answer, content []byte) {
	w.t.Helper()
	digest := lying.Digest(content)
	if a.status != 201 || a.header.Get("Docker-Content-Digest") != digest.String() || a.header.Get("Location") != "/v2/ghcr.io/open/web/blobs/"+digest.String() {
		w.t.Fatalf("%d %v: %s", a.status, a.header, a.body)
	}
	if held, ok := w.up.Blob("open/web", digest); !ok || !bytes.Equal(held, content) {
		w.t.Fatal("the upstream does not hold it")
	}
	if n := w.up.Uploads(); n != 0 {
		w.t.Errorf("%d uploads are left over", n)
	}
}

func TestABlobIsUploadedInEveryWay(t *testing.T) {
	content := make([]byte, 300<<10)
	rand.Read(content)
	digest := lying.Digest(content)
	half := len(content) / 2
	ranges := func(first, end int) string { return fmt.Sprintf("%d-%d", first, end-1) }
	for _, test := range []struct {
		name   string
		upload func(w *world) answer
	}{
		{"in one POST", func(w *world) answer {
			return w.send("POST", withDigest(uploads, digest), bytes.NewReader(content))
		}},
		{"in POST and PUT", func(w *world) answer {
			return w.send("PUT", withDigest(w.upload(), digest), bytes.NewReader(content))
		}},
		{"in POST and a PUT of unsaid length", func(w *world) answer {
			return w.send("PUT", withDigest(w.upload(), digest), chunks(content))
		}},
		{"streamed", func(w *world) answer {
			at := w.goesOn(w.send("PATCH", w.upload(), chunks(content)), 202, len(content))
			return w.send("PUT", withDigest(at, digest), nil)
		}},
		{"streamed, with an empty PUT of unsaid length", func(w *world) answer {
			at := w.goesOn(w.send("PATCH", w.upload(), chunks(content)), 202, len(content))
			return w.send("PUT", withDigest(at, digest), chunks(nil))
		}},
		{"in pieces, the last with the PUT", func(w *world) answer {
			at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:half]), "Content-Range", ranges(0, half)), 202, half)
			return w.send("PUT", withDigest(at, digest), bytes.NewReader(content[half:]), "Content-Range", ranges(half, len(content)))
		}},
		{"in pieces, asked for between", func(w *world) answer {
			at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:half]), "Content-Range", ranges(0, half)), 202, half)
			at = w.goesOn(w.get(at), 204, half)
			at = w.goesOn(w.send("PATCH", at, bytes.NewReader(content[half:]), "Content-Range", ranges(half, len(content))), 202, len(content))
			return w.send("PUT", withDigest(at, digest), nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, pushable)
			w.stored(test.upload(w), content)
		})
	}
}

func TestABlobOfNothingIsUploaded(t *testing.T) {
	w := newWorld(t, pushable)
	w.stored(w.send("PUT", withDigest(w.upload(), lying.Digest(nil)), nil), nil)
}

// D14: what does not hash to its digest is not committed, and nothing of it stays.
func TestD14AWrongDigestIsNotCommitted(t *testing.T) {
	content, wrong := []byte("what is uploaded"), lying.Digest([]byte("what is said"))
	for name, upload := range map[string]func(w *world) answer{
		"in one POST":     func(w *world) answer { return w.send("POST", withDigest(uploads, wrong), bytes.NewReader(content)) },
		"in POST and PUT": func(w *world) answer { return w.send("PUT", withDigest(w.upload(), wrong), bytes.NewReader(content)) },
		"streamed": func(w *world) answer {
			at := w.goesOn(w.send("PATCH", w.upload(), chunks(content)), 202, len(content))
			return w.send("PUT", withDigest(at, wrong), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pushable)
			refused(t, upload(w), 400, "DIGEST_INVALID", "")
			for _, q := range w.up.Requests() {
				if q.Kind == lying.KindUpload && q.Query.Has("digest") {
					t.Errorf("the upstream was told to commit: %s", q)
				}
			}
			if n := w.up.Uploads(); n != 0 {
				t.Errorf("%d uploads are left over", n)
			}
		})
	}
	w := newWorld(t, pushable)
	refused(t, w.send("PUT", w.upload(), bytes.NewReader(content)), 400, "DIGEST_INVALID", "")
	refused(t, w.send("PUT", w.upload()+"?digest=sha512:"+strings.Repeat("ab", 64), nil), 400, "DIGEST_INVALID", "")
}

func TestPiecesThatDoNotFitAreRefused(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.goesOn(w.send("PATCH", w.upload(), strings.NewReader("0123"), "Content-Range", "0-3"), 202, 4)
	w.up.Forget()
	refused(t, w.send("PATCH", at, strings.NewReader("89"), "Content-Range", "8-9"), 416, "RANGE_INVALID", "")
	refused(t, w.send("PATCH", at, strings.NewReader("01"), "Content-Range", "0-1"), 416, "RANGE_INVALID", "")
	for _, malformed := range []string{"4-9", "5-4", "x-y", "4", "-4"} {
		refused(t, w.send("PATCH", at, strings.NewReader("45"), "Content-Range", malformed), 400, "BLOB_UPLOAD_INVALID", "")
	}
	asked(t, w.up)
	w.goesOn(w.send("PATCH", at, strings.NewReader("45"), "Content-Range", "4-5"), 202, 6)
}

// A client that sends everything before it listens is heard out, as far as that is
// bearable: it is told what is wrong in place of a broken connection.
func TestD14WhoSendsATooLargeManifestIsTold(t *testing.T) {
	w := newWorld(t, pushable)
	large := strings.Repeat("x", 3*verifier.MaxManifestSize)
	head := "PUT " + manifestPath(web, "v1") + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: " + string(types.OCIManifestSchema1) + "\r\n"
	for name, request := range map[string]string{
		"with its length": fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(large), large),
		"in one chunk":    fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(large), large),
		"before it sends": fmt.Sprintf("%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", head, len(large)),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, w.raw("PUT", request), 413, "SIZE_INVALID", "")
		})
	}
}

func TestD14ABlobThatIsTooLargeIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	w.up.Forget()
	a := w.raw("PATCH", "PATCH "+at+" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 99999999999999\r\n\r\n")
	refused(t, a, 413, "SIZE_INVALID", "")
	if n := w.up.Uploads(); n != 0 || len(w.up.Requests(lying.Any().Method("PATCH"))) != 0 {
		t.Errorf("%d uploads are left over; asked %q", n, w.up.Log())
	}
}

// A client can neither read nor change where its upload goes on, nor use another's.
func TestAnUploadIsSealed(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	if strings.Contains(at, "upload-1") {
		t.Errorf("it tells the upstream's location: %s", at)
	}
	w.up.Forget()
	session := strings.TrimPrefix(at, uploads)
	edited := []byte(session)
	for _, i := range []int{0, len(session) / 2, len(session) - 2} {
		copy(edited, session)
		if edited[i] = 'A'; session[i] == 'A' {
			edited[i] = 'B'
		}
		refused(t, w.send("PATCH", uploads+string(edited), strings.NewReader("x")), 404, "BLOB_UPLOAD_UNKNOWN", "")
	}
	for _, path := range []string{uploads + "upload-1", uploads + session[:20], "/v2/ghcr.io/open/other/blobs/uploads/" + session, "/v2/docker.io/open/web/blobs/uploads/" + session} {
		for _, method := range []string{"PATCH", "PUT", "GET", "DELETE"} {
			if a := w.send(method, path, strings.NewReader("x")); a.status != 404 && a.status != 405 {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
			}
		}
	}
	asked(t, w.up)
	w.clock.pass(25 * time.Hour)
	refused(t, w.send("PATCH", at, strings.NewReader("x")), 404, "BLOB_UPLOAD_UNKNOWN", "")
	asked(t, w.up)
}

func TestAnUploadOutlivesTheProcessWithItsKeyAlone(t *testing.T) {
	for _, shared := range []bool{true, false} {
		w := newWorld(t, pushable, func(_ *world, s *settings) {
			if shared {
				s.uploadKey = bytes.Repeat([]byte{7}, 32)
			}
		})
		at := w.goesOn(w.send("PATCH", w.upload(), strings.NewReader("first, ")), 202, 7)
		w.restart()
		a := w.send("PUT", withDigest(at, lying.Digest([]byte("first, last"))), strings.NewReader("last"))
		if shared {
			w.stored(a, []byte("first, last"))
		} else {
			refused(t, a, 404, "BLOB_UPLOAD_UNKNOWN", "")
		}
	}
}

func TestAnUploadIsCancelled(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	if a := w.do("DELETE", at); a.status != 204 || w.up.Uploads() != 0 {
		t.Errorf("%d, %d uploads: %s", a.status, w.up.Uploads(), a.body)
	}
	refused(t, w.send("PATCH", at, strings.NewReader("x")), 404, "BLOB_UPLOAD_UNKNOWN", "")
	refused(t, w.get(at), 404, "BLOB_UPLOAD_UNKNOWN", "")
}

// A piece that breaks off is sent once more from where it was last sound. What the
// upstream has of it is hashed again, and not sent again.
func TestABrokenPieceIsGoneOnWith(t *testing.T) {
	content := make([]byte, 200<<10)
	rand.Read(content)
	w := newWorld(t, pushable)
	at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:1000])), 202, 1000)

	// lying takes nothing of a request that breaks; here it holds a part.
	upstreamHas := len(content) - 1000
	up := w.up.Requests(lying.Any().Method("PATCH"))[0]
	body := bytes.NewReader(content[1000:upstreamHas])
	response, err := http.DefaultClient.Do(must(http.NewRequest("PATCH", w.up.URL+up.Path, body)))
	if err != nil || response.StatusCode != 202 {
		t.Fatal(response, err)
	}
	response.Body.Close()

	w.up.Forget()
	at = w.goesOn(w.get(at), 204, 1000)
	at = w.goesOn(w.send("PATCH", at, bytes.NewReader(content[1000:]), "Content-Range", fmt.Sprintf("1000-%d", len(content)-1)), 202, len(content))
	if sent := w.up.Requests(lying.Any().Method("PATCH")); len(sent) != 1 || sent[0].Header.Get("Content-Length") != "1000" {
		t.Errorf("sent again: %v", sent)
	}
	w.stored(w.send("PUT", withDigest(at, lying.Digest(content)), nil), content)
}

func must(r *http.Request, err error) *http.Request {
	if err != nil {
		panic(err)
	}
	return r
}

// D14: of two requests that go on with one upload, the second is told so.
func TestD14OneRequestAtATimeGoesOnWithAnUpload(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Informed that it may go on, the first has begun.
	io.WriteString(conn, "PATCH "+at+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatal(line, err)
	}
	refused(t, w.send("PUT", withDigest(at, lying.Digest(nil)), nil), 409, "BLOB_UPLOAD_INVALID", "")
}

// C6: what an upstream sends elsewhere gets neither content nor credentials.
func TestC6AnUploadGoesNowhereElse(t *testing.T) {
	elsewhere := lying.StartAt(t, "127.0.0.2:0")
	for name, location := range map[string]string{
		"another host":        elsewhere.URL + "/v2/open/web/blobs/uploads/upload-1",
		"another user":        "http://user@" + elsewhere.Host + "/x",
		"without a scheme":    "//" + elsewhere.Host + "/v2/x",
		"another scheme":      "ftp://" + elsewhere.Host + "/x",
		"nothing that parses": "http://[/",
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"POST", "PATCH"} {
				w := newWorld(t, pushable)
				w.up.Lie(lying.Any().Method(method), lying.Header("Location", location))
				a := w.send("POST", withDigest(uploads, lying.Digest([]byte("x"))), strings.NewReader("x"))
				if a.status < 500 || a.status > 503 {
					t.Errorf("%s: %d %s", method, a.status, a.body)
				}
			}
			if got := elsewhere.Log(); len(got) != 0 {
				t.Errorf("it was asked %q", got)
			}
		})
	}
}

// B16: a blob is mounted that the caller could pull through us, and no other: whether
// there is one is not told.
func TestB16OnlyWhatCouldBePulledIsMounted(t *testing.T) {
	w := newWorld(t, pushable)
	allowed, denied := lying.Image("allowed"), lying.Image("denied")
	w.up.PushSigned("acme/web", allowed, w.key, "v1")
	w.up.Push("acme/secret", denied, "v1")
	served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), allowed)
	refused(t, w.get(manifestPath("ghcr.io/acme/secret", "v1")), 403, "DENIED", "unsigned")
	mount := func(content lying.Content, from string) string {
		return "/v2/ghcr.io/open/web/blobs/uploads/?mount=" + lying.Digest(content.Blobs[1]).String() + "&from=" + from
	}
	w.up.Forget()
	w.stored(w.send("POST", mount(allowed, "ghcr.io/acme/web"), nil), allowed.Blobs[1])
	asked(t, w.up, "POST /v2/open/web/blobs/uploads/?from=acme%2Fweb&mount="+strings.ReplaceAll(lying.Digest(allowed.Blobs[1]).String(), ":", "%3A"))
	for _, path := range []string{
		mount(denied, "ghcr.io/acme/secret"), mount(denied, "ghcr.io/none/web"), mount(allowed, "docker.io/acme/web"), mount(allowed, "quay.io/acme/web"),
		mount(allowed, "ghcr.io/acme/secret"), mount(allowed, "../x"), mount(allowed, ""), "/v2/ghcr.io/open/web/blobs/uploads/?mount=sha256:x&from=ghcr.io/acme/web",
	} {
		w.up.Forget()
		w.goesOn(w.send("POST", path, nil), 202, 0)
		for _, q := range w.up.Requests(lying.Any().Method("POST")) {
			if len(q.Query) > 0 {
				t.Errorf("%s: the upstream was asked %s", path, q)
			}
		}
	}
}
