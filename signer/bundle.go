package signer

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// What the manifest of a bundle says of it. Source: cosign
// pkg/oci/remote/write.go and specs/BUNDLE_SPEC.md.
const (
	createdAnnotation    = "org.opencontainers.image.created"
	contentAnnotation    = "dev.sigstore.bundle.content"
	bundleTypeAnnotation = "dev.sigstore.bundle.predicateType"
)

const emptyConfig types.MediaType = "application/vnd.oci.empty.v1+json"

// referrer is the manifest of a bundle, which refers to what is signed.
type referrer struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        v1.Descriptor     `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Subject       v1.Descriptor     `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// beginBundle stores the bundle of a result as a referrer, unless one that says
// the same is there, and makes a job of listing it where the registry does not.
func (s *Signer) beginBundle(ctx context.Context, p *pendingResult) error {
	statement, err := said(FormatBundle, p.Request)
	if err != nil {
		return err
	}
	tag := FallbackTag(p.Subject)
	unlock, err := s.lock(ctx, p.Repository, tag)
	if err != nil {
		return err
	}
	defer unlock()
	if p.Digest, p.Bundle, err = s.findBundle(ctx, p.Request, statement); err != nil || p.Bundle != nil {
		p.Kept = p.Bundle != nil
		return err
	}
	subject, err := s.subject(ctx, p.Request)
	if err != nil {
		return err
	}
	sealed, err := s.seal(ctx, Content{Statement: statement})
	if err != nil {
		return err
	}
	desc, listed, err := s.putBundle(ctx, p.Request, subject, sealed.Bundle)
	if err != nil {
		return err
	}
	p.Digest, p.Bundle = desc.Digest, sealed.Bundle
	if listed {
		return nil
	}
	p.Tag = tag
	p.job = newJob(p.Result, &listing{desc, p.Subject})
	return nil
}

// subject describes the subject of a request.
func (s *Signer) subject(ctx context.Context, r Request) (v1.Descriptor, error) {
	if r.MediaType != "" && r.Size > 0 {
		return v1.Descriptor{MediaType: r.MediaType, Size: r.Size, Digest: r.Subject}, nil
	}
	return Describe(ctx, s.registry, r.Repository, r.Subject.String())
}

// putBundle stores a bundle that refers to subject. It returns the descriptor by
// which a list of referrers names it.
func (s *Signer) putBundle(ctx context.Context, r Request, subject v1.Descriptor, bundle []byte) (desc v1.Descriptor, listed bool, err error) {
	predicateType := r.PredicateType
	if predicateType == "" {
		predicateType = envelope.PredicateCosignSign
	}
	config := []byte("{}")
	m := referrer{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  envelope.MediaTypeBundle,
		Config:        describe(emptyConfig, config),
		Layers:        []v1.Descriptor{describe(envelope.MediaTypeBundle, bundle)},
		Subject:       subject,
		Annotations: map[string]string{
			createdAnnotation:    time.Now().UTC().Format(time.RFC3339),
			contentAnnotation:    "dsse-envelope",
			bundleTypeAnnotation: predicateType,
		},
	}
	// cosign says it here, too, for readers that know nothing of the other.
	m.Config.ArtifactType = envelope.MediaTypeBundle
	manifest, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	for _, blob := range [][]byte{config, bundle} {
		if err := s.registry.PutBlob(ctx, r.Repository, digestOf(blob), blob); err != nil {
			return v1.Descriptor{}, false, fmt.Errorf("upload the bundle: %w", err)
		}
	}
	desc = describe(types.OCIManifestSchema1, manifest)
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	listed, err = s.registry.PutManifest(ctx, r.Repository, desc.Digest.String(), m.MediaType, manifest)
	if err != nil {
		return v1.Descriptor{}, false, fmt.Errorf("write the bundle's manifest: %w", err)
	}
	return desc, listed, nil
}

// Content is what is signed into a bundle: one of the two.
type Content struct {
	Statement []byte // in-toto
	Message   []byte // of any kind, signed as it is
}

// Sealed is what Seal makes.
type Sealed struct {
	Signature []byte
	Proof     Proof
	// Bundle is all of it as a sigstore bundle v0.3. That over a message holds
	// only the message's digest.
	Bundle []byte
}

// Seal signs content, and gets the proof that the configuration asks for. The
// configuration needs no registry.
func Seal(ctx context.Context, c Config, content Content) (Sealed, error) {
	if c.Key == nil {
		return Sealed{}, errors.New("signer: no key")
	}
	if err := checkPublicKey(c.Key.Public()); err != nil {
		return Sealed{}, fmt.Errorf("signer: %w", err)
	}
	s := &Signer{key: c.Key, chain: c.Chain, prover: c.Prover}
	return s.seal(ctx, content)
}

func (s *Signer) seal(ctx context.Context, c Content) (Sealed, error) {
	signed := Signed{Format: FormatBundle, Message: c.Message, Hash: hashOf(s.key)}
	if c.Statement != nil {
		signed.Message, signed.Statement = envelope.SignedStatement(c.Statement), c.Statement
	}
	signed, proof, err := s.sign(ctx, signed)
	if err != nil {
		return Sealed{}, err
	}
	sealed := envelope.Sealed{
		Certificate: signed.Certificate,
		Entries:     proof.Entries, Timestamps: proof.Timestamps,
		Statement: c.Statement, Signature: signed.Signature,
	}
	if c.Statement == nil {
		digest := sha256.Sum256(c.Message)
		sealed.Digest = digest[:]
	}
	if sealed.Certificate == nil {
		if sealed.KeyHint, err = keyHint(s.key.Public()); err != nil {
			return Sealed{}, err
		}
	}
	bundle, err := envelope.EncodeBundle(sealed)
	if err == nil && len(bundle) > maxPayloadSize {
		err = fmt.Errorf("the bundle would be larger than %d bytes", maxPayloadSize)
	}
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{signed.Signature, proof, bundle}, nil
}

// keyHint names a public key as cosign does in a bundle.
func keyHint(pub any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// findBundle looks for a bundle of the subject that our key signed, and that
// says what statement says. It returns the digest of its manifest and the bundle, nil
// for none.
func (s *Signer) findBundle(ctx context.Context, r Request, statement []byte) (v1.Hash, []byte, error) {
	if len(s.chain) > 0 {
		return v1.Hash{}, nil, nil // nobody else has this key
	}
	listed, err := s.registry.Referrers(ctx, r.Repository, r.Subject)
	if err != nil {
		return v1.Hash{}, nil, fmt.Errorf("read what refers to it: %w", err)
	}
	tried := 0
	for _, desc := range listed {
		// Fallback indexes of old say "empty" of every referrer.
		if desc.ArtifactType != "" && desc.ArtifactType != string(emptyConfig) && !envelope.IsBundle(desc.ArtifactType) {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		bundle, err := s.bundleOf(ctx, r.Repository, desc)
		if err != nil {
			return v1.Hash{}, nil, fmt.Errorf("read referrer %s: %w", desc.Digest, err)
		}
		if bundle != nil && s.saysTheSame(bundle, statement) {
			return desc.Digest, bundle, nil
		}
	}
	return v1.Hash{}, nil, nil
}

// bundleOf returns the bundle that a referrer carries, nil when there is none
// that could be ours: one that is listed and not there, say.
func (s *Signer) bundleOf(ctx context.Context, repository string, desc v1.Descriptor) ([]byte, error) {
	manifest, err := s.registry.Manifest(ctx, repository, desc.Digest.String())
	if isNone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m referrer
	if digestOf(manifest) != desc.Digest || json.Unmarshal(manifest, &m) != nil {
		return nil, nil
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != envelope.MediaTypeBundle || m.Layers[0].Size > maxPayloadSize {
		return nil, nil
	}
	bundle, err := s.registry.Blob(ctx, repository, m.Layers[0].Digest, maxPayloadSize)
	if isNone(err) {
		return nil, nil
	}
	if err != nil || digestOf(bundle) != m.Layers[0].Digest {
		return nil, err
	}
	return bundle, nil
}

// isNone reports whether err says that there is nothing that could be read, now or when
// it is asked for again.
func isNone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrTooLarge) }

// saysTheSame reports whether a bundle is by our key, with as much proof as is
// wanted, and claims what statement claims.
func (s *Signer) saysTheSame(bundle, statement []byte) bool {
	b, err := envelope.ParseBundle(envelope.MediaTypeBundle, bundle)
	if err != nil || b.Statement == nil || !verifies(s.key.Public(), b.Signed, b.Signature, hashOf(s.key)) {
		return false
	}
	if s.prover != nil && !hasProof(bundle) {
		return false
	}
	theirs, err := claims(b.Statement)
	if err != nil {
		return false
	}
	ours, err := claims(statement)
	return err == nil && reflect.DeepEqual(ours, theirs)
}

// claimed is all that a statement says.
type claimed struct {
	statement envelope.Statement
	predicate any
	name      string
	more      map[string]any
}

func claims(statement []byte) (claimed, error) {
	parsed, err := envelope.ParseStatement(statement)
	if err != nil || len(parsed.Subjects) != 1 {
		return claimed{}, fmt.Errorf("not a statement about one subject: %w", err)
	}
	var c claimed
	if c.name, c.more, err = parsed.Subjects[0].Claims(); err != nil {
		return claimed{}, err
	}
	var whole struct {
		Predicate any `json:"predicate"`
	}
	if err := json.Unmarshal(statement, &whole); err != nil {
		return claimed{}, err
	}
	// The bytes of annotations may differ in nothing that is said.
	subject, err := envelope.NewSubject(parsed.Subjects[0].Digest, parsed.Subjects[0].Name, nil)
	c.statement = envelope.Statement{PredicateType: parsed.PredicateType, Subjects: []envelope.StatementSubject{subject}}
	c.predicate = whole.Predicate
	return c, err
}

// hasProof reports whether a bundle has an entry of a log or a timestamp.
func hasProof(bundle []byte) bool {
	var b struct {
		Material struct {
			Entries []json.RawMessage `json:"tlogEntries"`
			Stamped struct {
				Timestamps []json.RawMessage `json:"rfc3161Timestamps"`
			} `json:"timestampVerificationData"`
		} `json:"verificationMaterial"`
	}
	return json.Unmarshal(bundle, &b) == nil && len(b.Material.Entries)+len(b.Material.Stamped.Timestamps) > 0
}
