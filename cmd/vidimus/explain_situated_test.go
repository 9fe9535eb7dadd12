package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/signer"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// situated is a registry with one image, acme/web:v1, and keys to sign it with: those of
// authorities release and ci, ended (of authority retired, until 2020), and stranger.
type situated struct {
	t           *testing.T
	host        string
	digest      string // of the image
	image       v1.Image
	golden      string // the directory of golden files
	authorities string // YAML
	keys        map[string]crypto.Signer
	names       []string // alternating: what stands in an output, and what it is called there
	refuse      atomic.Pointer[func(path string) int]
}

func newSituated(t *testing.T) *situated {
	t.Helper()
	golden, err := filepath.Abs("testdata/explain")
	if err != nil {
		t.Fatal(err)
	}
	if from := os.Getenv("VIDIMUS_TEST_GOLDEN"); from != "" {
		golden = from
	} else {
		t.Setenv("VIDIMUS_TEST_GOLDEN", golden)
	}
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "")
	w := &situated{t: t, golden: golden, keys: make(map[string]crypto.Signer)}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if refuse := w.refuse.Load(); refuse != nil {
			if status := (*refuse)(r.URL.Path); status != 0 {
				rw.WriteHeader(status)
				return
			}
		}
		inner.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.host = strings.TrimPrefix(server.URL, "http://")
	w.called(w.host, "REGISTRY")
	w.image, err = mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer([]byte("web"), types.OCILayer)})
	w.check(err)
	w.push("v1", w.image)
	digest, err := w.image.Digest()
	w.check(err)
	w.digest = digest.String()
	w.called(digest.Hex, "<image>")
	for _, name := range []string{"release", "ci", "ended", "stranger"} {
		w.key(name)
	}
	w.authorities = "  release: {keys: [release.pub]}\n  ci: {keys: [ci.pub]}\n  retired: {keys: [{key: ended.pub, until: 2020-01-01}]}\n"
	writeFile(t, "image.rego", "package vidimus\n\nimport rego.v1\n\ndeny contains \"it is not Tuesday\" if true\n")
	writeFile(t, "attested.rego", "package vidimus\n\nimport rego.v1\n\ndeny contains \"it is bad\" if input.predicate.bad\n")
	return w
}

func (w *situated) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// called gives something that differs at each run a name in golden files.
func (w *situated) called(text, name string) { w.names = append(w.names, text, name) }

func (w *situated) key(name string) {
	w.t.Helper()
	key := generateKey(w.t)
	w.keys[name] = key
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	w.check(err)
	writeFile(w.t, name+".pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	known, err := verifier.NewKey(key.Public())
	w.check(err)
	id := known.ID()
	w.called(id, "<"+name+">")
	w.called(id[:12], "<"+name+">")
	w.called(id[:8]+"…", "<"+name+">")
}

// use makes a key the one that commands call cosign.key.
func (w *situated) use(name string) {
	w.t.Helper()
	private, err := signer.EncodePrivateKey(w.keys[name], nil)
	w.check(err)
	writeFile(w.t, "cosign.key", string(private))
}

func (w *situated) configure(more string) {
	w.t.Helper()
	text := "version: 1\nupstreams: {local: {url: \"http://" + w.host + "\"}}\nauthorities:\n" + w.authorities
	for authority, workflow := range map[string]string{"right": "release.yml", "workflow": "deploy.yml"} {
		if strings.Contains(more, "require: "+authority) {
			text += "  " + authority + ": {github: {repository: acme/web, workflow: " + workflow + ", ref: \"refs/tags/v*\"}}\n"
		}
	}
	writeFile(w.t, "vidimus.yaml", text+strings.ReplaceAll(more, "$IMAGE", w.digest))
}

func (w *situated) reference(tag string) name.Tag {
	w.t.Helper()
	reference, err := name.NewTag(w.host+"/acme/web:"+tag, name.Insecure)
	w.check(err)
	return reference
}

func (w *situated) push(tag string, image v1.Image) { w.check(remote.Write(w.reference(tag), image)) }

func (w *situated) signatureTag() string { return strings.Replace(w.digest, ":", "-", 1) + ".sig" }

// layer is a signature over bytes.
func (w *situated) layer(key crypto.Signer, payload []byte) mutate.Addendum {
	w.t.Helper()
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key.(*ecdsa.PrivateKey), sum[:])
	w.check(err)
	return mutate.Addendum{
		Layer:       static.NewLayer(payload, envelope.MediaTypeSimpleSigning),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	}
}

func (w *situated) pushSignatures(layers ...mutate.Addendum) {
	w.t.Helper()
	image, err := mutate.Append(empty.Image, layers...)
	w.check(err)
	w.push(w.signatureTag(), image)
}

func (w *situated) signBytes(key, payload string) {
	w.pushSignatures(w.layer(w.keys[key], []byte(payload)))
}

// strangers signs with so many keys of nobody.
func (w *situated) strangers(n int) {
	w.t.Helper()
	payload, err := envelope.EncodePayload(envelope.Payload{Digest: w.digest})
	w.check(err)
	layers := make([]mutate.Addendum, n)
	for i := range layers {
		layers[i] = w.layer(w.keys["stranger"], payload)
	}
	w.pushSignatures(layers...)
}

// transplant puts another image's signature beside the image.
func (w *situated) transplant() {
	other := strings.Repeat("ab", 32)
	payload, err := envelope.EncodePayload(envelope.Payload{Reference: w.host + "/acme/web", Digest: "sha256:" + other})
	w.check(err)
	w.called(other, "<other>")
	w.pushSignatures(w.layer(w.keys["release"], payload))
}

// attest puts an attestation at the tag for them.
func (w *situated) attest(key, kind, predicate string) {
	w.t.Helper()
	predicateType, err := envelope.PredicateType(kind)
	w.check(err)
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
		strings.TrimPrefix(w.digest, "sha256:"), predicateType, predicate)
	const payloadType = "application/vnd.in-toto+json"
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	signature, err := w.keys[key].Sign(rand.Reader, sum[:], crypto.SHA256)
	w.check(err)
	encoded, err := envelope.EncodeEnvelope(envelope.Envelope{Statement: statement, Signatures: []envelope.EnvelopeSignature{{Signature: signature}}})
	w.check(err)
	image, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(encoded, envelope.MediaTypeDSSE)})
	w.check(err)
	w.push(strings.Replace(w.digest, ":", "-", 1)+".att", image)
}

// certify signs the image with a certificate; root.json proves it.
func (w *situated) certify() {
	w.t.Helper()
	c := certifyImage(w.t, w.host+"/acme/web", w.image)
	w.check(os.Rename(c.timestamped, "root.json.new"))
	w.check(os.Rename("root.json.new", "root.json"))
}

// index lists the image in a signed index.
func (w *situated) index() {
	w.t.Helper()
	other, err := random.Image(16, 1)
	w.check(err)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: w.image}, mutate.IndexAddendum{Add: other})
	w.check(remote.WriteIndex(w.reference("index"), index))
	digest, err := index.Digest()
	w.check(err)
	w.called(digest.Hex, "<index>")
	own := w.digest
	w.digest = digest.String()
	w.sign("release", w.host+"/acme/web", nil)
	w.digest = own
}

// answer makes the registry answer a status for paths that end so.
func (w *situated) answer(suffix string, status int) {
	refuse := func(path string) int {
		if strings.HasSuffix(path, suffix) {
			return status
		}
		return 0
	}
	w.refuse.Store(&refuse)
}

// sign puts a signature beside the image, under a name.
func (w *situated) sign(key, name string, annotations map[string]any) {
	w.t.Helper()
	payload, err := envelope.EncodePayload(envelope.Payload{Reference: name, Digest: w.digest, Annotations: annotations})
	w.check(err)
	w.pushSignatures(w.layer(w.keys[key], payload))
}

var (
	momentPattern = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	dayPattern    = regexp.MustCompile(`until: 20[2-9]\d-\d\d-\d\d, reason`)
	idPattern     = regexp.MustCompile(`\[id [0-9a-f]{16}\]`)
	digestPattern = regexp.MustCompile(`[0-9a-f]{64}`)
)

// plain is an output with what differs at each run called by name.
func (w *situated) plain(text string) string {
	text = strings.NewReplacer(w.names...).Replace(text)
	text = momentPattern.ReplaceAllString(text, "<moment>")
	text = dayPattern.ReplaceAllString(text, "until: <day>, reason")
	text = idPattern.ReplaceAllString(text, "[id <id>]")
	others := 0
	known := make(map[string]string)
	return digestPattern.ReplaceAllStringFunc(text, func(digest string) string {
		if _, err := hex.DecodeString(digest); err != nil {
			return digest
		}
		if known[digest] == "" {
			others++
			known[digest] = fmt.Sprintf("<digest %d>", others)
		}
		return known[digest]
	})
}
