package verifier

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"vidimus/verifier/envelope"
)

// maxChain is how many certificates may come along with a signer's.
const maxChain = 8

// maxNamed is how many bytes of an issuer or subject are shown.
const maxNamed = 256

// certifiedSigner is what a certificate says of its holder. It is untrusted until the
// certificate has been checked.
type certifiedSigner struct {
	issuer, subject string
	sources         []string // repositories that the signer ran for, as URLs
}

// trustedIdentity is an identity and the authority that has it.
type trustedIdentity struct {
	Identity
	authority *Authority
}

// trustedIdentities returns the identities of the authorities that can judge
// certificates, in the order given.
func trustedIdentities(authorities []Authority) []trustedIdentity {
	var identities []trustedIdentity
	for i := range authorities {
		a := &authorities[i]
		if a.Suspended != "" || a.Root == nil {
			continue
		}
		for _, id := range a.Identities {
			identities = append(identities, trustedIdentity{id, a})
		}
	}
	return identities
}

// proven is a signature with what came along to prove it: a bundle that a signer made,
// or one put together from the annotations of a signature image.
type proven struct {
	entity    *bundle.Bundle
	signed    []byte // what the signature is over
	message   bool   // signed is the message itself, not the encoding of an envelope
	signature []byte

	// Of an envelope in an attestation image.
	layer []byte       // the envelope's bytes, which a timestamp may be over; nil: it is over the signature
	old   *inTotoEntry // an entry of a type that sigstore-go does not read; nil: there is none
}

// parseProven reads a bundle that package envelope has read as b; nothing that it
// refuses comes here. signed is what the signature is over.
func parseProven(mediaType string, data []byte, b envelope.Bundle, signed []byte) (*proven, error) {
	p := &proven{entity: new(bundle.Bundle), signed: signed, message: b.Statement == nil, signature: b.Signature}
	if strings.Contains(mediaType, "0.3") {
		bundle.AllowCertificateChain()(p.entity) // only a private PKI makes anything of it
	}
	if err := guarded(func() error { return p.entity.UnmarshalJSON(data) }); err != nil {
		return nil, errors.New("bundle: " + plain(err))
	}
	return p, nil
}

// certificates returns the signer's certificate and those that came along to lead to
// an authority. They are untrusted.
func (p *proven) certificates() (leaf *x509.Certificate, others []*x509.Certificate, err error) {
	raw := [][]byte{p.entity.GetVerificationMaterial().GetCertificate().GetRawBytes()}
	if chain := p.entity.GetVerificationMaterial().GetX509CertificateChain().GetCertificates(); len(chain) > 0 {
		if len(chain) > maxChain {
			return nil, nil, fmt.Errorf("more than %d certificates", maxChain)
		}
		raw = raw[:0]
		for _, c := range chain {
			raw = append(raw, c.GetRawBytes())
		}
	}
	for i, der := range raw {
		parsed, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			return nil, nil, err
		case oversized(parsed.PublicKey):
			return nil, nil, fmt.Errorf("its key, or one of those that lead to its authority, has more than %d bits", maxRSA)
		case i == 0:
			leaf = parsed
		default:
			others = append(others, parsed)
		}
	}
	return leaf, others, nil
}

// oversized reports whether a key is so large that trying it would take for ever.
func oversized(public crypto.PublicKey) bool {
	key, ok := public.(*rsa.PublicKey)
	return ok && key.N.BitLen() > maxRSA
}

// signerOf reads whom a certificate names. Fulcio's name exactly one; which of several
// would be meant is for nobody to guess.
func signerOf(leaf *x509.Certificate) (certifiedSigner, error) {
	if n := len(leaf.URIs) + len(leaf.EmailAddresses) + len(leaf.DNSNames) + len(leaf.IPAddresses); n > 1 {
		return certifiedSigner{}, fmt.Errorf("its certificate names %d subjects, where one is wanted", n)
	}
	summary, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return certifiedSigner{}, errors.New("its certificate: " + plain(err))
	}
	s := certifiedSigner{issuer: summary.Issuer, subject: summary.SubjectAlternativeName}
	if len(s.issuer) > maxPattern || len(s.subject) > maxPattern {
		return certifiedSigner{}, fmt.Errorf("its certificate has a name of more than %d bytes", maxPattern)
	}
	switch {
	case summary.SourceRepositoryURI != "":
		s.sources = []string{summary.SourceRepositoryURI}
	case summary.GithubWorkflowRepository != "":
		s.sources = []string{"https://github.com/" + summary.GithubWorkflowRepository}
	}
	return s, nil
}

// way is how the certificates for an authority are checked.
type way struct {
	root              *Root
	private, unlogged bool
}

// vouch is what has been proven of a signature besides who made it.
type vouch struct {
	signedAt time.Time // the earliest proven time; zero: none
	by       string    // what proves it
	held     checkSet  // a log's entry, a timestamp
	until    time.Time // when the proof ends; zero: never
}

// checkCertificate checks a signature with the certificate that came along. What it
// returns with true is signed by e's identity, and trusted says for whom that counts;
// otherwise e is rejected.
func (v *verification) checkCertificate(e Evidence, p *proven) (Evidence, trusted, bool) {
	reject := func(check, reason, format string, args ...any) (Evidence, trusted, bool) {
		return e.fails(check, reason, fmt.Sprintf(format, args...)), trusted{}, false
	}
	e.certified = true
	var leaf *x509.Certificate
	var others []*x509.Certificate
	var signer certifiedSigner
	err := guarded(func() (err error) {
		if leaf, others, err = p.certificates(); err == nil {
			signer, err = signerOf(leaf)
		}
		return err
	})
	if err != nil {
		return reject(CheckCertificate, ReasonPayloadInvalid, "its certificate cannot be used: %s", plain(err))
	}
	e.claimed = claimedBy(signer)
	named := shortenTo(signer.subject, maxNamed) + " by " + shortenTo(signer.issuer, maxNamed)
	wanted := slices.DeleteFunc(slices.Clone(v.identities), func(id trustedIdentity) bool { return !id.fits(signer) })
	if len(wanted) == 0 {
		return reject(CheckIdentity, ReasonUntrusted, "its certificate names %s, which is none of the identities asked for (%d)", named, len(v.identities))
	}
	e = e.holds(heldIdentity)
	key, err := NewKey(leaf.PublicKey)
	if err != nil {
		return reject(CheckCertificate, ReasonUntrusted, "the key in its certificate, of %s, is not one that counts: %s", named, plain(err))
	}
	if !key.verifies(newMessage(p.signed), p.signature) {
		return reject(CheckSignature, ReasonUntrusted, "its signature is not by the key in its certificate, of %s", named)
	}
	e = e.holds(heldSignature)
	by, vouched, err := v.vouchers(wanted, p, leaf, others)
	if err != nil {
		return reject(wanted[0].blame(p, v.now), ReasonUntrusted, "its certificate, of %s, does not hold: %s", named, plain(err))
	}
	e = e.holds(vouched.held | heldIdentity | heldSignature | heldCertificate)
	if !v.claiming {
		e.claimed = nil
	}
	e.issuer, e.subject, e.signedAt, e.timeBy, e.until = signer.issuer, signer.subject, vouched.signedAt, vouched.by, vouched.until
	e.by = by.authorities
	if slices.ContainsFunc(v.keys, func(k trusted) bool { return k.key.id == key.id }) {
		e.sharedKey = key.id
	}
	if vouched.signedAt.IsZero() {
		e.untimed = "its certificate is of a private PKI, and no time is proven"
	}
	return e, by, true
}

// vouchers returns for which authorities a certificate counts whose signer is wanted.
// Where trust roots differ in what they prove, those count that agree with the first.
func (v *verification) vouchers(wanted []trustedIdentity, p *proven, leaf *x509.Certificate, others []*x509.Certificate) (trusted, vouch, error) {
	type outcome struct {
		vouch
		err error
	}
	outcomes := make(map[way]outcome)
	var by trusted
	var first vouch
	var firstErr error
	for _, id := range wanted {
		w := way{id.authority.Root, id.authority.PrivatePKI, id.authority.Unlogged}
		o, ok := outcomes[w]
		if !ok {
			o.err = guarded(func() (err error) {
				o.vouch, err = w.check(p, leaf, others, v.now)
				return err
			})
			outcomes[w] = o
		}
		switch {
		case o.err != nil:
			if firstErr == nil {
				firstErr = o.err
			}
		case len(by.authorities) == 0:
			first = o.vouch
			by.authorities = []string{id.authority.Name}
		case o.vouch == first && !slices.Contains(by.authorities, id.authority.Name):
			by.authorities = append(by.authorities, id.authority.Name)
		}
	}
	if len(by.authorities) == 0 {
		return trusted{}, vouch{}, firstErr
	}
	return by, first, nil
}

// check checks a certificate and what proves when it was used. The signature has been
// checked with its key.
func (w way) check(p *proven, leaf *x509.Certificate, others []*x509.Certificate, now time.Time) (vouch, error) {
	if w.root == nil {
		return vouch{}, errors.New(noRoot)
	}
	if w.private {
		return w.checkPrivate(p, leaf, others, now)
	}
	if len(p.entity.GetVerificationMaterial().GetX509CertificateChain().GetCertificates()) > 1 && p.entity.MinVersion("v0.3") {
		return vouch{}, errors.New("a bundle of this version has one certificate, and no chain")
	}
	verifiers, err := w.root.over(p)
	if err != nil {
		return vouch{}, err
	}
	var problems []error
	if p.old != nil && w.root.HasLogs() {
		at, err := p.old.certified(p, w.root, leaf, others, now)
		if err == nil {
			return vouch{signedAt: at.Time, by: at.by, held: at.held | heldLog}, nil
		}
		problems = append(problems, err)
	}
	for _, by := range []struct {
		verifier *verify.Verifier
		counts   bool
	}{{verifiers.logged, true}, {verifiers.stamped, w.unlogged || verifiers.logged == nil}} {
		if by.verifier == nil || !by.counts {
			continue
		}
		at, err := p.verify(by.verifier, now)
		if err == nil {
			v := vouch{signedAt: at.Time, by: at.by, held: at.held}
			if by.verifier == verifiers.logged {
				v.held |= heldLog
			}
			return v, nil
		}
		problems = append(problems, err)
	}
	if len(problems) == 0 {
		return vouch{}, errors.New("the trust root has neither a log nor a timestamp authority")
	}
	return vouch{}, problems[0]
}

// verify lets sigstore-go check everything, the signature once more, and returns the
// earliest proven time. Who signed, and what, is checked elsewhere.
func (p *proven) verify(verifier *verify.Verifier, now time.Time) (datum, error) {
	about := verify.WithoutArtifactUnsafe()
	if p.message {
		about = verify.WithArtifact(bytes.NewReader(p.signed))
	}
	result, err := verifier.Verify(p.entity, verify.NewPolicy(about, verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return datum{}, err
	}
	times := make([]datum, len(result.VerifiedTimestamps))
	for i, t := range result.VerifiedTimestamps {
		if times[i] = stampedAt(t.Timestamp); t.Type == "Tlog" {
			times[i] = loggedAt(t.Timestamp)
		}
	}
	return earliest(times, now)
}

// blame names the check that failed of a certificate that does not hold for id. It is
// for telling: nothing is decided by it.
func (id trustedIdentity) blame(p *proven, now time.Time) string {
	r := id.authority.Root
	if r == nil || id.authority.PrivatePKI || !r.HasTimes() {
		return CheckCertificate
	}
	proof, err := r.times(p, r.material, now)
	switch {
	case r.HasLogs() && !id.authority.Unlogged && guarded(func() error { return r.hasLogged(p) }) != nil:
		return CheckLog
	case err != nil && !r.HasLogs():
		return CheckTimestamp
	case err != nil || proof.Time.IsZero():
		return CheckTime
	}
	return CheckCertificate
}

// checkPrivate checks a certificate of a private PKI: the whole chain must be valid at
// the proven time, or, where none is proven, now.
func (w way) checkPrivate(p *proven, leaf *x509.Certificate, others []*x509.Certificate, now time.Time) (vouch, error) {
	proof, err := w.root.times(p, w.root.material, now)
	proves := err == nil
	at := proof.Time
	if !proves {
		at = now
	}
	chains, until, err := w.root.chains(leaf, others, at)
	if err == nil {
		err = w.root.promised(chains)
	}
	switch {
	case err != nil && proves:
		return vouch{}, fmt.Errorf("at its proven time, %s: %w", at.UTC().Format(time.RFC3339), err)
	case err != nil:
		return vouch{}, fmt.Errorf("now, for no time is proven: %w", err)
	case proves:
		return vouch{signedAt: at, by: proof.by, held: proof.held}, nil
	}
	return vouch{until: until}, nil
}
