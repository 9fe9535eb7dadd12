package main

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// scriptAttest adds an attestation to those at the tag of an image, as cosign attest
// does; the password is COSIGN_PASSWORD:
//
//	attest cosign.key slsaprovenance1 predicate.json $REGISTRY/acme/web@$DIGEST
func scriptAttest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: attest key type predicate image@digest")
	}
	key, err := signer.ParsePrivateKey([]byte(ts.ReadFile(args[0])), []byte(ts.Getenv("COSIGN_PASSWORD")))
	ts.Check(err)
	predicateType, err := envelope.PredicateType(args[1])
	ts.Check(err)
	image, err := name.NewDigest(args[3], name.Insecure)
	ts.Check(err)
	hex := strings.TrimPrefix(image.DigestStr(), "sha256:")
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":%q,"digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
		image.Context().Name(), hex, predicateType, strings.TrimSpace(ts.ReadFile(args[2])))
	const payloadType = "application/vnd.in-toto+json"
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	ts.Check(err)
	encoded, err := envelope.EncodeEnvelope(envelope.Envelope{Statement: statement, Signatures: []envelope.EnvelopeSignature{{Signature: signature}}})
	ts.Check(err)
	tag := image.Context().Tag("sha256-" + hex + ".att")
	var old v1.Image = empty.Image
	if there, err := remote.Image(tag); err == nil {
		old = there
	}
	attested, err := mutate.Append(old, mutate.Addendum{
		Layer: static.NewLayer(encoded, envelope.MediaTypeDSSE), Annotations: map[string]string{"predicateType": predicateType},
	})
	ts.Check(err)
	ts.Check(remote.Write(tag, attested))
}

// scriptPushFiles pushes an image with a layer for each argument, which lists files
// of the script, and sets DIGEST:
//
//	push-files $REGISTRY/acme/base:v1 etc/os-release,etc/passwd etc/os-release
func scriptPushFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: push-files image files...")
	}
	reference, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	image := empty.Image
	for _, files := range args[1:] {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for file := range strings.SplitSeq(files, ",") {
			content := ts.ReadFile(file)
			ts.Check(w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(content))}))
			_, err := w.Write([]byte(content))
			ts.Check(err)
		}
		ts.Check(w.Close())
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		ts.Check(err)
		image, err = mutate.AppendLayers(image, layer)
		ts.Check(err)
	}
	ts.Check(remote.Write(reference, image))
	digest, err := image.Digest()
	ts.Check(err)
	ts.Setenv("DIGEST", digest.String())
}
