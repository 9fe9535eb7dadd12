package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

type testFault struct {
	kind   string
	wait   time.Duration
	advice string
}

func (f testFault) Error() string             { return "upstream ghcr.io: " + f.kind }
func (f testFault) Advice() string            { return f.advice }
func (f testFault) Kind() string              { return f.kind }
func (f testFault) RetryAfter() time.Duration { return f.wait }

// Every code that goes over the wire, with its status and its exact bytes.
func TestTheErrorMap(t *testing.T) {
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	decision := policy.Decision{
		ID: "7f3c", Subject: policy.Subject{Repository: "ghcr.io/acme/web", Tag: "v1", Digest: digest},
		Policy: "production", Reason: policy.ReasonUnsigned, Explained: "not signed", Hint: "sign it",
	}
	doubtful := decision
	doubtful.Reason, doubtful.Explained, doubtful.Hint = policy.ReasonInconclusive, "nobody could tell", "try again"
	const refused = `"repository":"ghcr.io/acme/web","reference":"","digest":"sha256:abababababababababababababababababababababababababababababababab","policy":"production","evidence":[]`
	tests := []struct {
		name    string
		err     error
		at      endpoint
		status  int
		headers map[string]string
		body    string
	}{
		{
			"denied", denied(decision, "acme/web:v1"), endpointManifest, 403, nil,
			`{"errors":[{"code":"DENIED","message":"` + decision.Sentence("acme/web:v1") + `","detail":{"id":"7f3c","reason":"unsigned",` + refused + `,"hint":"sign it"}}]}`,
		},
		{
			"undecided", fmt.Errorf("x: %w", &undecided{decision: doubtful, image: "acme/web:v1", err: testFault{kind: KindUnavailable}}), endpointManifest, 503,
			map[string]string{"Retry-After": "5"},
			`{"errors":[{"code":"UNAVAILABLE","message":"` + doubtful.Sentence("acme/web:v1") + `","detail":{"id":"7f3c","reason":"inconclusive",` + refused + `,"hint":"try again"}}]}`,
		},
		{
			"undecided, whatever it wraps", &undecided{decision: doubtful, image: "acme/web:v1", err: errors.Join(invalidName("x"), errMismatch, fs.ErrNotExist, testFault{kind: KindRateLimited, wait: 61 * time.Second})}, endpointBlob, 503,
			map[string]string{"Retry-After": "61"},
			`{"errors":[{"code":"UNAVAILABLE","message":"` + doubtful.Sentence("acme/web:v1") + `","detail":{"id":"7f3c","reason":"inconclusive",` + refused + `,"hint":"try again"}}]}`,
		},
		{
			"a mismatch of ours", fmt.Errorf("v1: %w: too large", errMismatch), endpointManifest, 502, nil,
			`{"errors":[{"code":"UNAVAILABLE","message":"v1: the upstream sent wrong content: too large","detail":{"reason":"upstream-mismatch"}}]}`,
		},
		{
			"a mismatch of the upstream's or the store's", fmt.Errorf("send: %w", testFault{kind: KindMismatch}), endpointBlob, 502, nil,
			`{"errors":[{"code":"UNAVAILABLE","message":"the upstream sent wrong content: send: upstream ghcr.io: mismatch","detail":{"reason":"upstream-mismatch"}}]}`,
		},
		{
			"no manifest", fmt.Errorf("x: %w", fs.ErrNotExist), endpointManifest, 404, nil,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"the upstream registry holds no such manifest"}]}`,
		},
		{
			"no blob", fs.ErrNotExist, endpointBlob, 404, nil,
			`{"errors":[{"code":"BLOB_UNKNOWN","message":"the upstream registry holds no such blob in this repository"}]}`,
		},
		{
			"no way to a blob", unreachableBlob(), endpointBlob, 404, nil,
			`{"errors":[{"code":"BLOB_UNKNOWN","message":"no allowed manifest of this repository that Vidimus knows references this blob; pull the manifest first"}]}`,
		},
		{
			"no repository", fs.ErrNotExist, endpointTags, 404, nil,
			`{"errors":[{"code":"NAME_UNKNOWN","message":"the upstream registry knows no such repository"}]}`,
		},
		{
			"too many requests", testFault{kind: KindRateLimited, wait: 1500 * time.Millisecond}, endpointManifest, 429, map[string]string{"Retry-After": "2"},
			`{"errors":[{"code":"TOOMANYREQUESTS","message":"the upstream registry limits the rate of requests"}]}`,
		},
		{
			"unauthorized", testFault{kind: KindUnauthorized}, endpointManifest, 403, nil,
			`{"errors":[{"code":"DENIED","message":"the upstream registry refuses: there is no such repository, or Vidimus has no credentials that may read it"}]}`,
		},
		{
			"TLS", testFault{kind: KindTLS}, endpointManifest, 503, map[string]string{"Retry-After": "5"},
			`{"errors":[{"code":"UNAVAILABLE","message":"the TLS connection to the upstream registry failed"}]}`,
		},
		{
			"an address that is refused", testFault{kind: KindRefused}, endpointManifest, 503, map[string]string{"Retry-After": "5"},
			`{"errors":[{"code":"UNAVAILABLE","message":"the upstream registry leads to what Vidimus does not follow"}]}`,
		},
		{
			"out of time", context.DeadlineExceeded, endpointManifest, 503, map[string]string{"Retry-After": "5"},
			`{"errors":[{"code":"UNAVAILABLE","message":"the upstream did not answer in time"}]}`,
		},
		{
			"anything else is not told", errors.New("open /var/lib/vidimus/secret: input/output error"), endpointManifest, 503, map[string]string{"Retry-After": "5"},
			`{"errors":[{"code":"UNAVAILABLE","message":"Vidimus cannot answer at the moment"}]}`,
		},
		{
			"a name", invalidName("A\n"), endpointManifest, 400, nil,
			`{"errors":[{"code":"NAME_INVALID","message":"invalid repository name \"A?\": want lower-case components of letters and digits, joined by '.', '_', '-' and '/', at most 255 characters"}]}`,
		},
		{
			"a digest", invalidDigest("md5:x", "only sha256 is supported"), endpointManifest, 400, nil,
			`{"errors":[{"code":"DIGEST_INVALID","message":"invalid digest \"md5:x\": only sha256 is supported"}]}`,
		},
		{
			"a method", &Error{Status: 405, Code: codeUnsupported, Allow: "GET, HEAD", Message: "no"}, endpointManifest, 405, map[string]string{"Allow": "GET, HEAD"},
			`{"errors":[{"code":"UNSUPPORTED","message":"no"}]}`,
		},
		{
			"a range", &Error{Status: 416, Code: codeRangeInvalid, Size: 7, Message: "no"}, endpointBlob, 416, map[string]string{"Content-Range": "bytes */7"},
			`{"errors":[{"code":"RANGE_INVALID","message":"no"}]}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				w := httptest.NewRecorder()
				for _, name := range []string{"Docker-Content-Digest", "Etag", "Content-Range", "Age", "Link", "Warning"} {
					w.Header().Set(name, "left over")
				}
				writeError(w, httptest.NewRequest(method, "/v2/", nil), asError(test.err, wanted{endpoint: test.at}))
				want := test.body
				if method == http.MethodGet && strings.TrimSuffix(w.Body.String(), "\n") != want || method == http.MethodHead && w.Body.Len() != 0 {
					t.Errorf("%s:\n%s\nwant\n%s", method, w.Body, want)
				}
				if w.Code != test.status || w.Header().Get("Content-Length") != fmt.Sprint(len(want)+1) {
					t.Errorf("status %d, length %s", w.Code, w.Header().Get("Content-Length"))
				}
				headers := map[string]string{"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
				for _, name := range []string{"Docker-Content-Digest", "Etag", "Content-Range", "Age", "Link", "Warning", "Retry-After", "Allow"} {
					headers[name] = test.headers[name]
				}
				for name, value := range headers {
					if got := w.Header().Get(name); got != value {
						t.Errorf("%s: %q, want %q", name, got, value)
					}
				}
			}
		})
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	hub := place{"docker.io", "library/nginx"}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, test := range []struct {
		at   wanted
		want string
	}{
		{wanted{endpointManifest, hub, "v9"}, "the upstream registry docker.io holds no manifest library/nginx:v9"},
		{wanted{endpointManifest, hub, digest}, "the upstream registry docker.io holds no manifest library/nginx@" + digest},
		{wanted{endpointBlob, hub, digest}, "the upstream registry docker.io holds no blob library/nginx@" + digest},
		{wanted{endpointTags, hub, ""}, "the upstream registry docker.io knows no repository library/nginx"},
	} {
		if got := asError(fmt.Errorf("x: %w", fs.ErrNotExist), test.at); got.Message != test.want || got.Status != 404 {
			t.Errorf("%d %q, want %q", got.Status, got.Message, test.want)
		}
	}
}

// What an upstream's fault says itself names hosts and addresses, which are for
// the log and not for clients.
func TestAFaultIsToldWithoutItsHosts(t *testing.T) {
	at := wanted{endpointManifest, place{"local", "acme/web"}, "v1"}
	for _, test := range []struct {
		fault testFault
		want  string
	}{
		{testFault{kind: KindUnavailable}, "upstream local is unreachable or failing"},
		{testFault{kind: KindUnavailable, advice: "ask again"}, "upstream local is unreachable or failing"},
		{testFault{kind: KindTLS}, "the TLS connection to upstream local failed"},
		{testFault{kind: KindTLS, advice: "is it an http:// registry?"}, "the TLS connection to upstream local failed: is it an http:// registry?"},
		{testFault{kind: KindRefused}, "upstream local leads to what Vidimus does not follow"},
		{testFault{kind: KindRefused, advice: "set egress.allow"}, "upstream local leads to what Vidimus does not follow: set egress.allow"},
		{testFault{kind: KindRateLimited}, "upstream local limits the rate of requests"},
		{testFault{kind: KindUnauthorized}, "upstream local refuses: there is no such repository, or Vidimus has no credentials that may read it"},
		{testFault{kind: KindForbidden}, "upstream local refuses: there is no such repository, or Vidimus has no credentials that may read it"},
	} {
		err := fmt.Errorf("fetch: %w", test.fault)
		got := asError(err, at)
		if got.Message != test.want {
			t.Errorf("%s: %q, want %q", test.fault.kind, got.Message, test.want)
		}
		if !errors.Is(got, err) {
			t.Errorf("%s: the log does not learn the cause", test.fault.kind)
		}
	}
}
