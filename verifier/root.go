package verifier

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"vidimus/verifier/envelope"
)

// MaxRootSize is how many bytes a trust root may have. Sigstore's own has 7 KiB.
const MaxRootSize = 1 << 20

// Root is a trust root: the authorities whose certificates, logs whose entries and
// timestamp authorities whose stamps count. It is immutable and may be used by several
// goroutines.
//
// A certificate whose root has keys of certificate transparency logs must carry a
// promise (SCT) of one of them; with other roots none is asked for.
type Root struct {
	id       string
	material root.TrustedMaterial
	// What a certificate is checked with: a log entry and a time, from whichever of
	// the two; or a timestamp alone. Nil where the root has no such source.
	logged, stamped *verify.Verifier
}

// ParseRoot reads a trust root in Sigstore's format, trusted_root.json, version 0.1 or
// 0.2.
func ParseRoot(data []byte) (*Root, error) {
	r, err := parseRoot(data)
	if err != nil {
		return nil, fmt.Errorf("trust root: %w", err)
	}
	return r, nil
}

// rootTypes are the media types of trust roots, of which the first one is what
// sigstore-go knows. The later ones add members that say nothing about trust.
var rootTypes = []string{
	"application/vnd.dev.sigstore.trustedroot+json;version=0.1",
	"application/vnd.dev.sigstore.trustedroot.v0.1+json",
	"application/vnd.dev.sigstore.trustedroot.v0.2+json",
}

func parseRoot(data []byte) (*Root, error) {
	if len(data) > MaxRootSize {
		return nil, fmt.Errorf("more than %d bytes", MaxRootSize)
	}
	if err := envelope.CheckJSON(data, envelope.MaxDepth); err != nil {
		return nil, err
	}
	var parsed prototrustroot.TrustedRoot
	if err := protojson.Unmarshal(data, &parsed); err != nil {
		return nil, errors.New("not a trusted_root.json: " + plain(err))
	}
	known := false
	for _, mediaType := range rootTypes {
		known = known || parsed.MediaType == mediaType
	}
	if !known {
		return nil, fmt.Errorf("mediaType is %s, where %q is wanted", shorten(parsed.MediaType), rootTypes[0])
	}
	parsed.MediaType = rootTypes[0]
	var material *root.TrustedRoot
	err := guarded(func() (err error) {
		material, err = root.NewTrustedRootFromProtobuf(&parsed)
		return err
	})
	if err != nil {
		return nil, errors.New(plain(err))
	}
	return newRoot(data, material)
}

// ParseCAs reads PEM certificates of certificate authorities, as the trust root of a
// private PKI: the self-signed ones are trusted, and the others lead to them. It has
// neither logs nor timestamp authorities.
func ParseCAs(data []byte) (*Root, error) {
	r, err := parseCAs(data)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	return r, nil
}

func parseCAs(data []byte) (*Root, error) {
	if len(data) > MaxRootSize {
		return nil, fmt.Errorf("more than %d bytes", MaxRootSize)
	}
	var roots, others []*x509.Certificate
	rest := bytes.TrimSpace(data)
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not PEM certificates alone")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, err
		case !certificate.BasicConstraintsValid || !certificate.IsCA:
			return nil, fmt.Errorf("the certificate of %s is no authority's", shorten(certificate.Subject.String()))
		case bytes.Equal(certificate.RawSubject, certificate.RawIssuer):
			roots = append(roots, certificate)
		default:
			others = append(others, certificate)
		}
		rest = bytes.TrimSpace(rest)
	}
	if len(roots) == 0 {
		return nil, errors.New("none is self-signed, and so nothing to start from")
	}
	cas := make([]root.CertificateAuthority, len(roots))
	for i, certificate := range roots {
		cas[i] = &root.FulcioCertificateAuthority{Root: certificate, Intermediates: others}
	}
	material, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	return newRoot(data, material)
}

func newRoot(data []byte, material root.TrustedMaterial) (*Root, error) {
	sum := sha256.Sum256(data)
	r := &Root{id: hex.EncodeToString(sum[:]), material: material}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	return r, nil
}

// prepare makes what certificates are checked with.
func (r *Root) prepare() (err error) {
	promised := []verify.VerifierOption{verify.WithoutStatementPredicate()}
	if len(r.material.CTLogs()) > 0 {
		promised = append(promised, verify.WithSignedCertificateTimestamps(1))
	}
	if r.HasLogs() {
		options := append([]verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}, promised...)
		if r.logged, err = verify.NewVerifier(r.material, options...); err != nil {
			return err
		}
	}
	if len(r.material.TimestampingAuthorities()) > 0 {
		options := append([]verify.VerifierOption{verify.WithSignedTimestamps(1)}, promised...)
		if r.stamped, err = verify.NewVerifier(r.material, options...); err != nil {
			return err
		}
	}
	return nil
}

// ID returns the lower-case hexadecimal SHA-256 of the bytes that r was read from.
func (r *Root) ID() string { return r.id }

// HasAuthorities reports whether r has authorities whose certificates count.
func (r *Root) HasAuthorities() bool { return len(r.material.FulcioCertificateAuthorities()) > 0 }

// HasLogs reports whether r has a transparency log.
func (r *Root) HasLogs() bool { return len(r.material.RekorLogs()) > 0 }

// HasTimes reports whether r has anything that tells when something was signed: a log
// or a timestamp authority.
func (r *Root) HasTimes() bool { return r.HasLogs() || len(r.material.TimestampingAuthorities()) > 0 }

// String counts what r has, for people.
func (r *Root) String() string {
	return fmt.Sprintf("%d CAs, %d logs, %d timestamp authorities, %d certificate logs", len(r.material.FulcioCertificateAuthorities()),
		len(r.material.RekorLogs()), len(r.material.TimestampingAuthorities()), len(r.material.CTLogs()))
}

// chains returns the chains from leaf to an authority of r that are valid, leaf,
// intermediates and root, at a time, and until when one of them is.
func (r *Root) chains(leaf *x509.Certificate, others []*x509.Certificate, at time.Time) (chains [][]*x509.Certificate, until time.Time, err error) {
	err = errors.New("the trust root has no certificate authority")
	for _, authority := range r.material.FulcioCertificateAuthorities() {
		known, ok := authority.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		extended := *known
		extended.Intermediates = slices.Concat(known.Intermediates, others)
		if chains, err = extended.Verify(leaf, at); err != nil {
			continue
		}
		for _, chain := range chains {
			end := known.ValidityPeriodEnd
			for _, c := range chain {
				if end.IsZero() || c.NotAfter.Before(end) {
					end = c.NotAfter
				}
			}
			if end.After(until) {
				until = end
			}
		}
		return chains, until, nil
	}
	return nil, time.Time{}, err
}

// promised checks that a certificate carries the promise of a certificate log, where r
// has any.
func (r *Root) promised(chains [][]*x509.Certificate) error {
	if len(r.material.CTLogs()) == 0 {
		return nil
	}
	return verify.VerifySignedCertificateTimestamp(chains, 1, r.material)
}

// guarded calls f, and makes a panic in it an error: the libraries that read log
// entries, timestamps and certificates have had some on hostile ones, and what they
// read is one signature among others.
func guarded(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("it cannot be read: the check panicked: %s", shorten(fmt.Sprint(value)))
		}
	}()
	return f()
}

// plain is the text of an error for people: on one line, bounded. protobuf's errors
// have a no-break space, at random, so that nobody depends on their text.
func plain(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	const limit = 400
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}
