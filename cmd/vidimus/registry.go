package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/proxy/upstream"
	"vidimus/verifier"
)

func (f *registryFlags) nameOptions() []name.Option {
	if f.allowHTTP {
		return []name.Option{name.Insecure}
	}
	return nil
}

// upstreamOf returns a client for the registry of a reference, with the
// credentials of the flags, or docker's. It checks every certificate.
func (f *registryFlags) upstreamOf(ctx context.Context, registry name.Registry) (*upstream.Client, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	ca, err := f.authorities()
	if err != nil {
		return nil, err
	}
	url := f.urlOf(ctx, registry)
	if f.insecure && !strings.HasPrefix(url, "http://") {
		return nil, misuse(errors.New("--allow-insecure-registry: certificates are always checked; name the registry's authority with --registry-cacert"))
	}
	pair, err := f.certificate()
	if err != nil {
		return nil, err
	}
	credentials, err := f.upstreamCredentials(registry)
	if err != nil {
		return nil, err
	}
	client, err := upstream.New(upstream.Config{
		CA:          ca,
		Certificate: pair,
		ServerName:  f.serverName,
		Name:        registryName(registry),
		URL:         url,
		Credentials: credentials,
		Proxy:       http.ProxyFromEnvironment,
		UserAgent:   "vidimus/" + version(),
	})
	if err != nil {
		return nil, misuse(err)
	}
	return client, nil
}

// urlOf is https. Where http is allowed, which it is for loopback as it is in
// cosign and go-containerregistry, it is http unless TLS is spoken there.
func (f *registryFlags) urlOf(ctx context.Context, registry name.Registry) string {
	host := registry.RegistryStr()
	if host == name.DefaultRegistry {
		host = "registry-1.docker.io"
	}
	if (f.allowHTTP || registry.Scheme() == "http") && !speaksTLS(ctx, host) {
		return "http://" + host
	}
	return "https://" + host
}

// handshakePatience bounds the look whether a registry speaks TLS.
const handshakePatience = 5 * time.Second

// speaksTLS tells whether there is TLS at host. Whose, is for the client to
// check: this shakes hands with everybody, and sends nothing.
func speaksTLS(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, handshakePatience)
	defer cancel()
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// registryName is what policies and clients call a registry.
func registryName(registry name.Registry) string {
	if host := registry.RegistryStr(); host != name.DefaultRegistry {
		return host
	}
	return "docker.io"
}

// canonicalName is what policies and clients call the repository of an image.
func canonicalName(image name.Reference) string {
	return registryName(image.Context().Registry) + "/" + image.Context().RepositoryStr()
}

// direct reads evidence straight from registries. It implements
// verifier.Registry for the images of one repository, by whatever name the
// caller knows it; every byte is hashed here.
type direct struct {
	image    registryRepository
	evidence registryRepository // where signatures are: the same, or COSIGN_REPOSITORY
	flags    *registryFlags
}

// registryRepository is one repository of one registry.
type registryRepository struct {
	client     *upstream.Client
	repository string
}

// Manifest implements verifier.Registry. Signatures are found by tag; by digest there
// are referrers, and the image itself.
func (d direct) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	byDigest := strings.Contains(reference, ":")
	content, _, _, err := d.evidence.client.Manifest(ctx, d.evidence.repository, d.flags.tagged(reference), v1.Hash{})
	if byDigest && d.evidence != d.image && errors.Is(err, fs.ErrNotExist) {
		content, _, _, err = d.image.client.Manifest(ctx, d.image.repository, reference, v1.Hash{})
	}
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

// Referrers implements verifier.Registry.
func (d direct) Referrers(ctx context.Context, _ string, digest v1.Hash) ([]v1.Descriptor, error) {
	listed, err := d.evidence.client.Referrers(ctx, d.evidence.repository, digest, "")
	if err != nil && len(listed) > 0 {
		return listed, verifier.ErrMore
	}
	return listed, err
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
func (f *registryFlags) openDirect(ctx context.Context, image name.Reference) (direct, func(), error) {
	client, err := f.upstreamOf(ctx, image.Context().Registry)
	if err != nil {
		return direct{}, nil, err
	}
	here := registryRepository{client, image.Context().RepositoryStr()}
	value := os.Getenv("COSIGN_REPOSITORY")
	if value == "" {
		return direct{here, here, f}, client.Close, nil
	}
	elsewhere, err := name.NewRepository(value)
	if err != nil {
		client.Close()
		return direct{}, nil, misuse(fmt.Errorf("COSIGN_REPOSITORY: %w", err))
	}
	other, err := f.upstreamOf(ctx, elsewhere.Registry)
	if err != nil {
		client.Close()
		return direct{}, nil, misuse(fmt.Errorf("COSIGN_REPOSITORY: %w", err))
	}
	return direct{here, registryRepository{other, elsewhere.RepositoryStr()}, f}, func() { client.Close(); other.Close() }, nil
}

func sha256Of(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
