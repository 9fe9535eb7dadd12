package lying

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// SignatureAnnotation is where a simple-signing layer carries its signature.
const SignatureAnnotation = "dev.cosignproject.cosign/signature"

// Key is a fresh key pair. This package signs with the standard library alone,
// so that a fault of ours in signing does not hide one in verifying.
type Key struct{ signer crypto.Signer }

// P256 returns a new ECDSA key, as cosign's are.
func P256() Key { return newECDSA(elliptic.P256()) }

// P384 returns a new ECDSA key.
func P384() Key { return newECDSA(elliptic.P384()) }

// P521 returns a new ECDSA key.
func P521() Key { return newECDSA(elliptic.P521()) }

// Ed25519 returns a new Ed25519 key, whose signatures are over the payload
// itself.
func Ed25519() Key {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	return Key{key}
}

// RSA returns a new RSA key of 2048 bits, whose signatures are PKCS #1 v1.5.
func RSA() Key {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return Key{key}
}

// KeyOf returns a key pair that somebody else has made.
func KeyOf(signer crypto.Signer) Key { return Key{signer} }

func newECDSA(curve elliptic.Curve) Key {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(err)
	return Key{key}
}

// Signer returns the private key.
func (k Key) Signer() crypto.Signer { return k.signer }

// PublicPEM returns the public key as a cosign.pub.
func (k Key) PublicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.pkix()})
}

// ID returns the hexadecimal SHA-256 of the public key's PKIX form.
func (k Key) ID() string { return Digest(k.pkix()).Hex }

// WritePublic writes the public key to a file in dir and returns its path.
func (k Key) WritePublic(tb testing.TB, dir, name string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, k.PublicPEM(), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

func (k Key) pkix() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	must(err)
	return der
}

// SignPayload returns the base64 signature of payload, as it stands in the
// annotation.
func (k Key) SignPayload(payload []byte) string {
	message, opts := payload, crypto.Hash(0)
	if _, pure := k.signer.(ed25519.PrivateKey); !pure {
		sum := sha256.Sum256(payload)
		message, opts = sum[:], crypto.SHA256
	}
	signature, err := k.signer.Sign(rand.Reader, message, opts)
	must(err)
	return base64.StdEncoding.EncodeToString(signature)
}

// Payload returns the simple-signing payload in cosign's own order of fields;
// an empty name is a payload that claims none.
func Payload(name string, digest v1.Hash, optional map[string]any) []byte {
	type identity struct {
		Reference string `json:"docker-reference"`
	}
	type image struct {
		Digest string `json:"docker-manifest-digest"`
	}
	type critical struct {
		Identity identity `json:"identity"`
		Image    image    `json:"image"`
		Type     string   `json:"type"`
	}
	return encode(struct {
		Critical critical       `json:"critical"`
		Optional map[string]any `json:"optional"`
	}{critical{identity{name}, image{digest.String()}, "cosign container image signature"}, optional})
}

// LegacyPayload returns the payload as cosign v0.1 wrote it.
func LegacyPayload(name string, digest v1.Hash, optional map[string]any) []byte {
	reference, options := encode(name), encode(optional)
	return []byte(`{"Critical":{"Identity":{"docker-reference":` + string(reference) +
		`},"Image":{"Docker-manifest-digest":"` + digest.String() +
		`"},"Type":"cosign container signature"},"Optional":` + string(options) + `}`)
}

// Signature returns the layer of one signature: key's, over payload. Further
// annotations are added by the caller, on a copy.
func Signature(key Key, payload []byte) Layer {
	return Layer{
		MediaType:   SimpleSigning,
		Data:        payload,
		Annotations: map[string]string{SignatureAnnotation: key.SignPayload(payload)},
	}
}

// Signatures returns a .sig image of these layers.
func Signatures(layers ...Layer) Content {
	diffs := []v1.Hash{}
	for _, layer := range layers {
		diffs = append(diffs, Digest(layer.Data))
	}
	config := encode(map[string]any{
		"architecture": "", "created": "0001-01-01T00:00:00Z", "os": "", "config": map[string]any{},
		"history": []any{},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffs},
	})
	return ImageManifest{Config: Layer{MediaType: types.OCIConfigJSON, Data: config}, Layers: layers}.Build()
}

// SignatureTag is where cosign keeps the signatures of digest.
func SignatureTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".sig" }

// LegacyTag is where cosign v0.1 to v0.3 kept them.
func LegacyTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".cosign" }

// Sign puts one signature of each key, with a payload that claims no name, at
// the signature tag of digest, in place of what was there.
func (r *Registry) Sign(repository string, digest v1.Hash, keys ...Key) Content {
	return r.SignAs(repository, digest, "", nil, keys...)
}

// SignAs is Sign with a claimed name and annotations in the payload.
func (r *Registry) SignAs(repository string, digest v1.Hash, name string, optional map[string]any, keys ...Key) Content {
	var layers []Layer
	for _, key := range keys {
		layers = append(layers, Signature(key, Payload(name, digest, optional)))
	}
	content := Signatures(layers...)
	r.Push(repository, content, SignatureTag(digest))
	return content
}

// PushSigned pushes content and signs it with key and no claimed name.
func (r *Registry) PushSigned(repository string, content Content, key Key, tags ...string) v1.Hash {
	digest := r.Push(repository, content, tags...)
	r.Sign(repository, digest, key)
	return digest
}

// PushReferrer pushes an artifact and, as clients do where the referrers API
// is absent, lists it at the fallback tag of its subject.
func (r *Registry) PushReferrer(repository string, subject v1.Hash, artifact Content) v1.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := r.push(repository, artifact)
	if !r.noReferrers {
		return digest
	}
	desc, _ := describe(stored{artifact.MediaType, artifact.Body})
	listed := []v1.Descriptor{}
	if m, _, ok := r.repo(repository).manifest(FallbackTag(subject)); ok {
		var present v1.IndexManifest
		must(json.Unmarshal(m.body, &present))
		listed = present.Manifests
	}
	r.push(repository, IndexOf(append(listed, desc)...), FallbackTag(subject))
	return digest
}

// must is for what cannot go wrong in a test without the machine being broken.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
