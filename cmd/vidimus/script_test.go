package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"vidimus/e2e/real"
)

// scriptCommands are what scripts have beside testscript's own.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":       scriptExits,
	"registry":    scriptRegistry,
	"push":        scriptPush,
	"push-index":  scriptPushIndex,
	"attestation": scriptAttestation,
	"refer":       scriptRefer,
	"spoil":       scriptSpoil,
	"port":        scriptPort,
	"get":         scriptGet,
	"get-until":   scriptGetUntil,

	"attest":     scriptAttest,
	"push-files": scriptPushFiles,
}

// scriptRegistry starts a registry in memory for the rest of the script, and
// sets REGISTRY to its host and port.
func scriptRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: registry")
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	ts.Defer(server.Close)
	ts.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
}

// scriptPush pushes a small image of its own, and sets DIGEST to its digest and
// LAYER to that of its one layer:
//
//	push $REGISTRY/acme/web:v1
func scriptPush(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: push image")
	}
	image, err := random.Image(512, 1)
	ts.Check(err)
	reference, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(reference, image))
	digest, err := image.Digest()
	ts.Check(err)
	ts.Setenv("DIGEST", digest.String())
	layers, err := image.Layers()
	ts.Check(err)
	layer, err := layers[0].Digest()
	ts.Check(err)
	ts.Setenv("LAYER", layer.String())
}

// scriptPushIndex pushes an index of an image for linux/amd64 and one for linux/arm64,
// and sets INDEX, AMD64 and ARM64 to their digests:
//
//	push-index $REGISTRY/acme/web:v1
func scriptPushIndex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: push-index image")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for variable, architecture := range map[string]string{"AMD64": "amd64", "ARM64": "arm64"} {
		image, err := random.Image(512, 1)
		ts.Check(err)
		digest, err := image.Digest()
		ts.Check(err)
		ts.Setenv(variable, digest.String())
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	reference, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	ts.Check(remote.WriteIndex(reference, index))
	digest, err := index.Digest()
	ts.Check(err)
	ts.Setenv("INDEX", digest.String())
}

// scriptPort sets a variable to a loopback address that is free.
func scriptPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: port VARIABLE")
	}
	addr, err := real.PickAddr()
	ts.Check(err)
	ts.Setenv(args[0], addr)
}

// scriptPatience bounds how long get waits for a server to come up.
const scriptPatience = 2 * time.Minute

// scriptGet sends GET and wants a status; a server that does not answer yet is
// tried again. The body is written to a file:
//
//	get 200 http://$METRICS/healthz body.txt
func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: get status url file")
	}
	fetch(ts, args[1], args[2], func(status string, body []byte) bool {
		if status != args[0] {
			ts.Fatalf("get %s: %s\n%s", args[1], status, body)
		}
		return true
	})
}

// scriptGetUntil sends GET until it is answered with a status, and a body that
// holds a text when one is given:
//
//	get-until 200 http://$METRICS/readyz body.txt suspended
func scriptGetUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: get-until status url file [text]")
	}
	text := ""
	if len(args) == 4 {
		text = args[3]
	}
	fetch(ts, args[1], args[2], func(status string, body []byte) bool {
		return status == args[0] && strings.Contains(string(body), text)
	})
}

// fetch sends GET until enough says so, and writes the body to a file.
func fetch(ts *testscript.TestScript, url, file string, enough func(status string, body []byte) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	last := ""
	for {
		status, body, err := fetchOnce(ctx, url)
		if err == nil && enough(status, body) {
			ts.Check(os.WriteFile(ts.MkAbs(file), body, 0o644))
			return
		}
		if ctx.Err() == nil {
			last = fmt.Sprint(status, " ", string(body), " ", err)
		}
		if !pause(ctx, 25*time.Millisecond) {
			ts.Fatalf("get %s: %s", url, last)
		}
	}
}

func fetchOnce(ctx context.Context, url string) (status string, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return strconv.Itoa(answer.StatusCode), body, err
}
