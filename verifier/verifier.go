package verifier

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is what the verifier reads evidence from. The proxy implements it
// over its store and an upstream, the command line over an upstream alone.
//
// An error that matches fs.ErrNotExist says that the registry holds no such
// thing and could be trusted to tell; every other error means that nobody
// could tell, and makes a denial inconclusive.
type Registry interface {
	// Manifest returns the manifest that reference, a tag or a digest, names
	// in repository: at most MaxManifestSize bytes. For a digest the bytes
	// hash to it.
	Manifest(ctx context.Context, repository, reference string) ([]byte, error)

	// Blob returns the whole blob that desc describes: exactly desc.Size
	// bytes, at most MaxPayloadSize, that hash to desc.Digest.
	Blob(ctx context.Context, repository string, desc v1.Descriptor) ([]byte, error)
}

// Subject is the manifest about which evidence is looked for.
type Subject struct {
	// Repository is the repository's name as Registry takes it.
	Repository string
	Digest     v1.Hash
}

// Authority is a named set of keys, any one of which may vouch.
type Authority struct {
	Name string
	Keys []Key
	// Suspended, when not empty, says why the authority cannot be judged at
	// the moment (its key file is gone): its keys vouch for nothing, and a
	// denial that it might have turned is inconclusive.
	Suspended string
}
