package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/proxy/upstream"
	"vidimus/verifier"
)

// registryFlags are how a command reaches a registry that a person named.
type registryFlags struct {
	allowHTTP bool
	caFile    string
}

// upstreamOf returns a client for the registry of a reference, with the
// credentials of docker, and its address as a URL.
func (f registryFlags) upstreamOf(registry name.Registry) (*upstream.Client, error) {
	var ca []byte
	if f.caFile != "" {
		var err error
		if ca, err = os.ReadFile(f.caFile); err != nil {
			return nil, fmt.Errorf("--registry-cacert: %w", err)
		}
	}
	return upstream.New(upstream.Config{
		CA:          ca,
		Name:        registryName(registry),
		URL:         f.urlOf(registry),
		Credentials: upstream.DockerConfig(""),
		Proxy:       http.ProxyFromEnvironment,
		UserAgent:   "vidimus/" + version(),
	})
}

// urlOf is https, and http for loopback, where go-containerregistry and cosign
// speak it too, or where the person allows it.
func (f registryFlags) urlOf(registry name.Registry) string {
	host := registry.RegistryStr()
	if host == name.DefaultRegistry {
		host = "registry-1.docker.io"
	}
	scheme := registry.Scheme()
	if f.allowHTTP {
		scheme = "http"
	}
	return scheme + "://" + host
}

// registryName is what policies and clients call a registry.
func registryName(registry name.Registry) string {
	if host := registry.RegistryStr(); host != name.DefaultRegistry {
		return host
	}
	return "docker.io"
}

// direct reads evidence straight from registries. It implements
// verifier.Registry for the images of one repository, by whatever name the
// caller knows it; every byte is hashed here.
type direct struct {
	image    registryRepository
	evidence registryRepository // where signatures are: the same, or COSIGN_REPOSITORY
}

// registryRepository is one repository of one registry.
type registryRepository struct {
	client     *upstream.Client
	repository string
}

// Manifest implements verifier.Registry. Signatures are found by tag.
func (d direct) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	from := d.evidence
	byDigest := strings.Contains(reference, ":")
	if byDigest {
		from = d.image
	}
	content, _, err := from.client.Manifest(ctx, from.repository, reference)
	if err != nil {
		return nil, err
	}
	if len(content) > verifier.MaxManifestSize {
		return nil, fmt.Errorf("manifest %s: larger than %d bytes", reference, verifier.MaxManifestSize)
	}
	if got := sha256Of(content); byDigest && got.String() != reference {
		return nil, fmt.Errorf("manifest %s: the registry sent bytes that hash to %s", reference, got)
	}
	return content, nil
}

// Blob implements verifier.Registry.
func (d direct) Blob(ctx context.Context, _ string, desc v1.Descriptor) ([]byte, error) {
	if desc.Size < 0 || desc.Size > verifier.MaxPayloadSize {
		return nil, fmt.Errorf("blob %s: declared with %d bytes, at most %d are read", desc.Digest, desc.Size, verifier.MaxPayloadSize)
	}
	body, _, err := d.evidence.client.Blob(ctx, d.evidence.repository, desc.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, desc.Size+1))
	if err != nil {
		return nil, err
	}
	if got := sha256Of(content); got != desc.Digest || int64(len(content)) != desc.Size {
		return nil, fmt.Errorf("blob %s: the registry sent %d bytes that hash to %s", desc.Digest, len(content), got)
	}
	return content, nil
}

// openDirect returns what reads image and its signatures, and frees it.
func (f registryFlags) openDirect(image name.Reference) (direct, func(), error) {
	client, err := f.upstreamOf(image.Context().Registry)
	if err != nil {
		return direct{}, nil, misuse(err)
	}
	here := registryRepository{client, image.Context().RepositoryStr()}
	value := os.Getenv("COSIGN_REPOSITORY")
	if value == "" {
		return direct{here, here}, client.Close, nil
	}
	elsewhere, err := name.NewRepository(value)
	if err != nil {
		client.Close()
		return direct{}, nil, misuse(fmt.Errorf("COSIGN_REPOSITORY: %w", err))
	}
	other, err := f.upstreamOf(elsewhere.Registry)
	if err != nil {
		client.Close()
		return direct{}, nil, misuse(fmt.Errorf("COSIGN_REPOSITORY: %w", err))
	}
	return direct{here, registryRepository{other, elsewhere.RepositoryStr()}}, func() { client.Close(); other.Close() }, nil
}

func sha256Of(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
