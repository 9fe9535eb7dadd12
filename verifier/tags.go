package verifier

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// signatureAnnotation is where cosign puts the signature of a layer's bytes.
const signatureAnnotation = "dev.cosignproject.cosign/signature"

// Tags returns the sources of cosign's signature images: one for the tag
// sha256-<hex>.sig, and one for sha256-<hex>.cosign, where cosign v0.1 to v0.3 put
// them. A tag that is absent is no error; one that names something other than a
// signature image yields a candidate that is rejected, not a failure, for
// asking again would not help.
//
// The latter is asked for, as the fallback tag of referrers is, when what the other
// sources have found does not satisfy: hardly any image has it, and every image
// would cost its upstream a request more.
func Tags() []Source { return []Source{tag(".sig"), legacyTag} }

// legacyTag is where cosign put signatures before v0.4.
const legacyTag = tag(".cosign")

// tag is a Source: the tag of this suffix.
type tag string

// Name implements Source.
func (suffix tag) Name() string { return string(suffix) + " tag" }

// Find implements Source.
func (suffix tag) Find(ctx context.Context, registry Registry, subject Subject, yield func(Candidate) bool) error {
	if subject.Digest.Algorithm != "sha256" {
		return nil // cosign has no such tag: it would be too long
	}
	if suffix == legacyTag && !yield(Candidate{patience: patience}) {
		return nil
	}
	name := "sha256-" + subject.Digest.Hex + string(suffix)
	manifest, err := registry.Manifest(ctx, subject.Repository, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	form := simpleSigning
	if suffix == attestationTag {
		form = attestation
	}
	inOrder(signatures(name, manifest, form), yield)
	return nil
}

// inOrder yields candidates, each with whether another one follows, and reports
// whether more are wanted. Each waits for the next, to know whether there is one.
func inOrder(all iter.Seq[Candidate], yield func(Candidate) bool) bool {
	var waiting *Candidate
	for c := range all {
		if waiting != nil {
			waiting.more = true
			if !yield(*waiting) {
				return false
			}
		}
		waiting = &c
	}
	return waiting == nil || yield(*waiting)
}

// signatures are the candidates in the layers of a signature image, which is called
// so; form is that of a layer of a media type, empty for a layer that is no business
// of ours.
func signatures(called string, manifest []byte, form func(mediaType string) string) iter.Seq[Candidate] {
	return func(yield func(Candidate) bool) {
		layers, err := signatureLayers(manifest)
		if err != nil {
			yield(Candidate{
				form:   usual(form),
				origin: called,
				blob:   v1.Descriptor{Digest: hashOf(manifest)},
				fault:  fmt.Sprintf("%s is no signature image: %v", called, err),
			})
			return
		}
		for c := range candidates(layers, form) {
			c.origin = called
			if c.fault != "" {
				c.fault = called + ": " + c.fault
			}
			if !yield(c) {
				return
			}
		}
	}
}

// usual is the form of what cannot be read in an image whose layers have these forms.
func usual(form func(mediaType string) string) string {
	return cmp.Or(form(envelope.MediaTypeSimpleSigning), FormAttestation)
}

// simpleSigning is the form of the layers of a signature tag.
func simpleSigning(mediaType string) string {
	if mediaType == envelope.MediaTypeSimpleSigning {
		return FormSimpleSigning
	}
	return ""
}

// candidates decodes a list of layers, one at a time, so that a manifest with
// room for a million costs no more memory than its bytes.
func candidates(layers json.RawMessage, form func(mediaType string) string) iter.Seq[Candidate] {
	return func(yield func(Candidate) bool) {
		decoder := json.NewDecoder(bytes.NewReader(layers))
		if _, err := decoder.Token(); err != nil {
			return // not reached: signatureLayers has checked that it is a list
		}
		for i := 0; decoder.More(); i++ {
			if i == maxLayers {
				yield(Candidate{form: usual(form), fault: fmt.Sprintf("it has more than %d layers, of which the others are not read", maxLayers)})
				return
			}
			var layer json.RawMessage
			if err := decoder.Decode(&layer); err != nil {
				return // not reached: the JSON has been checked
			}
			c, ok := readLayer(layer, form)
			if c.fault != "" {
				c.fault = fmt.Sprintf("layer %d %s", i, c.fault)
			}
			if ok && !yield(c) {
				return
			}
		}
	}
}

// signatureLayers returns the layers of an image manifest, a JSON list. The
// bytes alone say what the manifest is.
func signatureLayers(manifest []byte) (json.RawMessage, error) {
	members, err := manifestMembers(manifest, types.MediaType.IsImage, "an image manifest's")
	if err != nil {
		return nil, err
	}
	if _, ok := members["manifests"]; ok {
		return nil, errors.New("it is an index, or both an index and an image")
	}
	if layers := members["layers"]; len(layers) > 0 && layers[0] == '[' {
		return layers, nil
	}
	return nil, errors.New("it has no list of layers")
}

// manifestMembers returns the members of a manifest whose media type, when it says
// one, is of a kind.
func manifestMembers(manifest []byte, isKind func(types.MediaType) bool, kind string) (map[string]json.RawMessage, error) {
	if len(manifest) > MaxManifestSize {
		return nil, fmt.Errorf("more than %d bytes", MaxManifestSize)
	}
	if err := envelope.CheckJSON(manifest, envelope.MaxDepth); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(manifest, &members); err != nil || members == nil {
		return nil, errors.New("not a JSON object")
	}
	if string(members["schemaVersion"]) != "2" {
		return nil, errors.New("schemaVersion is not 2")
	}
	if raw, ok := members["mediaType"]; ok {
		var mediaType types.MediaType
		if err := json.Unmarshal(raw, &mediaType); err != nil || !isKind(mediaType) {
			return nil, fmt.Errorf("mediaType %s is not %s", shorten(string(raw)), kind)
		}
	}
	return members, nil
}

// readLayer returns the candidate that a layer holds, or false for a layer of
// another media type, which is no business of ours.
func readLayer(layer json.RawMessage, form func(mediaType string) string) (Candidate, bool) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(layer, &members); err != nil || members == nil {
		return Candidate{form: usual(form), fault: "is not a JSON object"}, true
	}
	var mediaType string
	if err := json.Unmarshal(members["mediaType"], &mediaType); err != nil || form(mediaType) == "" {
		return Candidate{}, false
	}
	c := Candidate{form: form(mediaType), blob: v1.Descriptor{MediaType: types.MediaType(mediaType)}}
	switch c.fault = c.readBlob(members); {
	case c.fault != "":
	case c.form == FormSimpleSigning:
		c.fault = c.readSignature(members)
	case c.form == FormAttestation: // whose envelope holds its signature
		var annotations map[string]json.RawMessage
		if json.Unmarshal(members["annotations"], &annotations) == nil {
			c.attached = readAttached(annotations)
		}
	}
	return c, true
}

// readBlob fills c's blob from the members of a descriptor, by their exact names, and
// returns what is wrong with it.
func (c *Candidate) readBlob(members map[string]json.RawMessage) (fault string) {
	var digest string
	if err := json.Unmarshal(members["digest"], &digest); err != nil {
		return "has no digest"
	}
	hash, err := v1.NewHash(digest)
	if err != nil || hash.Algorithm != "sha256" {
		return fmt.Sprintf("has the digest %s, which is not sha256", shorten(digest))
	}
	c.blob.Digest = hash
	if err := json.Unmarshal(members["size"], &c.blob.Size); err != nil || c.blob.Size <= 0 {
		return "declares no size that a payload can have"
	}
	if c.blob.Size > MaxPayloadSize {
		return fmt.Sprintf("declares %d bytes, of which at most %d are read", c.blob.Size, MaxPayloadSize)
	}
	return ""
}

// readSignature fills c's signature from the annotations of its layer.
func (c *Candidate) readSignature(members map[string]json.RawMessage) (fault string) {
	var annotations map[string]json.RawMessage
	var encoded string
	if json.Unmarshal(members["annotations"], &annotations) != nil || json.Unmarshal(annotations[signatureAnnotation], &encoded) != nil {
		return "has no annotation " + signatureAnnotation
	}
	c.attached = readAttached(annotations)
	if base64.StdEncoding.DecodedLen(len(encoded)) > MaxSignatureSize {
		return fmt.Sprintf("has a signature of more than %d bytes", MaxSignatureSize)
	}
	var err error
	if c.signature, err = base64.StdEncoding.DecodeString(encoded); err != nil || len(c.signature) == 0 {
		return "has a signature that is not base64"
	}
	return ""
}

func hashOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
