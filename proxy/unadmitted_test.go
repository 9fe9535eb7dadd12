package proxy_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
)

// TestWhoReadsWhatIsNotAdmitted asks for an image that nobody has signed, and
// for evidence about it by a foreign key, under each right.
func TestWhoReadsWhatIsNotAdmitted(t *testing.T) {
	w := newWorld(t, guarded(append(oneForEachRight, "both | ghcr.io/acme/** | pull sign")...))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	signature := w.up.Sign("acme/web", image.Digest(), w.foreign)
	signatureTag := manifestPath(web, tag(image.Digest()))
	layer := blobPath(web, lying.Digest(image.Blobs[0]))
	payload := blobPath(web, lying.Digest(signature.Blobs[1]))

	for _, user := range []string{"puller", "pusher", "deleter"} {
		for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image), signatureTag} {
			if a := w.get(path, as(user)...); a.status != http.StatusForbidden {
				t.Errorf("%s reads %s: %d", user, path, a.status)
			}
		}
	}
	for _, user := range []string{"signer", "inspector", "both"} {
		for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
			a := w.get(path, as(user)...)
			served(t, a, image)
			if warning := strings.Join(a.header.Values("Warning"), "\n"); !strings.Contains(warning, "not admitted, and served because "+user) {
				t.Errorf("%s is not warned: %s", user, warning)
			}
		}
		served(t, w.get(signatureTag, as(user)...), signature)
		servedBlob(t, w.get(payload, as(user)...), signature.Blobs[1])
	}
	// the parts of the image are for who may inspect alone
	servedBlob(t, w.get(layer, as("inspector")...), image.Blobs[0])
	for _, user := range []string{"signer", "both", "puller"} {
		refused(t, w.get(layer, as(user)...), http.StatusNotFound, "BLOB_UNKNOWN", "")
	}
	// and nobody's reading admits anything for others
	for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image), signatureTag} {
		if a := w.get(path, as("puller")...); a.status != http.StatusForbidden {
			t.Errorf("puller reads %s afterwards: %d", path, a.status)
		}
	}
	for _, path := range []string{layer, payload} {
		refused(t, w.get(path, as("puller")...), http.StatusNotFound, "BLOB_UNKNOWN", "")
	}
	if a := w.get("/v2/_catalog", as("puller")...); strings.Contains(string(a.body), "acme/web") {
		t.Errorf("the catalog lists what was only inspected: %s", a.body)
	}
}

// TestWhoMayPushLooksAtHeaders is what clients do before they push.
func TestWhoMayPushLooksAtHeaders(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	manifest := w.head(manifestPath(web, "v1"), as("pusher")...)
	if manifest.status != http.StatusOK || manifest.header.Get("Docker-Content-Digest") != image.Digest().String() {
		t.Errorf("manifest: %d %v", manifest.status, manifest.header)
	}
	blob := w.head(blobPath(web, lying.Digest(image.Blobs[0])), as("pusher")...)
	if blob.status != http.StatusOK || blob.header.Get("Content-Length") != strconv.Itoa(len(image.Blobs[0])) {
		t.Errorf("blob: %d %v", blob.status, blob.header)
	}
	// and no content is asked for, nor is anything asked twice
	asked := w.up.Requests(lying.Blob("acme/web", lying.Digest(image.Blobs[0])))
	if len(asked) != 1 || asked[0].Method != http.MethodHead {
		t.Errorf("the upstream was asked %v", asked)
	}
	if a := w.head(blobPath(web, lying.Digest([]byte("absent"))), as("pusher")...); a.status != http.StatusNotFound {
		t.Errorf("a blob that is not there: %d", a.status)
	}
	if a := w.head(manifestPath(web, "v1"), as("puller")...); a.status != http.StatusForbidden {
		t.Errorf("puller: %d", a.status)
	}
}

// TestASizeThatHEADDoesNotTell is asked for with GET: who pushes wants to see it.
func TestASizeThatHEADDoesNotTell(t *testing.T) {
	for name, lie := range map[string]lying.Fault{"none": lying.Chunked(), "nothing": lying.Length(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, guarded(oneForEachRight...))
			image := lying.Image("unsigned")
			w.up.Push("acme/web", image, "v1")
			blob := blobPath(web, lying.Digest(image.Blobs[0]))
			w.up.Lie(lying.Blob("acme/web", lying.Digest(image.Blobs[0])).HEAD(), lie)
			a := w.head(blob, as("pusher")...)
			if a.status != http.StatusOK || a.header.Get("Content-Length") != strconv.Itoa(len(image.Blobs[0])) {
				t.Errorf("%d %v", a.status, a.header)
			}
			servedBlob(t, w.get(blob, as("inspector")...), image.Blobs[0])
		})
	}
}

// TestInspectingIsNoSideDoor: what the right to inspect lets through is hashed,
// and what is revoked or denied elsewhere stays so.
func TestInspectingIsNoSideDoor(t *testing.T) {
	image, other := lying.Image("revoked"), lying.Image("elsewhere")
	w := newWorld(t, guarded("inspector | ghcr.io/acme/** | inspect sign"), func(_ *world, s *settings) {
		s.revoked = []v1.Hash{image.Digest(), lying.Digest(other.Blobs[1])}
	})
	w.up.Push("acme/web", image, "v1")
	w.up.Push("acme/web", other, "v2")
	w.up.Push("open/x", lying.Image("open"), "v1")
	for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
		refused(t, w.get(path, as("inspector")...), http.StatusForbidden, "DENIED", policy.ReasonRevoked)
	}
	refused(t, w.get("/v2/"+web+"/referrers/"+image.Digest().String(), as("inspector")...), http.StatusForbidden, "DENIED", policy.ReasonRevoked)
	if a := w.get(blobPath(web, lying.Digest(other.Blobs[1])), as("inspector")...); a.status == http.StatusOK {
		t.Error("a revoked blob is served")
	}
	refused(t, w.get(manifestPath("ghcr.io/open/x", "v1"), as("inspector")...), http.StatusForbidden, "DENIED", "")
	// bytes that are not what was asked for
	config := lying.Digest(other.Blobs[0])
	w.up.Lie(lying.Blob("", config), lying.FlipByte(3))
	neverWhole(t, w.get(blobPath(web, config), as("inspector")...))
	w.up.BeHonest()
	servedBlob(t, w.get(blobPath(web, config), as("inspector")...), other.Blobs[0])
	part := w.get(blobPath(web, config), append(as("inspector"), "Range", "bytes=1-3")...)
	if part.status != http.StatusPartialContent || string(part.body) != string(other.Blobs[0][1:4]) {
		t.Errorf("a range: %d %q", part.status, part.body)
	}
	w.up.Lie(lying.Manifest("", other.Digest().String()), lying.FlipByte(30))
	neverWhole(t, w.get(byDigest(web, other), as("inspector")...))
}

// TestABlobOfAnotherRepositoryIsNotInspected: the store holds it, but this
// repository's upstream does not.
func TestABlobOfAnotherRepositoryIsNotInspected(t *testing.T) {
	w := newWorld(t, guarded("inspector | ghcr.io/** !ghcr.io/acme/secret | inspect", "insider | ghcr.io/** | inspect"))
	secret := lying.Image("secret")
	w.up.Push("acme/secret", secret, "v1")
	w.up.Push("acme/web", lying.Image("web"), "v1")
	config := lying.Digest(secret.Blobs[0])
	servedBlob(t, w.get(blobPath("ghcr.io/acme/secret", config), as("insider")...), secret.Blobs[0])
	refused(t, w.get(blobPath(web, config), as("inspector")...), http.StatusNotFound, "BLOB_UNKNOWN", "")
	refused(t, w.get(byDigest(web, secret), as("inspector")...), http.StatusNotFound, "MANIFEST_UNKNOWN", "")
	refused(t, w.get(blobPath(web, config), append(as("inspector"), "Range", "bytes=999999-")...), http.StatusNotFound, "BLOB_UNKNOWN", "") // not even its size
	if a := w.head(blobPath(web, config), as("inspector")...); a.status != http.StatusNotFound {
		t.Errorf("HEAD: %d", a.status)
	}
}

// TestASignerReadsNoImage: not even one that others may pull.
func TestASignerReadsNoImage(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	config := blobPath(web, lying.Digest(image.Blobs[0]))
	for _, user := range []string{"signer", "puller", "signer"} {
		served(t, w.get(manifestPath(web, "v1"), as(user)...), image)
		if a := w.get(config, as(user)...); (a.status == http.StatusOK) != (user == "puller") {
			t.Errorf("%s: %d", user, a.status)
		}
	}
	// but what vouches for it
	signature := w.get(manifestPath(web, tag(image.Digest())), as("signer")...)
	if signature.status != http.StatusOK {
		t.Fatalf("%d %s", signature.status, signature.body)
	}
	var parsed struct{ Layers []v1.Descriptor }
	if err := json.Unmarshal(signature.body, &parsed); err != nil || len(parsed.Layers) != 1 {
		t.Fatal(err)
	}
	if a := w.get(blobPath(web, parsed.Layers[0].Digest), as("signer")...); a.status != http.StatusOK {
		t.Errorf("the payload: %d %s", a.status, a.body)
	}
}

// TestWhatMerelyLooksLikeEvidenceGivesASignerNothing: an image whose layers are
// called signatures.
func TestWhatMerelyLooksLikeEvidenceGivesASignerNothing(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	disguised := lying.Signatures(lying.Layer{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Data: []byte("a layer of an image")})
	w.up.Push("acme/web", disguised, tag(image.Digest()), "v2")
	for _, path := range []string{manifestPath(web, "v2"), manifestPath(web, tag(image.Digest()))} {
		served(t, w.get(path, as("signer")...), disguised)
	}
	refused(t, w.get(blobPath(web, lying.Digest(disguised.Blobs[1])), as("signer")...), http.StatusNotFound, "BLOB_UNKNOWN", "")
}

// TestTheRecordTellsWhatWasReadUnadmitted: one record for each caller and
// reference, which says so; and where it cannot be written, nothing is read.
func TestTheRecordTellsWhatWasReadUnadmitted(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...), func(_ *world, s *settings) { s.requireRecord = true })
	w.up.Push("acme/web", lying.Image("unsigned"), "v1")
	for range 3 {
		w.get(manifestPath(web, "v1"), as("inspector")...)
		w.get(manifestPath(web, "v1"), as("signer")...)
	}
	var seen []string
	for _, r := range w.records.list() {
		if r.Decision != "denied" || r.Reason != policy.ReasonUnsigned || r.Served != (r.Access != "") {
			t.Errorf("%+v", r)
		}
		seen = append(seen, r.Caller+" "+r.Access)
	}
	slices.Sort(seen)
	if got := strings.Join(seen, ", "); got != "inspector , inspector inspect, signer sign" {
		t.Errorf("records: %s", got)
	}
	w.use("two", func(*settings) {})
	w.records.breakWith(http.ErrBodyNotAllowed)
	refused(t, w.get(manifestPath(web, "v1"), as("inspector")...), http.StatusServiceUnavailable, "UNAVAILABLE", policy.ReasonInconclusive)
}

// TestASignerReadsWhatCannotBeDecided: an upstream whose signatures cannot be
// read must not keep others from being made.
func TestASignerReadsWhatCannotBeDecided(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	w.up.Lie(lying.Manifest("", tag(image.Digest())), lying.Status(http.StatusInternalServerError))
	refused(t, w.get(manifestPath(web, "v1"), as("puller")...), http.StatusServiceUnavailable, "UNAVAILABLE", policy.ReasonInconclusive)
	served(t, w.get(manifestPath(web, "v1"), as("signer")...), image)
}

// TestReferrersOfWhatIsNotAdmitted is how evidence is found that is to be added to.
func TestReferrersOfWhatIsNotAdmitted(t *testing.T) {
	w := newWorld(t, guarded(oneForEachRight...))
	image := lying.Image("unsigned")
	w.up.Push("acme/web", image, "v1")
	bundle := w.up.SignBundle("acme/web", image, w.foreign)
	path := "/v2/" + web + "/referrers/" + image.Digest().String()
	refused(t, w.get(path, as("puller")...), http.StatusForbidden, "DENIED", policy.ReasonUntrusted)
	for _, user := range []string{"signer", "inspector"} {
		if a := w.get(path, as(user)...); a.status != http.StatusOK || !strings.Contains(string(a.body), bundle.Digest().String()) {
			t.Errorf("%s: %d %s", user, a.status, a.body)
		}
		served(t, w.get(byDigest(web, bundle), as(user)...), bundle)
		servedBlob(t, w.get(blobPath(web, lying.Digest(bundle.Blobs[len(bundle.Blobs)-1])), as(user)...), bundle.Blobs[len(bundle.Blobs)-1])
	}
}

// TestTagsOfARepositoryThatThePolicyDenies: who may inspect finds what is there.
func TestTagsOfARepositoryThatThePolicyDenies(t *testing.T) {
	w := newWorld(t, guarded("inspector | ghcr.io/** | inspect", "puller | ghcr.io/** | pull"))
	w.up.Push("old/web", lying.Image("old"), "v1")
	refused(t, w.get("/v2/ghcr.io/old/web/tags/list", as("puller")...), http.StatusForbidden, "DENIED", policy.ReasonPolicyDeny)
	if a := w.get("/v2/ghcr.io/old/web/tags/list", as("inspector")...); a.status != http.StatusOK || !strings.Contains(string(a.body), `"v1"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
