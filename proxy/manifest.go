package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// maxManifestDepth bounds the nesting of a manifest's JSON.
const maxManifestDepth = 32

// manifest is a parsed manifest and the bytes that it was parsed from, whose
// hash is its digest. It is not changed once made.
type manifest struct {
	digest    v1.Hash
	mediaType types.MediaType // derived from the bytes
	bytes     []byte

	index     bool            // lists manifests, not layers
	manifests []v1.Descriptor // of an index
	config    v1.Descriptor   // of an image manifest
	layers    []v1.Descriptor
	subject   *v1.Descriptor

	// header values, shared by all answers
	digestHeader, etagHeader, typeHeader, lengthHeader []string
}

func digestOf(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// parseManifest parses the bytes of a manifest. contentType is what the
// upstream called them, or empty; it is not believed, but bytes and header
// that contradict each other are refused, because two clients could take such
// a document for two different things (CVE-2021-41190). Errors match
// errMismatch.
func parseManifest(content []byte, contentType string) (*manifest, error) {
	if len(content) > verifier.MaxManifestSize {
		return nil, fmt.Errorf("%w: the manifest is larger than %d bytes", errMismatch, verifier.MaxManifestSize)
	}
	declared := mediaTypeOf(contentType)
	if isSchema1(declared) {
		return nil, errSchema1
	}
	if err := envelope.CheckJSON(content, maxManifestDepth); err != nil {
		return nil, fmt.Errorf("%w: the manifest is not one plain JSON document: %s", errMismatch, printable(err.Error()))
	}
	var document struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     *string         `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		Subject       json.RawMessage `json:"subject"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("%w: the manifest does not parse", errMismatch)
	}
	if document.SchemaVersion == 1 || document.FSLayers != nil {
		return nil, errSchema1
	}
	if document.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: the manifest's schemaVersion is %d, not 2", errMismatch, document.SchemaVersion)
	}
	if err := checkNames(content, manifestNames); err != nil {
		return nil, err
	}
	m := &manifest{bytes: content, digest: digestOf(content)}
	m.index = document.Manifests != nil
	if m.index && (document.Layers != nil || document.Config != nil) {
		return nil, fmt.Errorf("%w: the manifest is ambiguous: it lists both manifests and layers", errMismatch)
	}
	own := ""
	if document.MediaType != nil {
		own = *document.MediaType
	}
	if err := m.setMediaType(own, document.MediaType != nil, declared); err != nil {
		return nil, err
	}
	if err := m.setContent(document.Config, document.Layers, document.Manifests, document.Subject); err != nil {
		return nil, err
	}
	m.digestHeader = []string{m.digest.String()}
	m.etagHeader = []string{`"` + m.digest.String() + `"`}
	m.typeHeader = []string{string(m.mediaType)}
	m.lengthHeader = []string{strconv.Itoa(len(content))}
	return m, nil
}

var errSchema1 = fmt.Errorf("%w: Docker schema 1 manifests are not served, for their signature scheme does not bind what is pulled; push the image again with a current client", errMismatch)

// whyUnfit is what parseManifest found, without whose fault it is.
func whyUnfit(err error) string { return strings.TrimPrefix(err.Error(), errMismatch.Error()+": ") }

func isSchema1(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.docker.distribution.manifest.v1+")
}

// mediaTypeOf returns the media type of a Content-Type header without its
// parameters, lower-cased; what does not parse is returned as it stands.
func mediaTypeOf(contentType string) string {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return strings.ToLower(strings.TrimSpace(contentType))
	}
	return mediaType
}

// setMediaType settles the one media type of the manifest. A document that
// names none can only be OCI's, whose mediaType field is optional.
func (m *manifest) setMediaType(own string, named bool, declared string) error {
	if !named {
		own = string(types.OCIManifestSchema1)
		if m.index {
			own = string(types.OCIImageIndex)
		}
	}
	m.mediaType = types.MediaType(own)
	switch m.mediaType {
	case types.OCIImageIndex, types.DockerManifestList:
		if !m.index {
			return fmt.Errorf("%w: the manifest calls itself an index but lists no manifests", errMismatch)
		}
	case types.OCIManifestSchema1, types.DockerManifestSchema2:
		if m.index {
			return fmt.Errorf("%w: the manifest calls itself an image manifest but lists manifests", errMismatch)
		}
	default:
		return fmt.Errorf("%w: manifests of media type %s are not served", errMismatch, quote(own))
	}
	if declared != "" && declared != own {
		// the header is not told: an upstream may send back what it was sent
		return fmt.Errorf("%w: the Content-Type is another than the %s of the manifest's bytes", errMismatch, own)
	}
	return nil
}

func (m *manifest) setContent(config, layers, manifests, subject json.RawMessage) error {
	for _, list := range []json.RawMessage{layers, manifests} {
		if tooMany(list) {
			return fmt.Errorf("%w: the manifest has a descriptor without a digest", errMismatch)
		}
		if err := checkDescriptorNames(list); err != nil {
			return err
		}
	}
	for _, one := range []json.RawMessage{config, subject} {
		if err := checkNames(one, descriptorNames); err != nil {
			return err
		}
	}
	if m.index {
		if err := json.Unmarshal(manifests, &m.manifests); err != nil {
			return fmt.Errorf("%w: the index's manifests do not parse", errMismatch)
		}
	} else {
		if config == nil || json.Unmarshal(config, &m.config) != nil {
			return fmt.Errorf("%w: the manifest has no config that parses", errMismatch)
		}
		if layers != nil && json.Unmarshal(layers, &m.layers) != nil {
			return fmt.Errorf("%w: the manifest's layers do not parse", errMismatch)
		}
		if isZero(m.config.Digest) {
			return fmt.Errorf("%w: the manifest's config has no digest", errMismatch)
		}
	}
	if subject != nil && string(subject) != "null" {
		m.subject = new(v1.Descriptor)
		if json.Unmarshal(subject, m.subject) != nil || isZero(m.subject.Digest) {
			return fmt.Errorf("%w: the manifest's subject does not parse", errMismatch)
		}
	}
	return m.checkDescriptors()
}

// The names that clients decide upon.
var (
	manifestNames   = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers", "blobs"}
	descriptorNames = []string{"mediaType", "artifactType", "digest", "size", "urls", "data", "platform", "annotations"}
)

// checkNames refuses an object with a name that is a known one but for letter
// case: some clients read it as that, and others do not see it. What is no
// object is not looked at.
func checkNames(object json.RawMessage, known []string) error {
	var members map[string]json.RawMessage
	if len(object) == 0 || json.Unmarshal(object, &members) != nil {
		return nil
	}
	for name := range members {
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return fmt.Errorf("%w: the manifest is ambiguous: %s is not %s, but some clients take it for that", errMismatch, quote(name), k)
			}
		}
	}
	return nil
}

// shortestDescriptor is as few bytes as a descriptor can have.
const shortestDescriptor = len(`{"digest":"sha256:"}`) + 2*sha256.Size

// tooMany reports whether a list has so many entries that not all can be descriptors. In
// memory one takes some hundred bytes, though it may be written with two.
func tooMany(list json.RawMessage) bool {
	var entries []anything
	_ = json.Unmarshal(list, &entries)
	return len(entries) > len(list)/shortestDescriptor
}

// anything is any JSON value, and takes no memory.
type anything struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*anything) UnmarshalJSON([]byte) error { return nil }

func checkDescriptorNames(list json.RawMessage) error {
	var objects []json.RawMessage
	if len(list) == 0 || json.Unmarshal(list, &objects) != nil {
		return nil
	}
	for _, object := range objects {
		if err := checkNames(object, descriptorNames); err != nil {
			return err
		}
	}
	return nil
}

// checkDescriptors refuses descriptors without a digest, with a negative size,
// or that give one digest two sizes: what a client would do with them is
// anybody's guess.
func (m *manifest) checkDescriptors() error {
	sizes := make(map[v1.Hash]int64)
	for d := range m.descriptors {
		if isZero(d.Digest) || d.Size < 0 {
			return fmt.Errorf("%w: the manifest has a descriptor without digest or with a negative size", errMismatch)
		}
		if size, ok := sizes[d.Digest]; ok && size != d.Size {
			return fmt.Errorf("%w: the manifest gives %s two sizes", errMismatch, d.Digest)
		}
		sizes[d.Digest] = d.Size
	}
	return nil
}

// descriptors yields everything that the manifest makes reachable: the
// manifests of an index, or the config and layers of an image manifest; never
// its subject, which it only points at.
func (m *manifest) descriptors(yield func(v1.Descriptor) bool) {
	if m.index {
		for _, d := range m.manifests {
			if !yield(d) {
				return
			}
		}
		return
	}
	if !yield(m.config) {
		return
	}
	for _, d := range m.layers {
		if !yield(d) {
			return
		}
	}
}

// reaches returns the descriptor by which the manifest reaches digest.
func (m *manifest) reaches(digest v1.Hash) (v1.Descriptor, bool) {
	for d := range m.descriptors {
		if d.Digest == digest {
			return d, true
		}
	}
	return v1.Descriptor{}, false
}

// edges returns the digests that the manifest makes reachable.
func (m *manifest) edges() []v1.Hash {
	var digests []v1.Hash
	for d := range m.descriptors {
		digests = append(digests, d.Digest)
	}
	return digests
}

// isEvidenceShaped reports whether the manifest is made as signature artifacts
// are: at least one layer, all of evidence media types. It says nothing about
// what the layers hold.
func (m *manifest) isEvidenceShaped() bool {
	if m.index || len(m.layers) == 0 || m.bringsAlong() {
		return false
	}
	for _, layer := range m.layers {
		if !envelope.IsEvidence(string(layer.MediaType)) {
			return false
		}
	}
	switch m.config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON, types.OCIEmptyJSON, cosignArtifactConfig:
		return true
	}
	return envelope.IsEvidence(string(m.config.MediaType))
}

// differentLayers returns the layers without those that are the same content again, as
// signatures over one payload are: at most one more than verifier.MaxSignatures.
func (m *manifest) differentLayers() []v1.Descriptor {
	type content struct {
		digest    v1.Hash
		mediaType types.MediaType
	}
	seen := make(map[content]bool)
	var different []v1.Descriptor
	for _, layer := range m.layers {
		is := content{layer.Digest, layer.MediaType}
		if seen[is] {
			continue
		}
		seen[is] = true
		if different = append(different, layer); len(different) > verifier.MaxSignatures {
			break
		}
	}
	return different
}

// bringsAlong reports whether a descriptor holds other content than its digest
// says, or names another place to fetch it: clients use both without asking us.
// Content that is what the digest says, as the empty config often is, is the
// content that we serve.
func (m *manifest) bringsAlong() bool {
	for d := range m.descriptors {
		if len(d.URLs) > 0 || d.Data != nil && digestOf(d.Data) != d.Digest {
			return true
		}
	}
	return false
}

// cosignArtifactConfig is the config of cosign's signatures that carry a
// subject field (its experimental oci-1-1 mode).
const cosignArtifactConfig = "application/vnd.dev.cosign.artifact.sig.v1+json"

// isPlainReferrer reports whether the manifest points at a subject and is made
// so that no client would run, unpack or install it. Docker's schema 2 has no
// subjects, and its clients do not look at the config's type.
func (m *manifest) isPlainReferrer() bool {
	if m.index || m.subject == nil || m.mediaType != types.OCIManifestSchema1 || m.bringsAlong() {
		return false
	}
	switch looseType(m.config.MediaType) {
	case "application/octet-stream", "application/json", "text/html":
		return false // docker takes such a config for an image's, since old registries called it so
	}
	for d := range m.descriptors {
		if isImagePart(looseType(d.MediaType)) {
			return false
		}
	}
	return true
}

// looseType is a media type as the most lenient client would read it.
func looseType(mediaType types.MediaType) string {
	loose, _, _ := strings.Cut(string(mediaType), ";")
	return strings.ToLower(strings.TrimSpace(loose))
}

func isImagePart(mediaType string) bool {
	if mediaType == "" {
		return true // an image's, for who does not look
	}
	for _, prefix := range [...]string{
		"application/vnd.oci.image.", "application/vnd.docker.", "application/vnd.wasm.", "application/wasm",
		"application/vnd.cncf.helm.", "application/vnd.cncf.flux.", // charts, and what Flux applies to a cluster
	} {
		if strings.HasPrefix(mediaType, prefix) {
			return true
		}
	}
	return false
}
