package policy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// world is a registry in memory and people with keys. What it holds is signed
// and verified for real.
type world struct {
	t    testing.TB
	keys map[string]*ecdsa.PrivateKey

	mu      sync.Mutex        // a read may end after the decision that it was for
	content map[string][]byte // repository/tag and repository@digest
	reads   int
	failure func(reference string) error // what a read fails with, if it does
}

var testKeys = sync.OnceValue(func() map[string]*ecdsa.PrivateKey {
	keys := make(map[string]*ecdsa.PrivateKey)
	for _, name := range []string{"release", "ci", "vendor", "dev", "stranger"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	return keys
})

func newWorld(t testing.TB) *world {
	return &world{t: t, keys: testKeys(), content: make(map[string][]byte)}
}

// authorities are release, ci, vendor and dev, with a key each; the stranger's
// key is nobody's.
func (w *world) authorities() []verifier.Authority {
	var list []verifier.Authority
	for _, name := range []string{"release", "ci", "vendor", "dev"} {
		list = append(list, verifier.Authority{Name: name, Keys: []verifier.Key{w.key(name)}})
	}
	return list
}

func (w *world) key(name string) verifier.Key {
	w.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(w.keys[name].Public())
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := verifier.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

const web = "ghcr.io/acme/web"

var (
	image      = digestOf([]byte("an image"))
	otherImage = digestOf([]byte("another image"))
)

// signature makes one signature of a table's words: who signs and then, in any
// order,
//
//	@NAME   the name that it claims (default: ghcr.io/acme/web); "@" none
//	+K=V    an annotation, of JSON when V is
//	#other  about another image
//	!bad    not a payload at all
//	~broken a signature that is not over these bytes
func (w *world) signature(words string) (payload, signature []byte) {
	w.t.Helper()
	fields := strings.Split(words, " ")
	signer := fields[0]
	name, digest, annotations, broken := web, image, map[string]any(nil), false
	for _, f := range fields[1:] {
		switch f[0] {
		case '@':
			name = f[1:]
		case '+':
			key, value, _ := strings.Cut(f[1:], "=")
			var decoded any = value
			if json.Valid([]byte(value)) {
				decoded = json.RawMessage(value)
			}
			if annotations == nil {
				annotations = make(map[string]any)
			}
			annotations[key] = decoded
		case '#':
			digest = otherImage
		case '!':
			payload = []byte(`{"critical":{},"Critical":{}}`)
		case '~':
			broken = true
		default:
			w.t.Fatalf("%q in %q is no word of the tables", f, words)
		}
	}
	if payload == nil {
		payload = w.payload(name, digest, annotations)
	}
	sum := sha256.Sum256(payload)
	if broken {
		sum[0]++
	}
	signature, err := w.keys[signer].Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		w.t.Fatal(err)
	}
	return payload, signature
}

func (w *world) payload(name string, digest v1.Hash, annotations map[string]any) []byte {
	w.t.Helper()
	return w.marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": name},
			"image":    map[string]any{"docker-manifest-digest": digest.String()},
			"type":     "cosign container image signature",
		},
		"optional": annotations,
	})
}

// sign puts signatures for image into repository, replacing those before.
func (w *world) sign(repository string, signatures ...string) {
	w.t.Helper()
	layers := []any{}
	for _, words := range signatures {
		payload, signature := w.signature(words)
		layers = append(layers, w.layer(repository, payload, signature))
	}
	w.attach(repository, layers)
}

// signPayload is sign for one signature, of text that words cannot spell.
func (w *world) signPayload(repository, signer, name string, env any) {
	w.t.Helper()
	payload := w.payload(name, image, map[string]any{"env": env})
	sum := sha256.Sum256(payload)
	signature, err := w.keys[signer].Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		w.t.Fatal(err)
	}
	w.attach(repository, []any{w.layer(repository, payload, signature)})
}

// layer stores a payload and returns the descriptor that goes with it.
func (w *world) layer(repository string, payload, signature []byte) any {
	digest := digestOf(payload)
	w.put(repository+"@"+digest.String(), payload)
	return map[string]any{
		"mediaType":   "application/vnd.dev.cosign.simplesigning.v1+json",
		"digest":      digest.String(),
		"size":        len(payload),
		"annotations": map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	}
}

func (w *world) attach(repository string, layers []any) {
	w.t.Helper()
	w.put(repository+"/"+sigTag, w.marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digestOf([]byte("{}")).String(), "size": 2},
		"layers":        layers,
	}))
}

func (w *world) put(reference string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content[reference] = data
}

// failWith makes reads fail; nil ends that.
func (w *world) failWith(failure func(reference string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = failure
}

var sigTag = "sha256-" + image.Hex + ".sig"

func (w *world) marshal(value any) []byte {
	w.t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

var _ verifier.Registry = (*world)(nil)

func (w *world) Manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	return w.read(ctx, repository+"/"+reference)
}

func (w *world) Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	data, err := w.read(ctx, repository+"/referrers/"+digest.String())
	if err != nil {
		return nil, err
	}
	var list v1.IndexManifest
	err = json.Unmarshal(data, &list)
	return list.Manifests, err
}

func (w *world) Blob(ctx context.Context, repository string, desc v1.Descriptor) ([]byte, error) {
	return w.read(ctx, repository+"@"+desc.Digest.String())
}

func (w *world) read(ctx context.Context, reference string) ([]byte, error) {
	w.mu.Lock()
	w.reads++
	failure := w.failure
	data, ok := w.content[reference]
	w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if failure != nil {
		if err := failure(reference); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", reference, fs.ErrNotExist)
	}
	return data, nil
}

// evaluator makes one for policies under a ceiling, with the world's
// authorities.
func (w *world) evaluator(config Config, options Options) *Evaluator {
	w.t.Helper()
	if config.Authorities == nil {
		config.Authorities = w.authorities()
	}
	set, err := New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return NewEvaluator(set, verifier.Sources(), options)
}

// subject is image as ghcr.io/acme/web:v1.
func subject() Subject { return Subject{Repository: web, Tag: "v1", Digest: image} }

func allow(t *testing.T, e *Evaluator, w *world, s Subject) Decision {
	t.Helper()
	d, err := e.Evaluate(t.Context(), w, s)
	if err != nil || !d.Allowed || d.Reason != "" {
		t.Errorf("%s: want allowed, got %q (%v)", s.Repository, d.Sentence(s.Repository), err)
	}
	return d
}

func deny(t *testing.T, e *Evaluator, w *world, s Subject, reason string) Decision {
	t.Helper()
	d, err := e.Evaluate(t.Context(), w, s)
	if err != nil || d.Allowed || d.Reason != reason {
		t.Errorf("%s: want denied for %s, got %q for %q (%v)", s.Repository, reason, d.Sentence(s.Repository), d.Reason, err)
	}
	return d
}

func cannotTell(t *testing.T, e *Evaluator, w *world, s Subject) (Decision, error) {
	t.Helper()
	d, err := e.Evaluate(t.Context(), w, s)
	if err == nil || d.Allowed || d.Reason != ReasonInconclusive {
		t.Errorf("%s: want inconclusive, got %q (%v)", s.Repository, d.Sentence(s.Repository), err)
	}
	return d, err
}
