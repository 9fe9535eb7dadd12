package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/carrier"
	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// bundle is a sigstore bundle, and what it is about.
type bundle struct {
	data      []byte
	mediaType string
	signed    envelope.Bundle
	statement *envelope.Statement // nil in a bundle over a message
	digest    string              // of the message
}

// parseBundle reads a bundle of the media type that it names.
func parseBundle(data []byte) (bundle, error) {
	var named struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &named); err != nil || !envelope.IsBundle(named.MediaType) {
		return bundle{}, errors.New("not a sigstore bundle")
	}
	data = bytes.TrimSpace(data)
	signed, err := envelope.ParseBundle(named.MediaType, data)
	if err != nil {
		return bundle{}, err
	}
	b := bundle{data: data, mediaType: named.MediaType, signed: signed, digest: signed.Digest}
	if signed.Statement != nil {
		statement, err := envelope.ParseStatement(signed.Statement)
		if err != nil {
			return bundle{}, err
		}
		b.statement = &statement
	}
	return b, nil
}

// signAgain returns the bundle in which key says what b says: over the same bytes.
// message is what b is over, when that is a message.
func (b bundle) signAgain(ctx context.Context, key crypto.Signer, message []byte) (bundle, error) {
	content := signer.Content{Statement: b.signed.Statement}
	if b.statement == nil {
		content = signer.Content{Message: message}
	}
	sealed, err := signer.Seal(ctx, signer.Config{Key: key}, content)
	if err != nil {
		return bundle{}, err
	}
	return parseBundle(sealed.Bundle)
}

// putBundles attaches bundles to subject as referrers, as cosign v3 does
// (specs/BUNDLE_SPEC.md), and lists them under the fallback tag where the registry does
// not say that it does. What else is to be added is added with that list: every write to
// a tag is watched for a while, all of them in one go. It returns what was attached, on
// an error as well.
func putBundles(ctx context.Context, config signer.Config, repo *repository, subject *carrier.Node, bundles []bundle, more ...signer.Addition) ([]v1.Descriptor, error) {
	list := signer.Addition{Repository: repo.Name(), Tag: carrier.Tag(subject.Digest, ""), List: true}
	var put []v1.Descriptor
	var failed error
	for _, b := range bundles {
		desc, listed, err := putBundle(ctx, repo, subject, b)
		if err != nil {
			failed = err
			break
		}
		put = append(put, desc)
		if listed {
			continue
		}
		raw, err := json.Marshal(desc)
		if err != nil {
			return nil, err
		}
		list.Descriptors = append(list.Descriptors, raw)
	}
	if len(list.Descriptors) > 0 {
		more = append(more, list)
	}
	if _, err := signer.Add(ctx, config, more...); err != nil {
		return nil, errors.Join(failed, err)
	}
	return put, failed
}

// putBundle stores a bundle that refers to subject, and reports whether the registry
// says that it lists it.
func putBundle(ctx context.Context, repo *repository, subject *carrier.Node, b bundle) (desc v1.Descriptor, listed bool, err error) {
	empty := []byte("{}")
	content, predicate := "message-signature", envelope.PredicateCosignSign
	if b.statement != nil {
		content, predicate = "dsse-envelope", b.statement.PredicateType
	}
	manifest := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  b.mediaType,
		Config:        v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Size: int64(len(empty)), Digest: sha256Of(empty), ArtifactType: b.mediaType},
		Layers:        []v1.Descriptor{{MediaType: types.MediaType(b.mediaType), Size: int64(len(b.data)), Digest: sha256Of(b.data)}},
		Subject:       &v1.Descriptor{MediaType: subject.MediaType, Size: int64(len(subject.Data)), Digest: subject.Digest},
		Annotations: map[string]string{
			"org.opencontainers.image.created":  time.Now().UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content":       content,
			"dev.sigstore.bundle.predicateType": predicate,
		},
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	for _, blob := range [][]byte{empty, b.data} {
		if err := putSmall(ctx, repo, blob); err != nil {
			return v1.Descriptor{}, false, fmt.Errorf("upload the bundle: %w", err)
		}
	}
	desc = v1.Descriptor{
		MediaType: manifest.MediaType, Size: int64(len(data)), Digest: sha256Of(data),
		ArtifactType: manifest.ArtifactType, Annotations: manifest.Annotations,
	}
	listed, err = repo.PutManifest(ctx, desc.Digest.String(), carrier.Manifest{Data: data, MediaType: manifest.MediaType})
	return desc, listed, err
}

func putSmall(ctx context.Context, repo *repository, data []byte) error {
	desc := v1.Descriptor{Digest: sha256Of(data), Size: int64(len(data))}
	there, err := repo.HasBlob(ctx, desc.Digest)
	if err != nil || there {
		return err
	}
	_, err = repo.PutBlob(ctx, desc, nil, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	return err
}
