package proxy_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/policy"
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

// put pushes a manifest whose blobs the upstream has.
func (w *world) put(repository, reference string, content lying.Content, headers ...string) answer {
	w.t.Helper()
	for _, blob := range content.Blobs {
		w.up.PutBlob(strings.TrimPrefix(repository, "ghcr.io/"), lying.Digest(blob).String(), blob)
	}
	return w.send("PUT", manifestPath(repository, reference), bytes.NewReader(content.Body), append(headers, "Content-Type", content.MediaType)...)
}

// Who may sign adds evidence, and changes no image's tag: not that which a copy by
// digest leaves either.
func TestEvidenceTakesNoImagesPlace(t *testing.T) {
	w := newWorld(t, pushable, guarded(oneForEachRight...))
	image := lying.Image("copied by digest")
	w.up.Push("acme/web", image, "v1", lying.FallbackTag(image.Digest()), lying.FallbackTag(image.Digest())+".sbom")
	document := func(text string) lying.Content {
		return lying.Artifact("application/spdx+json", image.Descriptor(), lying.Layer{MediaType: "application/spdx+json", Data: []byte(text)})
	}
	for _, suffix := range []string{"", ".sbom"} {
		reference := lying.FallbackTag(image.Digest()) + suffix
		refused(t, w.put(web, reference, document("{}"), as("signer")...), 409, "DENIED", "")
		if body, _, _ := w.up.Manifest("acme/web", reference); !bytes.Equal(body, image.Body) {
			t.Errorf("%s names something else", reference)
		}
		w.up.DeleteTag("acme/web", reference)
		for _, text := range []string{"{}", "[]"} { // where there is none, and where there is one
			if a := w.put(web, reference, document(text), as("signer")...); a.status != 201 {
				t.Errorf("%s: %d %s", reference, a.status, a.body)
			}
		}
	}
	refused(t, w.put(web, "v1", document("{}"), as("signer")...), 403, "DENIED", "")
	refused(t, w.put(web, image.Digest().String(), image, as("signer")...), 403, "DENIED", "")
}

// D5: an upload is for who began it and may still push, in its repository, with the
// right to push and no other; and what was stored is not gone on with.
func TestD5AnUploadIsNobodyElses(t *testing.T) {
	allowed := []string{"alice bob | ghcr.io/open/** | pull push", "puller | ghcr.io/open/** | pull inspect delete", "carol | ghcr.io/acme/** | push"}
	w := newWorld(t, pushable, guarded(allowed...))
	content := []byte("uploaded by alice")
	at := w.goesOn(w.send("POST", uploads, nil, as("alice")...), 202, 0)
	first := at
	at = w.goesOn(w.send("PATCH", at, bytes.NewReader(content), as("alice")...), 202, len(content))
	session := strings.TrimPrefix(at, uploads)
	w.up.Forget()
	for _, test := range []struct {
		name, user, path string
		status           int
	}{
		{"another who may push", "bob", at, 404},
		{"who may pull alone", "puller", at, 403},
		{"who may push elsewhere", "carol", at, 403},
		{"who may push elsewhere, there", "carol", "/v2/" + web + "/blobs/uploads/" + session, 404},
		{"nobody", "", at, 401},
		{"another repository", "alice", "/v2/ghcr.io/open/other/blobs/uploads/" + session, 404},
		{"another upstream", "alice", "/v2/open/web/blobs/uploads/" + session + "?ns=docker.io", 403},
		{"cut short", "alice", at[:len(at)-8], 404},
		{"none", "alice", uploads + strings.Repeat("A", 400), 404},
		{"too long", "alice", uploads + strings.Repeat("A", 32<<10), 404},
		{"not base64", "alice", uploads + "!*", 404},
	} {
		for _, method := range []string{"PATCH", "PUT", "GET", "DELETE"} {
			path := test.path
			if method == "PUT" && !strings.Contains(path, "?") {
				path = withDigest(path, lying.Digest(content))
			}
			if a := w.send(method, path, nil, as(test.user)...); a.status != test.status {
				t.Errorf("%s by %s: %d %s, want %d", method, test.name, a.status, a.body, test.status)
			}
		}
	}
	asked(t, w.up)
	// an earlier one is no shorter blob, nor the later one after the commit
	if a := w.send("PUT", withDigest(first, lying.Digest(nil)), nil, as("alice")...); a.status == 201 {
		if held, ok := w.up.Blob("open/web", lying.Digest(nil)); !ok || len(held) != 0 {
			t.Error("it is stored as something that it is not")
		}
	}
	w.send("PUT", withDigest(at, lying.Digest(content)), nil, as("alice")...)
	for range 2 {
		if a := w.send("PATCH", at, strings.NewReader("more"), as("alice")...); a.status != 404 {
			t.Errorf("after the commit: %d %s", a.status, a.body)
		}
	}
	// rights that are taken away count at once
	at = w.goesOn(w.send("POST", uploads, nil, as("alice")...), 202, 0)
	w.use("two", func(s *settings) { s.revision = guardedBy(t, "alice | ghcr.io/open/** | pull") })
	w.up.Forget()
	refused(t, w.send("PATCH", at, strings.NewReader("x"), as("alice")...), 403, "DENIED", "")
	asked(t, w.up)
}

// Who is let in unknown, be it by an access list, is not made to push by a web page: not
// from its own origin, and not by a name that its owner lets lead here. Who has logged in
// is asked for nothing of the kind, for no page knows the password.
func TestWhoIsNotLoggedInIsNotMadeToPush(t *testing.T) {
	signs := func(_ *world, s *settings) {
		for i := range s.policies {
			if s.policies[i].Name == "acme" {
				s.policies[i].Push = &policy.Push{Sign: "release"}
			}
		}
	}
	image := lying.Image("pushed by a web page")
	for _, test := range []struct {
		name, user, repository string
		headers                []string
		status                 int
	}{
		{"from a web page", "", "ghcr.io/open/web", []string{"Origin", "http://evil.example"}, 403},
		{"from a web page, signed", "", web, []string{"Origin", "http://127.0.0.1"}, 403},
		{"by another name, signed", "", web, []string{"Host", "evil.example:5080"}, 403},
		{"by another name", "", "ghcr.io/open/web", []string{"Host", "registry.example"}, 201},
		{"here", "", "ghcr.io/open/web", nil, 201},
		{"here, signed", "", web, nil, 503}, // but for the key, which there is none of
		{"by another name, logged in", "alice", web, []string{"Host", "registry.example"}, 503},
		{"from a web page, logged in", "alice", "ghcr.io/open/web", []string{"Origin", "http://ui.example"}, 201},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, pushable, signs, guarded("anonymous | ghcr.io/** | pull push", "alice | ghcr.io/** | push"))
			a := w.put(test.repository, "v1", image, append(as(test.user), test.headers...)...)
			if a.status != test.status {
				t.Errorf("%d %s", a.status, a.body)
			}
			if tags := w.up.Tags(strings.TrimPrefix(test.repository, "ghcr.io/")); (len(tags) == 1) != (test.status == 201) {
				t.Errorf("the tags are %q", tags)
			}
		})
	}
}

// Who may sign reads what he puts as evidence; but not what he only puts beside it, where
// its config belongs: the config of an image that says nothing of how it is run, or any
// other document.
func TestEvidenceOfASignersOwnIsNoKeyToConfigs(t *testing.T) {
	for name, config := range map[string]string{
		"an image's":                `{"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"]},"history":[{"created_by":"RUN --token=s3cret"}]}`,
		"an image's without layers": `{"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"RUN --token=s3cret"}]}`,
		"a chart's":                 `{"name":"chart","description":"s3cret"}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pushable, guarded(oneForEachRight...))
			secret := lying.Layer{MediaType: "application/vnd.oci.image.config.v1+json", Data: []byte(config)}
			image := lying.ImageManifest{Config: secret}.Build()
			w.up.Push("acme/web", image, "v1")
			own := lying.Signatures(lying.Signature(w.foreign, lying.Payload("", image.Digest(), nil)))
			beside := lying.ImageManifest{Config: secret, Layers: []lying.Layer{lying.Signature(w.foreign, lying.Payload("", image.Digest(), nil))}}.Build()
			for _, evidence := range []lying.Content{own, beside} {
				if a := w.put(web, evidence.Digest().String(), evidence, as("signer")...); a.status != 201 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				served(t, w.get(byDigest(web, evidence), as("signer")...), evidence)
			}
			for _, blob := range own.Blobs { // cosign reads the config to write another
				servedBlob(t, w.get(blobPath(web, lying.Digest(blob)), as("signer")...), blob)
			}
			refused(t, w.get(blobPath(web, lying.Digest(secret.Data)), as("signer")...), 404, "BLOB_UNKNOWN", "")
		})
	}
}
