package proxy_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/access"
)

// secretOf is the password of a user: a canary that may be seen nowhere.
func secretOf(user string) string { return "c4nary-" + user }

// basic is the header by which a user logs in; empty for nobody.
func basic(user, password string) []string {
	if user == "" {
		return nil
	}
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

func as(user string) []string { return basic(user, secretOf(user)) }

// guarded gives a world users, each with the password secretOf tells, and an
// access list: each line is subjects, a pattern and actions, separated by |.
func guarded(lines ...string) func(*world, *settings) {
	return func(w *world, s *settings) { s.revision = guardedBy(w.t, lines...) }
}

func guardedBy(t testing.TB, lines ...string) func(*proxy.Revision) {
	t.Helper()
	users := make(map[string]bool)
	var config access.Config
	for _, line := range lines {
		part := strings.Split(line, "|")
		e := access.Entry{Subjects: strings.Fields(part[0]), Match: match(t, strings.Fields(part[1])...)}
		for _, action := range strings.Fields(part[2]) {
			e.Actions = append(e.Actions, access.Action(action))
		}
		for _, user := range e.Subjects {
			users[user] = user != access.SubjectAnonymous && user != access.SubjectAuthenticated
		}
		config.Entries = append(config.Entries, e)
	}
	var file strings.Builder
	for user, known := range users {
		if known {
			hash, err := bcrypt.GenerateFromPassword([]byte(secretOf(user)), bcrypt.MinCost)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&file, "%s:%s\n", user, hash)
		}
	}
	var err error
	if config.Passwords, err = access.ParsePasswords([]byte(file.String())); err != nil {
		t.Fatal(err)
	}
	control, err := access.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *proxy.Revision) { r.Access = control }
}

// oneForEachRight is a list under which each user may do one thing in
// ghcr.io/acme, and elsewhere nothing.
var oneForEachRight = []string{
	"puller | ghcr.io/acme/** | pull", "pusher | ghcr.io/acme/** | push", "signer | ghcr.io/acme/** | sign",
	"inspector | ghcr.io/acme/** | inspect", "deleter | ghcr.io/acme/** | delete", "stranger | ghcr.io/open/** | pull push sign inspect delete",
}

// TestWhoMayDoWhatOnEachRoute asks every route as every kind of caller. Rights
// are those that let a request through: what is then answered is for other tests.
func TestWhoMayDoWhatOnEachRoute(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	upload := "/v2/" + web + "/blobs/uploads/"
	for _, route := range []struct{ methods, path, rights string }{
		{"GET", manifestPath(web, "v1"), "puller signer inspector"},
		{"GET", byDigest(web, image), "puller signer inspector"},
		{"GET", "/v2/acme/web/manifests/v1?ns=ghcr.io", "puller signer inspector"},
		{"GET", manifestPath(web, tag(image.Digest())), "puller signer inspector"},
		{"HEAD", manifestPath(web, "v1"), "puller signer inspector pusher"},
		{"GET", blobPath(web, lying.Digest(image.Blobs[0])), "puller signer inspector"},
		{"HEAD", blobPath(web, lying.Digest(image.Blobs[0])), "puller signer inspector pusher"},
		{"GET HEAD", "/v2/" + web + "/tags/list", "puller inspector"},
		{"GET HEAD", "/v2/" + web + "/referrers/" + image.Digest().String(), "puller signer inspector"},
		{"PUT", manifestPath(web, "v2"), "pusher signer"},
		{"DELETE", manifestPath(web, "gone"), "deleter"},
		{"DELETE", blobPath(web, lying.Digest([]byte("gone"))), "deleter"},
		{"POST", upload, "pusher signer"},
		{"POST", upload + "?mount=" + lying.Digest(image.Blobs[0]).String() + "&from=acme/other", "pusher signer"},
		{"GET PATCH PUT DELETE", upload + "session", "pusher signer"},
	} {
		for _, method := range strings.Fields(route.methods) {
			for _, user := range []string{"", "stranger", "puller", "pusher", "signer", "inspector", "deleter"} {
				w.up.Forget()
				a := w.do(method, route.path, as(user)...)
				through := a.status != http.StatusUnauthorized && a.status != http.StatusForbidden
				want := user != "" && strings.Contains(route.rights, user)
				if a.broken != nil || through != want {
					t.Errorf("%s %s as %q: %d %v %s", method, route.path, user, a.status, a.broken, a.body)
				}
				if want {
					continue
				}
				status, code := http.StatusForbidden, "DENIED"
				if user == "" {
					status, code = http.StatusUnauthorized, "UNAUTHORIZED"
				}
				if method == http.MethodHead {
					if a.status != status {
						t.Errorf("%s %s as %q: %d", method, route.path, user, a.status)
					}
				} else {
					refused(t, a, status, code, "")
				}
				asked(t, w.up)
			}
			for name, wrong := range map[string][]string{
				"a wrong password":   basic("puller", secretOf("pusher")),
				"an unknown user":    basic("root", secretOf("puller")),
				"a token":            {"Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJhY2Nlc3MiOltdfQ."},
				"no credentials":     {"Authorization", "Basic Og=="},
				"two sets of them":   append(as("puller"), as("pusher")...),
				"what is not base64": {"Authorization", "Basic puller"},
			} {
				w.up.Forget()
				if a := w.do(method, route.path, wrong...); a.status != http.StatusUnauthorized {
					t.Errorf("%s %s with %s: %d", method, route.path, name, a.status)
				}
				asked(t, w.up)
			}
		}
	}
}

// TestTheBaseTellsWhetherALoginHolds is what docker login asks.
func TestTheBaseTellsWhetherALoginHolds(t *testing.T) {
	for name, c := range map[string]struct {
		list      []string
		anonymous int
	}{
		"where nobody is let in unknown": {[]string{"ci | ghcr.io/** | pull"}, http.StatusUnauthorized},
		"where anonymous may pull some":  {[]string{"anonymous | ghcr.io/open/** | pull", "ci | ghcr.io/** | pull"}, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, guarded(c.list...))
			for _, path := range []string{"/v2/", "/v2"} {
				a := w.get(path)
				if a.status != c.anonymous {
					t.Errorf("anonymous: %d", a.status)
				}
				checkHeaders(t, a.header, map[string]string{"Www-Authenticate": `Basic realm="Vidimus", charset="UTF-8"`, "Docker-Distribution-Api-Version": "registry/2.0"})
				if a := w.get(path, as("ci")...); a.status != http.StatusOK || a.header.Get("Www-Authenticate") != "" {
					t.Errorf("ci: %d %v %s", a.status, a.header, a.body)
				}
				refused(t, w.get(path, basic("ci", "wrong")...), http.StatusUnauthorized, "UNAUTHORIZED", "")
			}
			// not even where anonymous could
			refused(t, w.get("/v2/ghcr.io/open/x/manifests/v1", basic("ci", "wrong")...), http.StatusUnauthorized, "UNAUTHORIZED", "")
		})
	}
}

// TestTheShortPathAsksFirst warms an answer as one caller and asks for it as
// others.
func TestTheShortPathAsksFirst(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	config := blobPath(web, lying.Digest(image.Blobs[0]))
	for range 3 {
		served(t, w.get(manifestPath(web, "v1"), as("puller")...), image)
		servedBlob(t, w.get(config, as("puller")...), image.Blobs[0])
	}
	w.up.Forget()
	for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image), config} {
		refused(t, w.get(path), http.StatusUnauthorized, "UNAUTHORIZED", "")
		refused(t, w.get(path, as("stranger")...), http.StatusForbidden, "DENIED", "")
		refused(t, w.get(path, as("pusher")...), http.StatusForbidden, "DENIED", "")
		refused(t, w.get(path, "If-None-Match", `"`+image.Digest().String()+`"`), http.StatusUnauthorized, "UNAUTHORIZED", "")
	}
	asked(t, w.up)
	// a right that is taken away is gone with the revision
	w.use("two", func(s *settings) { s.revision = guardedBy(t, "puller | ghcr.io/open/** | pull") })
	for _, path := range []string{manifestPath(web, "v1"), config} {
		refused(t, w.get(path, as("puller")...), http.StatusForbidden, "DENIED", "")
	}
}

func TestTheCatalogListsWhatTheCallerMayPull(t *testing.T) {
	w := newWorld(t, guarded(
		"anonymous | ghcr.io/open/** | pull",
		"puller | ghcr.io/** !ghcr.io/acme/secret | pull",
		"pusher | ghcr.io/acme/** | push sign inspect",
		"both | ghcr.io/** | pull",
	))
	for _, repository := range []string{"acme/secret", "acme/web", "open/x"} {
		image := lying.Image(repository)
		w.up.PushSigned(repository, image, w.key, "v1")
		served(t, w.get(manifestPath("ghcr.io/"+repository, "v1"), as("both")...), image)
	}
	for user, want := range map[string]string{
		"":       `["ghcr.io/open/x"]`,
		"puller": `["ghcr.io/acme/web","ghcr.io/open/x"]`,
		"pusher": `[]`,
		"both":   `["ghcr.io/acme/secret","ghcr.io/acme/web","ghcr.io/open/x"]`,
	} {
		a := w.get("/v2/_catalog", as(user)...)
		if got := string(a.body); a.status != http.StatusOK || got != `{"repositories":`+want+`}` {
			t.Errorf("%q: %d %s", user, a.status, got)
		}
	}
	// pages neither skip nor show what is not for the caller
	first := w.get("/v2/_catalog?n=1", as("puller")...)
	next := strings.TrimPrefix(strings.Split(first.header.Get("Link"), ">")[0], "<")
	if second := w.get(next, as("puller")...); string(first.body)+string(second.body) != `{"repositories":["ghcr.io/acme/web"]}{"repositories":["ghcr.io/open/x"]}` {
		t.Errorf("%s, %q, %s", first.body, next, second.body)
	}
}

// TestOneNameForAccessAndContent writes a repository in every way that means it.
func TestOneNameForAccessAndContent(t *testing.T) {
	w := newWorld(t, guarded("eve | docker.io/** !docker.io/library/secret | pull"), func(_ *world, s *settings) {
		guard := s.revision
		s.revision = func(r *proxy.Revision) { r.DefaultUpstream = "docker.io"; guard(r) }
	})
	image := lying.Image("secret")
	w.hub.PushSigned("library/secret", image, w.key, "v1")
	for _, path := range []string{
		"/v2/secret/manifests/v1", "/v2/library/secret/manifests/v1", "/v2/docker.io/secret/manifests/v1",
		"/v2/docker.io/library/secret/manifests/v1", "/v2/index.docker.io/secret/manifests/v1",
		"/v2/registry-1.docker.io/library/secret/manifests/v1", "/v2/secret/manifests/v1?ns=docker.io",
		"/v2/library/secret/manifests/v1?ns=index.docker.io", "/v2/secret/manifests/" + image.Digest().String(),
	} {
		a := w.get(path, as("eve")...)
		refused(t, a, http.StatusForbidden, "DENIED", "")
		if message := fault(t, a).Errors[0].Message; message != "eve may not pull from docker.io/library/secret" {
			t.Errorf("%s: %s", path, message)
		}
	}
	asked(t, w.hub)
}

// TestTheRecordNamesTheCaller looks at what is kept of a decision and a request,
// and that no password is among it.
func TestTheRecordNamesTheCaller(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	w.up.PushSigned("acme/web", lying.Image("web"), w.key, "v1")
	w.up.Push("acme/web", lying.Image("unsigned"), "unsigned")
	w.get(manifestPath(web, "v1"), as("puller")...)
	denied := w.get(manifestPath(web, "unsigned"), as("puller")...)
	w.get(manifestPath(web, "v1"), basic("puller", secretOf("nobody"))...)
	found := false
	for _, r := range w.records.list() {
		if r.Caller != "puller" || r.Client != "127.0.0.1" {
			t.Errorf("%+v", r)
		}
		q := proxy.Query{Client: "puller"}
		found = found || r.Decision == "denied" && q.Matches(r)
	}
	if !found {
		t.Error("the denial is not found by the caller's name")
	}
	if requests := w.logged("request"); len(requests) != 3 || requests[0]["caller"] != "puller" || requests[2]["caller"] != "anonymous" {
		t.Errorf("%v", requests)
	}
	for name, text := range map[string]string{"log": w.log.String(), "records": fmt.Sprintf("%+v", w.records.list()), "answer": string(denied.body)} {
		for _, secret := range []string{"c4nary", as("puller")[1][len("Basic "):], "$2a$"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds %s: %s", name, secret, text)
			}
		}
	}
}

func TestWithoutAccessNothingIsSaidOfCallers(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1"), basic("whoever", "whatever")...), image)
	for _, r := range w.records.list() {
		if r.Caller != "" || r.Access != "" {
			t.Errorf("%+v", r)
		}
	}
	if _, ok := w.logged("request")[0]["caller"]; ok {
		t.Error("the access log names a caller")
	}
}

// TestAccessIsNoVouching: who may pull everything still gets only what holds.
func TestAccessIsNoVouching(t *testing.T) {
	w := newWorld(t, guarded("ci | ** | pull push delete"))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	refused(t, w.get(manifestPath(web, "v1"), as("ci")...), http.StatusForbidden, "DENIED", policy.ReasonUnsigned)
	refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[0])), as("ci")...), http.StatusNotFound, "BLOB_UNKNOWN", "")
}
