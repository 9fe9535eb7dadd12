package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy/rego"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// askingImages are the functions of policy eval, and what they keep until it ends.
// They are called by one goroutine.
type askingImages struct {
	*registryFlags
	platform string
	layers   layerFiles
	closers  []func()
}

func (a *askingImages) close() {
	for _, closing := range a.closers {
		closing()
	}
	a.layers.close()
}

func (a *askingImages) functions() []rego.Function {
	return []rego.Function{
		{Name: "oci.manifest", Arguments: []string{"ref"}, Call: a.manifest},
		{Name: "oci.file", Arguments: []string{"ref", "path"}, Call: a.file},
		{Name: "cosign.signatures", Arguments: []string{"ref"}, Call: a.signatures},
		{Name: "cosign.verify", Arguments: []string{"ref", "key"}, Call: a.verify},
	}
}

// found is an image that was looked up.
type foundImage struct {
	direct
	reference name.Reference
	digest    v1.Hash
	manifest  []byte
}

// find looks an image up; an error matches fs.ErrNotExist when there is none.
func (a *askingImages) find(ctx context.Context, image string) (foundImage, error) {
	reference, err := name.ParseReference(image, a.nameOptions()...)
	if err != nil {
		return foundImage{}, err
	}
	registry, free, err := a.openDirect(ctx, reference)
	if err != nil {
		return foundImage{}, err
	}
	a.closers = append(a.closers, free)
	content, _, _, err := registry.image.client.Manifest(ctx, registry.image.repository, reference.Identifier(), v1.Hash{})
	if err != nil {
		return foundImage{}, err
	}
	found := foundImage{registry, reference, sha256Of(content), content}
	if digest, ok := reference.(name.Digest); ok && digest.DigestStr() != found.digest.String() {
		return foundImage{}, fmt.Errorf("the registry sent bytes that hash to %s", found.digest)
	}
	return found, nil
}

func (f foundImage) subject() verifier.Subject {
	return verifier.Subject{Repository: canonicalName(f.reference), Digest: f.digest}
}

func (a *askingImages) manifest(ctx context.Context, given []string) (any, error) {
	found, err := a.find(ctx, given[0])
	if err != nil {
		return nil, err
	}
	var manifest any
	decoder := json.NewDecoder(strings.NewReader(string(found.manifest)))
	decoder.UseNumber()
	if err := decoder.Decode(&manifest); err != nil {
		return nil, fmt.Errorf("the manifest is not JSON: %w", err)
	}
	return manifest, nil
}

func (a *askingImages) file(ctx context.Context, given []string) (any, error) {
	found, err := a.find(ctx, given[0])
	if err != nil {
		return nil, err
	}
	content, err := found.readFile(ctx, &a.layers, a.platform, given[1])
	return string(content), err
}

// verify lists the signatures that hold by a key. Where there is none it is undefined.
func (a *askingImages) verify(ctx context.Context, given []string) (any, error) {
	found, err := a.find(ctx, given[0])
	if err != nil {
		return nil, err
	}
	key, err := verifier.ParseKey([]byte(given[1])) // a key is no name, and a name no key
	if err != nil {
		if key, err = readPublicKey("--key", given[1]); err != nil {
			return nil, opaque(err)
		}
	}
	authorities := []verifier.Authority{{Name: "the key", Keys: []verifier.Key{key}}}
	report := verifier.Verify(ctx, found, found.subject(), authorities, verifier.Sources(), nil)
	type place struct {
		source string
		digest v1.Hash
	}
	holds := make(map[place]bool)
	for _, e := range report.Evidence {
		if e.Verified() && e.IsSignature() {
			holds[place{e.Source(), e.Digest()}] = true
		}
	}
	all, err := found.signatures(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s shownSignature) bool { return !holds[place{s.Source, s.digest}] || !s.by(authorities) })
	switch {
	case len(all) > 0:
		return all, nil
	case len(report.Failures) > 0:
		return nil, opaque(fmt.Errorf("%s: %w", report.Failures[0].Source, report.Failures[0].Err))
	default:
		return nil, fmt.Errorf("no signature by %s: %w", given[1], fs.ErrNotExist)
	}
}

// opaque is err as one that is no absence of an image, whatever caused it: a missing key
// file is a mistake, not a no.
func opaque(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}

// shownSignature is one signature that was found. Its names are those that the functions
// have had since the first cosign.
type shownSignature struct {
	Base64Signature string
	Payload         []byte // a simple-signing payload, or an in-toto statement
	Source          string // as verifier.Evidence has it

	digest v1.Hash // likewise
}

// by reports whether somebody of authorities made it. One in a bundle, which has no
// other, is by whom the bundle is.
func (s shownSignature) by(authorities []verifier.Authority) bool {
	if !strings.HasPrefix(s.Source, "sha256-") {
		return true
	}
	signature, err := base64.StdEncoding.DecodeString(s.Base64Signature)
	return err == nil && verifier.VerifyBlob(s.Payload, verifier.Blob{Signature: signature}, authorities, time.Time{}).Verified()
}

// signatures lists what is found beside an image, and checks nothing of it.
func (a *askingImages) signatures(ctx context.Context, given []string) (any, error) {
	found, err := a.find(ctx, given[0])
	if err != nil {
		return nil, err
	}
	return found.signatures(ctx)
}

// signatures lists what stands at the tags and in the bundles that the referrers API or
// the fallback tag lists, as far as it can be read.
func (f foundImage) signatures(ctx context.Context) ([]shownSignature, error) {
	all := []shownSignature{}
	tag := "sha256-" + f.digest.Hex
	for _, suffix := range []string{".sig", ".cosign"} {
		image, err := f.manifestOf(ctx, tag+suffix)
		if err != nil {
			return nil, err
		}
		for _, layer := range image.Layers {
			if layer.MediaType != envelope.MediaTypeSimpleSigning || len(all) == verifier.MaxSignatures {
				continue
			}
			payload, err := f.Blob(ctx, "", layer)
			if err != nil {
				return nil, opaque(err)
			}
			all = append(all, shownSignature{layer.Annotations["dev.cosignproject.cosign/signature"], payload, tag + suffix, layer.Digest})
		}
	}
	listed, err := f.Referrers(ctx, "", f.digest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, verifier.ErrMore) {
		return nil, err
	}
	fallback, err := f.manifestOf(ctx, tag)
	if err != nil {
		return nil, err
	}
	return f.bundles(ctx, all, append(listed, fallback.Manifests...))
}

// anyManifest is an image's or an index's.
type anyManifest struct {
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
}

// manifestOf reads a manifest; where there is none, or no such thing, it is empty.
func (f foundImage) manifestOf(ctx context.Context, reference string) (m anyManifest, err error) {
	data, err := f.Manifest(ctx, "", reference)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil && json.Unmarshal(data, &m) != nil {
		m = anyManifest{}
	}
	return m, err
}

// bundles adds the signatures in the bundles among the referrers.
func (f foundImage) bundles(ctx context.Context, all []shownSignature, referrers []v1.Descriptor) ([]shownSignature, error) {
	opened := make(map[v1.Hash]bool)
	for _, referrer := range referrers {
		if referrer.Digest.Algorithm != "sha256" || opened[referrer.Digest] || len(opened) == verifier.MaxReferrers {
			continue
		}
		opened[referrer.Digest] = true
		image, err := f.manifestOf(ctx, referrer.Digest.String())
		if err != nil {
			return nil, err
		}
		for _, layer := range image.Layers {
			if !envelope.IsBundle(string(layer.MediaType)) || len(all) == verifier.MaxSignatures {
				continue
			}
			data, err := f.Blob(ctx, "", layer)
			if err != nil {
				return nil, opaque(err)
			}
			bundle, err := envelope.ParseBundle(string(layer.MediaType), data)
			if err != nil || bundle.Statement == nil {
				continue
			}
			if said, err := envelope.ParseStatement(bundle.Statement); err == nil && said.PredicateType == envelope.PredicateCosignSign {
				all = append(all, shownSignature{base64.StdEncoding.EncodeToString(bundle.Signature), bundle.Statement, "referrer " + referrer.Digest.String(), layer.Digest})
			}
		}
	}
	return all, nil
}
