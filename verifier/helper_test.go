package verifier_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

const (
	repository  = "registry.example/acme/web"
	mediaType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotation  = "dev.cosignproject.cosign/signature"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
)

// subject is the manifest that all tests ask about; other is another one.
var (
	subject = verifier.Subject{Repository: repository, Digest: digestOf([]byte("subject"))}
	other   = digestOf([]byte("other"))
	sigTag  = "sha256-" + subject.Digest.Hex + ".sig"
	oldTag  = "sha256-" + subject.Digest.Hex + ".cosign"
)

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// registry is a registry in memory that keeps a log of what it is asked for.
type registry struct {
	manifests map[string][]byte  // by tag
	blobs     map[v1.Hash][]byte // by digest
	errs      map[string]error   // by tag or digest: what it answers instead
	listed    []v1.Descriptor    // by the referrers API, of which nil means that there is none
	listErr   error              // what it answers besides
	// called, when not nil, before an answer
	onManifest func(ctx context.Context, reference string)
	onBlob     func(ctx context.Context, digest v1.Hash)

	mu       sync.Mutex
	requests []string
}

func newRegistry() *registry {
	return &registry{manifests: map[string][]byte{}, blobs: map[v1.Hash][]byte{}, errs: map[string]error{}}
}

func (r *registry) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, fmt.Sprintf(format, args...))
}

// forget drops the requests so far.
func (r *registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = r.requests[:0]
}

// asked returns the requests so far, in the order of their texts: they may be
// made at once.
func (r *registry) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.requests))
}

// fetched returns those of asked that are for payloads.
func (r *registry) fetched() []string {
	return slices.DeleteFunc(r.asked(), func(request string) bool { return strings.HasPrefix(request, "manifest") })
}

func (r *registry) Manifest(ctx context.Context, repo, reference string) ([]byte, error) {
	r.note("manifest %s", reference)
	if r.onManifest != nil {
		r.onManifest(ctx, reference)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.errs[reference]; err != nil {
		return nil, err
	}
	manifest, ok := r.manifests[reference]
	if !ok || repo != repository {
		return nil, fmt.Errorf("manifest %s: %w", reference, fs.ErrNotExist)
	}
	return manifest, nil
}

func (r *registry) Referrers(ctx context.Context, repo string, digest v1.Hash) ([]v1.Descriptor, error) {
	r.note("referrers")
	if r.onManifest != nil {
		r.onManifest(ctx, "referrers")
	}
	switch err := ctx.Err(); {
	case err != nil:
		return nil, err
	case r.listErr != nil:
		return r.listed, r.listErr
	case r.listed == nil || repo != repository || digest != subject.Digest:
		return nil, fmt.Errorf("referrers of %s: %w", digest, fs.ErrNotExist)
	}
	return r.listed, nil
}

func (r *registry) Blob(ctx context.Context, repo string, desc v1.Descriptor) ([]byte, error) {
	r.note("blob %s", desc.Digest)
	if r.onBlob != nil {
		r.onBlob(ctx, desc.Digest)
	}
	if err := r.errs[desc.Digest.String()]; err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	blob, ok := r.blobs[desc.Digest]
	if !ok || repo != repository {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, fs.ErrNotExist)
	}
	return blob, nil
}

// layer is a layer of a signature image, as JSON has it.
type layer map[string]any

func (l layer) with(name string, value any) layer {
	changed := layer{}
	for n, v := range l {
		changed[n] = v
	}
	changed[name] = value
	if value == nil {
		delete(changed, name)
	}
	return changed
}

// annotated adds annotations to the layer's own.
func (l layer) annotated(extra map[string]string) layer {
	annotations := map[string]string{}
	for n, v := range l["annotations"].(map[string]string) {
		annotations[n] = v
	}
	for n, v := range extra {
		annotations[n] = v
	}
	return l.with("annotations", annotations)
}

// layer stores a payload and returns the layer for it with a signature.
func (r *registry) layer(payload, signature []byte) layer {
	digest := digestOf(payload)
	r.blobs[digest] = payload
	return layer{
		"mediaType":   mediaType,
		"digest":      digest.String(),
		"size":        len(payload),
		"annotations": map[string]string{annotation: base64.StdEncoding.EncodeToString(signature)},
	}
}

// tag puts a signature image with layers under a tag.
func (r *registry) tag(tb testing.TB, tag string, layers ...layer) {
	tb.Helper()
	r.manifests[tag] = manifestOf(tb, layers...)
}

func manifestOf(tb testing.TB, layers ...layer) []byte {
	tb.Helper()
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     ociManifest,
		"config":        map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "size": 233, "digest": other.String()},
		"layers":        layers,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return manifest
}

// payload is what cosign signs for a digest.
func payload(tb testing.TB, digest v1.Hash, annotations map[string]any) []byte {
	tb.Helper()
	data, err := envelope.EncodePayload(envelope.Payload{Reference: repository, Digest: digest.String(), Annotations: annotations})
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func newECDSA(tb testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newEd25519(tb testing.TB) ed25519.PrivateKey {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// sign signs data with a key under a hash; 0 is for pure Ed25519.
func sign(tb testing.TB, key crypto.Signer, hash crypto.Hash, data []byte) []byte {
	tb.Helper()
	digest := data
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		digest = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		tb.Fatal(err)
	}
	return signature
}

func keyOf(tb testing.TB, signer crypto.Signer) verifier.Key {
	tb.Helper()
	key, err := verifier.NewKey(signer.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// authority is one with the keys of signers.
func authority(tb testing.TB, name string, signers ...crypto.Signer) verifier.Authority {
	tb.Helper()
	a := verifier.Authority{Name: name}
	for _, signer := range signers {
		a.Keys = append(a.Keys, keyOf(tb, signer))
	}
	return a
}

// look runs Verify and then lets a day pass for what it has cancelled: a
// goroutine of its that does not end fails the test.
func look(t *testing.T, r verifier.Registry, s verifier.Subject, authorities []verifier.Authority, sources []verifier.Source, satisfied func([]verifier.Evidence) bool) (report verifier.Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		report = verifier.Verify(t.Context(), r, s, authorities, sources, satisfied)
		time.Sleep(24 * time.Hour)
	})
	return report
}

// outcome is what tests compare of a piece of evidence.
type outcome struct {
	Source, Reason string
	Authorities    []string
}

func outcomes(report verifier.Report) []outcome {
	var all []outcome
	for _, e := range report.Evidence {
		if e.Verified() != (e.Reason() == "") || e.Verified() != (len(e.Authorities()) > 0) {
			panic(fmt.Sprintf("verified, reason and authorities contradict each other: %+v", e))
		}
		all = append(all, outcome{e.Source(), e.Reason(), e.Authorities()})
	}
	return all
}

// anyVerified is a policy that one signature by anybody satisfies.
func anyVerified(evidence []verifier.Evidence) bool {
	return slices.ContainsFunc(evidence, verifier.Evidence.Verified)
}
