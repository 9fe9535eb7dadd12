package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier"
)

// writerFlags are how a command reaches a registry that it may write to.
type writerFlags struct {
	registryFlags
	base      http.RoundTripper // instead of the network; tests set it
	readsOnly bool              // nothing is written, and the right to push not asked for

	recordTime bool // in the config of an image of signatures or attestations
}

func (f *writerFlags) registerRecordTime(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.recordTime, "record-creation-timestamp", false, "have the image under the tag say when it was written (a bundle always does)")
}

// signatureRepository is where the signatures of images in repository are:
// beside them, or where COSIGN_REPOSITORY says.
func (f *writerFlags) signatureRepository(repository name.Repository) (name.Repository, error) {
	value := os.Getenv("COSIGN_REPOSITORY")
	if value == "" {
		return repository, nil
	}
	elsewhere, err := name.NewRepository(value, f.nameOptions()...)
	if err != nil {
		return name.Repository{}, misuse(fmt.Errorf("COSIGN_REPOSITORY: %w", err))
	}
	return elsewhere, nil
}

// registry returns a client that writes to one repository, unless f.readsOnly, and
// reads them all.
func (f *writerFlags) registry(writes name.Repository) (*remoteRegistry, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	base := f.base
	if base == nil {
		trust, err := f.trust()
		if err != nil {
			return nil, err
		}
		t := remote.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		t.TLSClientConfig = trust
		if base, err = f.presenting(t); err != nil {
			return nil, err
		}
	}
	r := &remoteRegistry{
		flags:   &f.registryFlags,
		options: f.nameOptions(),
		base:    transport.NewUserAgent(base, "vidimus/"+version()),
		clients: make(map[string]*http.Client),
	}
	if !f.readsOnly {
		r.writes = writes.Name()
	}
	return r, nil
}

// trust is whose certificates are believed: the system's authorities and those
// of --registry-cacert, or everybody's.
func (f *writerFlags) trust() (*tls.Config, error) {
	if f.insecure {
		return &tls.Config{InsecureSkipVerify: true}, nil
	}
	ca, err := f.authorities()
	if err != nil || ca == nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(ca) {
		return nil, misuse(fmt.Errorf("--registry-cacert: %s holds no certificate in PEM", f.caFile))
	}
	return &tls.Config{RootCAs: pool}, nil
}

// remoteRegistry implements signer.Registry for registries that a person named
// on the command line, with the credentials of docker's credential store. A
// repository is its full name, the registry's first.
//
// It is not built on go-containerregistry's pusher, which asks for a manifest
// before it writes one and repeats a write that failed: both lengthen the time
// in which two writers overwrite one another.
type remoteRegistry struct {
	flags   *registryFlags
	options []name.Option
	base    http.RoundTripper
	writes  string // the repository that is asked for with the right to push

	seen entityTags

	mu      sync.Mutex
	clients map[string]*http.Client // by repository
}

// Manifest implements signer.Registry.
func (r *remoteRegistry) Manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	var data []byte
	reference = r.flags.tagged(reference)
	err := retryPassing(ctx, func() error {
		header := http.Header{"Accept": {strings.Join(manifestTypes(), ", ")}}
		resp, err := r.do(ctx, repository, http.MethodGet, "manifests/"+reference, header, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		r.seen.note(repository, reference, resp)
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return absent(err)
		}
		data, err = io.ReadAll(io.LimitReader(resp.Body, verifier.MaxManifestSize+1))
		return err
	})
	return data, err
}

func manifestTypes() []string {
	return []string{
		string(types.OCIManifestSchema1), string(types.OCIImageIndex),
		string(types.DockerManifestSchema2), string(types.DockerManifestList),
	}
}

// PutBlob implements signer.Registry. All of it is tried again after a passing
// failure: a blob is what its digest says, however often it arrives.
func (r *remoteRegistry) PutBlob(ctx context.Context, repository string, digest v1.Hash, data []byte) error {
	return retryPassing(ctx, func() error {
		resp, err := r.do(ctx, repository, http.MethodHead, "blobs/"+digest.String(), nil, nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		location, err := r.beginUpload(ctx, repository)
		if err != nil {
			return err
		}
		query := location.Query()
		query.Set("digest", digest.String())
		location.RawQuery = query.Encode()
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		resp, err = r.send(ctx, repository, http.MethodPut, location, header, data)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return transport.CheckError(resp, http.StatusCreated)
	})
}

func (r *remoteRegistry) beginUpload(ctx context.Context, repository string) (*url.URL, error) {
	resp, err := r.do(ctx, repository, http.MethodPost, "blobs/uploads/", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusAccepted); err != nil {
		return nil, err
	}
	location, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("begin an upload to %s: %w", repository, err)
	}
	return location, nil
}

// PutManifest implements signer.Registry. It is tried once.
func (r *remoteRegistry) PutManifest(ctx context.Context, repository, reference string, mediaType types.MediaType, data []byte) (listed bool, err error) {
	reference = r.flags.tagged(reference)
	header := http.Header{"Content-Type": {string(mediaType)}}
	r.seen.require(repository, reference, header)
	resp, err := r.do(ctx, repository, http.MethodPut, "manifests/"+reference, header, data)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusPreconditionFailed && r.seen.refuse(repository, reference) {
		return false, signer.ErrChanged
	}
	return resp.Header.Get("OCI-Subject") != "",
		transport.CheckError(resp, http.StatusOK, http.StatusCreated, http.StatusAccepted)
}

// do sends a request about something in repository.
func (r *remoteRegistry) do(ctx context.Context, repository, method, path string, header http.Header, body []byte) (*http.Response, error) {
	repo, err := name.NewRepository(repository, r.options...)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(path, "?")
	u := &url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/" + path, RawQuery: query}
	return r.send(ctx, repository, method, u, header, body)
}

func (r *remoteRegistry) send(ctx context.Context, repository, method string, u *url.URL, header http.Header, body []byte) (*http.Response, error) {
	client, err := r.client(ctx, repository)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	return client.Do(req)
}

// client returns one that is logged in for repository. Only what is written to
// is asked for with the right to push, which a reader may not have.
func (r *remoteRegistry) client(ctx context.Context, repository string) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if client, ok := r.clients[repository]; ok {
		return client, nil
	}
	repo, err := name.NewRepository(repository, r.options...)
	if err != nil {
		return nil, err
	}
	auth, err := r.flags.credentials(ctx, repo)
	if err != nil {
		return nil, err
	}
	action := transport.PullScope
	if repository == r.writes {
		action = transport.PushScope
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, r.base, []string{repo.Scope(action)})
	if err != nil {
		return nil, err
	}
	r.clients[repository] = &http.Client{Transport: t}
	return r.clients[repository], nil
}
