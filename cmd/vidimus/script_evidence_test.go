package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// scriptAttestation writes a DSSE envelope, with a signature that nobody made:
//
//	attestation $DIGEST predicateType file
func scriptAttestation(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: attestation digest predicateType file")
	}
	digest, err := v1.NewHash(args[0])
	ts.Check(err)
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, digest.Hex, args[1])
	envelope, err := json.MarshalIndent(map[string]any{
		"payloadType": "application/vnd.in-toto+json",
		"payload":     base64.StdEncoding.EncodeToString([]byte(statement)),
		"signatures":  []any{map[string]string{"sig": "AAAA"}},
	}, "", "  ")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), envelope, 0o644))
}

// scriptRefer pushes an artifact of a type whose subject is an image, and sets a
// variable to its digest:
//
//	refer $REGISTRY/acme/web@$DIGEST application/vnd.example REFERRER
func scriptRefer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: refer image artifactType VARIABLE")
	}
	reference, err := name.NewDigest(args[0], name.Insecure)
	ts.Check(err)
	subject, err := remote.Get(reference)
	ts.Check(err)
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(args[1]))
	image, ok := mutate.Subject(artifact, subject.Descriptor).(v1.Image)
	if !ok {
		ts.Fatalf("not an image")
	}
	digest, err := image.Digest()
	ts.Check(err)
	ts.Check(remote.Write(reference.Context().Digest(digest.String()), image))
	ts.Setenv(args[2], digest.String())
}

// scriptSpoil changes a byte of one layer in an image layout.
func scriptSpoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: spoil directory")
	}
	spoilt := false
	ts.Check(filepath.WalkDir(filepath.Join(ts.MkAbs(args[0]), "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || spoilt {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || strings.HasPrefix(string(data), "{") || len(data) < 100 {
			return err
		}
		data[len(data)-1] ^= 1
		spoilt = true
		return os.WriteFile(path, data, 0o644)
	}))
	if !spoilt {
		ts.Fatalf("%s has no layer", args[0])
	}
}
