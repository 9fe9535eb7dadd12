package carrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// Kind is what a piece of evidence is.
type Kind string

// The kinds of evidence.
const (
	Signature   Kind = "signature"
	Attestation Kind = "attestation"
	SBOM        Kind = "sbom"
	Artifact    Kind = "artifact" // of another type
)

// Node is a manifest, and what belongs to it.
type Node struct {
	Digest       v1.Hash
	MediaType    types.MediaType
	Data         []byte
	ArtifactType string // the manifest's, or else the type of its config
	Annotations  map[string]string
	Subject      v1.Hash // zero for none
	Blobs        []v1.Descriptor
	Layers       []v1.Descriptor   // of Blobs, those that are no config
	RawLayers    []json.RawMessage // the same, as they are written
	Listed       []v1.Descriptor   // by an index

	From      Place
	Kind      Kind         // of evidence; empty for an image
	Predicate string       // the predicate type of a bundle, where one is known
	Platform  *v1.Platform // for which an index lists it

	Children  []*Node  // of an index, in its order
	Tagged    []Tagged // images of evidence under tags
	Referrers []*Node  // manifests whose subject it is
}

// Tagged is an image of evidence under a tag.
type Tagged struct {
	Tag string
	*Node
}

// IsIndex reports whether the node is an index.
func (n *Node) IsIndex() bool { return n.MediaType.IsIndex() }

// Descriptor describes the node as a list of referrers does.
func (n *Node) Descriptor() v1.Descriptor {
	return v1.Descriptor{
		MediaType: n.MediaType, Digest: n.Digest, Size: int64(len(n.Data)),
		ArtifactType: n.ArtifactType, Annotations: n.Annotations,
	}
}

// suffixes are what the tags of evidence end in, and what is under them.
var suffixes = []struct {
	suffix string
	kind   Kind
}{
	{".sig", Signature}, {".cosign", Signature}, {".att", Attestation}, {".sbom", SBOM},
}

// Tag returns the tag of evidence about subject that ends in suffix, as ".sig";
// without one it is the fallback tag of its referrers.
func Tag(subject v1.Hash, suffix string) string {
	return subject.Algorithm + "-" + subject.Hex + suffix
}

const artifactManifest types.MediaType = "application/vnd.oci.artifact.manifest.v1+json"

// parse reads a manifest of any type, so far as it has to be known for carrying it.
func parse(m Manifest, digest v1.Hash, from Place) (*Node, error) {
	if err := envelope.CheckJSON(m.Data, envelope.MaxDepth); err != nil {
		return nil, err
	}
	var fields struct {
		SchemaVersion json.RawMessage    `json:"schemaVersion"`
		MediaType     types.MediaType    `json:"mediaType"`
		ArtifactType  string             `json:"artifactType"`
		Config        *v1.Descriptor     `json:"config"`
		Layers        *[]json.RawMessage `json:"layers"`
		Blobs         *[]json.RawMessage `json:"blobs"`
		Manifests     *[]v1.Descriptor   `json:"manifests"`
		Subject       *v1.Descriptor     `json:"subject"`
		Annotations   map[string]string  `json:"annotations"`
	}
	if err := json.Unmarshal(m.Data, &fields); err != nil {
		return nil, fmt.Errorf("not a manifest: %w", err)
	}
	n := &Node{
		Digest: digest, Data: m.Data, MediaType: fields.MediaType, From: from,
		ArtifactType: fields.ArtifactType, Annotations: fields.Annotations,
	}
	if n.MediaType == "" {
		n.MediaType, _, _ = cutParameters(m.MediaType)
	}
	if fields.Subject != nil {
		n.Subject = fields.Subject.Digest
	}
	list := fields.Layers
	switch {
	case fields.Manifests != nil && (fields.Layers != nil || fields.Config != nil || fields.Blobs != nil):
		return nil, errors.New("ambiguous: an index and an image manifest in one")
	case n.MediaType.IsIndex() && fields.Manifests != nil:
		n.Listed = *fields.Manifests
		return n, nil
	case n.MediaType == artifactManifest && fields.Manifests == nil && fields.Layers == nil:
		list = fields.Blobs
	case n.MediaType.IsImage() && !n.MediaType.IsSchema1() && fields.Config != nil && fields.Layers != nil:
		n.Blobs = append(n.Blobs, *fields.Config)
		if n.ArtifactType == "" {
			n.ArtifactType = string(fields.Config.MediaType)
		}
	default:
		return nil, fmt.Errorf("neither an index nor an image manifest (%q)", n.MediaType)
	}
	if list == nil {
		return n, nil
	}
	for i, raw := range *list {
		var layer v1.Descriptor
		if err := json.Unmarshal(raw, &layer); err != nil {
			return nil, fmt.Errorf("not a manifest: layer %d: %w", i, err)
		}
		n.RawLayers = append(n.RawLayers, raw)
		n.Layers = append(n.Layers, layer)
	}
	n.Blobs = append(n.Blobs, n.Layers...)
	return n, nil
}

func cutParameters(mediaType types.MediaType) (types.MediaType, string, bool) {
	base, rest, found := strings.Cut(string(mediaType), ";")
	return types.MediaType(strings.TrimSpace(base)), rest, found
}

// The types by which evidence is known.
const (
	typeBundleContent   = "dev.sigstore.bundle.content"
	typeBundlePredicate = "dev.sigstore.bundle.predicateType"
	typeDSSE            = "application/vnd.dsse.envelope.v1+json"
	typeInToto          = "application/vnd.in-toto+json"
	typeNotation        = "application/vnd.cncf.notary.signature"
)

// classify says what a referrer is. Of a bundle that does not say itself the
// statement is read.
func (n *Node) classify(ctx context.Context) {
	n.Kind = Artifact
	kinds := []string{n.ArtifactType}
	for _, layer := range n.Layers {
		kinds = append(kinds, string(layer.MediaType))
	}
	for _, kind := range kinds {
		switch {
		case envelope.IsBundle(kind):
			n.classifyBundle(ctx)
			return
		case kind == typeNotation, kind == envelope.MediaTypeSimpleSigning, strings.HasPrefix(kind, "application/vnd.dev.cosign.artifact.sig."):
			n.Kind = Signature
			return
		case kind == typeDSSE, kind == typeInToto:
			n.Kind = Attestation
			return
		case isSBOM(kind):
			n.Kind = SBOM
			return
		}
	}
}

func isSBOM(kind string) bool {
	kind = strings.ToLower(kind)
	for _, mark := range []string{"spdx", "cyclonedx", "vnd.syft", "cosign.artifact.sbom"} {
		if strings.Contains(kind, mark) {
			return true
		}
	}
	return false
}

func (n *Node) classifyBundle(ctx context.Context) {
	n.Kind = Attestation
	n.Predicate = n.Annotations[typeBundlePredicate]
	if n.Predicate == "" && n.Annotations[typeBundleContent] != "message-signature" && len(n.Layers) == 1 {
		n.Predicate = n.readPredicate(ctx)
	}
	switch n.Predicate {
	case envelope.PredicateCosignSign:
		n.Kind = Signature
	case "":
		n.Kind = Signature // over the manifest itself, or not to be understood
	}
}

func (n *Node) readPredicate(ctx context.Context) string {
	data, err := ReadBlob(ctx, n.From, n.Layers[0], maxSmall)
	if err != nil {
		return ""
	}
	bundle, err := envelope.ParseBundle(string(n.Layers[0].MediaType), data)
	if err != nil || bundle.Statement == nil {
		return ""
	}
	statement, err := envelope.ParseStatement(bundle.Statement)
	if err != nil {
		return ""
	}
	return statement.PredicateType
}
