package verifier

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// Sources returns all sources that there are.
func Sources() []Source { return append(Tags(), Referrers(), Attestations()) }

// Referrers returns the source of what points at its subject: sigstore bundles, as
// cosign v3 writes them, and signature images with a subject (cosign's experimental
// oci-1-1 mode); where attestations are wanted, attestation images with a subject, too.
// It asks the referrers API, and, when what all sources have found by
// then does not satisfy, reads the fallback tag sha256-<hex> too: clients keep that
// where the API is missing or does not say that it took a referrer, and it may be
// older than the API. Nothing that one of them lists hides what the other does, nor
// does a failure of the one.
//
// Of both lists together MaxReferrers are opened: first those that say they are
// signatures, then the others that may be. In the fallback tag every manifest may
// be, for clients have written wrong types there.
func Referrers() Source { return referrers{} }

type referrers struct{}

// Name implements Source.
func (referrers) Name() string { return "referrers" }

// reads returns how many bytes Find reads at most: the two lists, the referrers, and
// the subject, which signatures among them may be over.
func (referrers) reads() int64 {
	return MaxListSize + 2*MaxManifestSize + maxOpenedBytes + maxOpened*MaxManifestSize
}

// Find implements Source.
func (referrers) Find(ctx context.Context, registry Registry, subject Subject, yield func(Candidate) bool) error {
	o := opening{registry: registry, subject: subject, yield: yield, seen: make(map[v1.Hash]bool), window: 1}
	listed, err := o.api(ctx)
	o.note(err)
	if !o.open(ctx, listed, saysNot) {
		return nil
	}
	if !yield(Candidate{patience: patience}) {
		return nil
	}
	listed, err = o.fallback(ctx)
	o.note(err)
	if !o.open(ctx, listed, unlikely) {
		return nil
	}
	switch {
	case len(o.failures) > 0:
		return joined(o.failures)
	case o.more:
		return ErrMore
	}
	return nil
}

// opening is one Find at work.
type opening struct {
	registry Registry
	subject  Subject
	yield    func(Candidate) bool

	seen     map[v1.Hash]bool // referrers that were opened
	window   int              // how many are opened at once
	read     int              // bytes of them
	more     bool             // there is more than may be looked at
	failures []error
}

// note takes what came of a request.
func (o *opening) note(err error) {
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, ErrMore):
		o.more = true
	case !slices.ContainsFunc(o.failures, func(other error) bool { return other.Error() == err.Error() }):
		o.failures = append(o.failures, err)
	}
}

// joined is several errors as one, on one line.
func joined(all []error) error {
	err := all[0]
	for _, other := range all[1:] {
		err = fmt.Errorf("%w; %w", err, other)
	}
	return err
}

// api returns what the referrers API lists. Half of the time of a decision is left for
// the fallback tag, should the API never answer.
func (o *opening) api(ctx context.Context) ([]v1.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, DecisionTime/2)
	defer cancel()
	return o.registry.Referrers(ctx, o.subject.Repository, o.subject.Digest)
}

// fallback returns what the fallback tag lists. Where it holds an image, or the
// subject itself, as a copy by digest leaves it, it is no list.
func (o *opening) fallback(ctx context.Context) ([]v1.Descriptor, error) {
	if o.subject.Digest.Algorithm != "sha256" {
		return nil, nil
	}
	data, err := o.registry.Manifest(ctx, o.subject.Repository, "sha256-"+o.subject.Digest.Hex)
	if err != nil || hashOf(data) == o.subject.Digest {
		return nil, err
	}
	members, err := manifestMembers(data, types.MediaType.IsIndex, "an index's")
	if err != nil || members["layers"] != nil {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(members["manifests"]))
	if open, err := decoder.Token(); err != nil || open != json.Delim('[') {
		return nil, nil
	}
	var listed []v1.Descriptor
	for decoder.More() {
		if len(listed) == maxListed {
			return listed, ErrMore
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return listed, nil // not reached: the JSON has been checked
		}
		var desc v1.Descriptor
		if json.Unmarshal(raw, &desc) != nil {
			desc = v1.Descriptor{} // no digest: what it describes cannot be opened
		}
		listed = append(listed, desc)
	}
	return listed, nil
}

// likelihood is how likely a referrer is to hold a signature, by what its list says.
type likelihood int

const (
	saysSo   likelihood = iota // a bundle, said to hold a signature
	mayBe                      // of a type that a signature has, or of none
	saysNot                    // a bundle, said to hold an attestation; an attestation, where it is wanted
	unlikely                   // of another type
)

// predicateAnnotation is where cosign v3 says what a bundle holds.
const predicateAnnotation = "dev.sigstore.bundle.predicateType"

// cosignArtifact is the type of cosign's signature images with a subject.
const cosignArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"

func (o *opening) likely(desc v1.Descriptor) likelihood {
	switch kind := desc.ArtifactType; {
	case kind == inTotoArtifact && o.subject.Attestations:
		return saysNot
	case envelope.IsBundle(kind), kind == cosignArtifact, kind == "",
		kind == string(types.OCIConfigJSON), kind == "application/vnd.oci.empty.v1+json":
	default:
		return unlikely
	}
	switch desc.Annotations[predicateAnnotation] {
	case envelope.PredicateCosignSign:
		return saysSo
	case "":
		return mayBe
	}
	return saysNot
}

// open opens the referrers that are listed and no less likely than worst, the
// likelier ones first, and reports whether more are wanted.
func (o *opening) open(ctx context.Context, listed []v1.Descriptor, worst likelihood) bool {
	var next []v1.Descriptor
	for _, desc := range listed {
		if o.likely(desc) <= worst && !desc.MediaType.IsIndex() {
			next = append(next, desc)
		}
	}
	slices.SortStableFunc(next, func(a, b v1.Descriptor) int { return cmp.Compare(o.likely(a), o.likely(b)) })
	for from := 0; from < len(next); {
		var window []v1.Descriptor
		for ; from < len(next) && len(window) < o.window; from++ {
			digest := next[from].Digest
			if digest.Algorithm != "sha256" || o.seen[digest] {
				continue
			}
			if len(o.seen) == MaxReferrers || o.read > maxOpenedBytes {
				o.more = true
				break
			}
			o.seen[digest] = true
			window = append(window, next[from])
		}
		if len(window) == 0 {
			return true
		}
		o.window = maxOpened
		if !inOrder(o.candidates(window, o.fetch(ctx, window)), o.yield) {
			return false
		}
	}
	return true
}

// fetch fetches the manifests of referrers, all at once.
func (o *opening) fetch(ctx context.Context, window []v1.Descriptor) []payload {
	manifests := make([]payload, len(window))
	together(len(window), func(i int) {
		m := &manifests[i]
		m.data, m.err = o.registry.Manifest(ctx, o.subject.Repository, window[i].Digest.String())
	})
	return manifests
}

// candidates are those in the referrers of a window.
func (o *opening) candidates(window []v1.Descriptor, manifests []payload) iter.Seq[Candidate] {
	return func(yield func(Candidate) bool) {
		for i, manifest := range manifests {
			o.read += len(manifest.data)
			for c := range o.candidatesOf(window[i], manifest) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// candidatesOf are those in one referrer. What is of another type than signatures
// have, and has no layer that is evidence, is passed over in silence.
func (o *opening) candidatesOf(desc v1.Descriptor, manifest payload) iter.Seq[Candidate] {
	called := "referrer " + desc.Digest.String()
	none := func(func(Candidate) bool) {}
	rejected := func(why string) iter.Seq[Candidate] {
		c := Candidate{form: FormBundle, origin: called, blob: v1.Descriptor{Digest: desc.Digest}, fault: called + " " + why}
		if desc.ArtifactType == inTotoArtifact {
			c.form = FormAttestation
		}
		return func(yield func(Candidate) bool) { yield(c) }
	}
	switch {
	case errors.Is(manifest.err, fs.ErrNotExist):
		if !envelope.IsBundle(desc.ArtifactType) && desc.ArtifactType != cosignArtifact {
			return none
		}
		return rejected("is listed, and missing")
	case manifest.err != nil:
		o.note(fmt.Errorf("%s: %w", called, manifest.err))
		return none
	case hashOf(manifest.data) != desc.Digest:
		o.note(fmt.Errorf("%s: the registry delivered other bytes", called))
		return none
	case len(manifest.data) > maxReferrer:
		return rejected(fmt.Sprintf("has %d bytes, of which at most %d are read", len(manifest.data), maxReferrer))
	}
	about, err := subjectOf(manifest.data)
	switch {
	case err != nil && o.likely(desc) == unlikely:
		return none
	case err != nil:
		return rejected("is no signature image: " + err.Error())
	}
	return func(yield func(Candidate) bool) {
		for c := range signatures(called, manifest.data, o.formOf) {
			if c.fault == "" && about != o.subject.Digest.String() {
				c.fault = fmt.Sprintf("%s has another subject: %s", called, shorten(about))
			}
			if !yield(c) {
				return
			}
		}
	}
}

// formOf is the form of a referrer's layer of a media type.
func (o *opening) formOf(mediaType string) string {
	switch {
	case envelope.IsBundle(mediaType):
		return FormBundle
	case mediaType == envelope.MediaTypeSimpleSigning:
		return FormSimpleSigning
	case mediaType == envelope.MediaTypeDSSE && o.subject.Attestations:
		return FormAttestation
	}
	return ""
}

// subjectOf returns the digest of what an image manifest points at; empty for one
// that points at nothing.
func subjectOf(manifest []byte) (string, error) {
	members, err := manifestMembers(manifest, types.MediaType.IsImage, "an image manifest's")
	if err != nil {
		return "", err
	}
	var about map[string]json.RawMessage
	var digest string
	if raw, ok := members["subject"]; ok {
		if json.Unmarshal(raw, &about) != nil || json.Unmarshal(about["digest"], &digest) != nil {
			return "", nil
		}
	}
	return digest, nil
}
