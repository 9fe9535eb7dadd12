package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pulled is what became of one pull.
type pulled struct {
	err      error
	manifest bool // the policy allowed it
	blobs    int
}

// demoClient pulls as a container runtime does: HEAD and GET for the manifest,
// one platform of an index by digest, then the config and the layers, each
// hashed.
type demoClient struct {
	base string // URL of the proxy
	http *http.Client
}

func (c demoClient) pull(ctx context.Context, repository, tag string) pulled {
	if _, err := c.get(ctx, http.MethodHead, repository, "manifests/"+tag); err != nil {
		// the body of a HEAD says nothing, so a client asks again to show it
		_, err = c.get(ctx, http.MethodGet, repository, "manifests/"+tag)
		return pulled{err: err}
	}
	content, err := c.get(ctx, http.MethodGet, repository, "manifests/"+tag)
	if err != nil {
		return pulled{err: err}
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(content, &index); err != nil {
		return pulled{err: err}
	}
	if len(index.Manifests) > 0 {
		if content, err = c.getDigest(ctx, repository, "manifests/", index.Manifests[0].Digest); err != nil {
			return pulled{err: err}
		}
	}
	var image v1.Manifest
	if err := json.Unmarshal(content, &image); err != nil {
		return pulled{err: err}
	}
	result := pulled{manifest: true}
	for _, desc := range append([]v1.Descriptor{image.Config}, image.Layers...) {
		if _, result.err = c.getDigest(ctx, repository, "blobs/", desc.Digest); result.err != nil {
			return result
		}
		result.blobs++
	}
	return result
}

func (c demoClient) getDigest(ctx context.Context, repository, under string, digest v1.Hash) ([]byte, error) {
	content, err := c.get(ctx, http.MethodGet, repository, under+digest.String())
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest.Hex {
		return nil, fmt.Errorf("%s was served with other bytes", digest)
	}
	return content, nil
}

// demoMostContent bounds what the demonstration reads; its images are small.
const demoMostContent = 8 << 20

func (c demoClient) get(ctx context.Context, method, repository, resource string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+"/v2/"+repository+"/"+resource, nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, demoMostContent))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return content, nil
	}
	return nil, fmt.Errorf("%d %s", answer.StatusCode, errorText(content))
}

// errorText returns code and message of an OCI error, as docker shows them.
func errorText(body []byte) string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &e); err != nil || len(e.Errors) == 0 {
		return firstLine(body)
	}
	return e.Errors[0].Code + ": " + e.Errors[0].Message
}

var errDemoSurprise = errors.New("the demonstration did not go as it should; please report this with the table above")

// wrap breaks a sentence into lines of at most width characters.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
