// Package verifier finds evidence about a manifest and checks it.
//
// Verify asks Sources for candidates, fetches what they say was signed, and
// tries the keys of the Authorities that its caller gives. What comes out is
// Evidence, which only this package can make: each piece either verified (a
// trusted key signed a well-formed payload that names exactly this manifest) or
// rejected, with the reason. Whether that suffices is for a policy to say; the
// verifier decides nothing.
//
// # Trust
//
// Keys, identities and trust roots are trusted, and come from the caller alone: a
// certificate, a chain, a bundle or any other annotation beside a signature is never
// read as a key.
// Everything that a Registry returns is untrusted. It is bounded by the
// constants of this package, hashed again here, and parsed only after a trusted
// key has vouched for it, as far as that is possible; package envelope does the
// parsing. A payload's claimed name and annotations are part of verified
// evidence, and are as good as the key's holder.
//
// Three outcomes are kept apart: rejected (in Report.Evidence), nothing found
// (no evidence, no failure), and could not tell (Report.Failures). One source or
// payload that cannot be read masks no other.
//
// # Further forms
//
// A further form of evidence is a further Source that yields Candidates of its
// own form; nothing outside of this package changes. All sources are asked at
// once: each runs in a goroutine of its own, holds no state between calls, and
// may be called at the same time for several subjects.
//
// # Bundles
//
// A sigstore bundle counts when a key of the caller's signed it, whatever else is in
// it, or when its certificate holds. So does a signature in a signature image, whose
// annotations are read as a bundle.
//
// # Certificates
//
// A certificate counts when its one subject and its issuer are an Identity of an
// authority, the signature is by its key, and the authority's Root proves it: a chain to
// an authority of the root that is valid, whole, at every time that a log's entry or a
// timestamp proves, and a promise of a certificate log where the root has any. Where the
// root has transparency logs, an entry of one is wanted that is about this very
// signature, key and digest; Rekor's v1 entries bring a time along, v2's do not, and then
// a timestamp is wanted, too. An authority may do without the log (Unlogged), but never
// without a time; and one of a private PKI (PrivatePKI) without both: its chain must be
// valid now.
//
// The strict parsing of package envelope comes first, and the checks of subjects,
// digests and names are ours; sigstore-go checks logs, timestamps and chains, and sees
// nothing that package envelope has refused.
//
// # Times
//
// A log's entry or a timestamp proves that a signature existed at a time. Of several
// proven times the earliest counts. A signature by a key has a time when the key's
// authority has a Root that proves it; what does not hold proves nothing there, and takes
// nothing away. Anybody can have an old signature logged or stamped again: for a key's
// signature, a proven time says that it is no younger, and for one by a certificate,
// which is valid for minutes, nearly when it was made.
package verifier

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is what the verifier reads evidence from. The proxy implements it
// over its store and an upstream, the command line over an upstream alone. It
// is called by several goroutines at once, and a call that was cancelled may end
// after Verify has returned.
//
// An error that matches fs.ErrNotExist says that the registry holds no such
// thing and could be trusted to tell; every other error means that nobody
// could tell, and makes a denial inconclusive.
type Registry interface {
	// Manifest returns the manifest that reference, a tag or a digest, names
	// in repository: at most MaxManifestSize bytes. For a digest the bytes
	// hash to it.
	Manifest(ctx context.Context, repository, reference string) ([]byte, error)

	// Referrers returns the descriptors that the referrers API lists for digest, of
	// whatever artifactType, in the registry's order. The error matches
	// fs.ErrNotExist when there is no such API, and ErrMore when the list is longer
	// than is read: what was read of it comes along then.
	Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error)

	// Blob returns the whole blob that desc describes: exactly desc.Size
	// bytes, at most MaxPayloadSize, that hash to desc.Digest.
	Blob(ctx context.Context, repository string, desc v1.Descriptor) ([]byte, error)
}

// Expectant is what a Registry may be besides: one that is told as early as can
// be that there may be evidence, so that what a verified subject will need can be
// on its way. It does not say what there is, nor that it is good.
type Expectant interface {
	// CandidateFound is called at most once in a call of Verify, when the first
	// signature that is worth checking was found, before its payload is fetched
	// or it is checked. It must not block: the search waits for it.
	CandidateFound()
}

// Subject is the manifest about which evidence is looked for.
type Subject struct {
	// Repository is the repository's name as Registry takes it.
	Repository string
	Digest     v1.Hash
	// Names are references that a signer is likely to claim for it, the likelier
	// ones first: a payload that claims one of them, or none, and has no
	// annotations is known without being fetched. No name is compared with what
	// is claimed: they save requests, and change nothing else. Those beyond the
	// 64th, and those with a character that no reference has, are passed over.
	Names []string
	// Attestations says that attestations are wanted, and what they say: the tag for
	// them is asked for, referrers that hold nothing else are opened, and verified
	// ones have their statement (Evidence.Predicate). Without it those are told that
	// come along with signatures, and no request is made for others.
	Attestations bool
	// Claims says that it is to be told whom rejected evidence names as its signer
	// (Evidence.Claimed), though it counts for nothing: for one who explains, or who looks
	// for what a first policy could say. ClaimRoots, where there are any, are what such
	// certificates are checked with.
	Claims     bool
	ClaimRoots []*Root
	// Now is the moment for which certificates are checked where no time is proven, and
	// after which no time can be proven. Zero: when Verify is called.
	Now time.Time
}

// Authority is a named set of keys or of identities, any one of which may vouch.
type Authority struct {
	Name string
	Keys []Key
	// Windows are when keys count, by their ID; a key that is not in it counts always.
	// Verify does not look at them: they are for who weighs the evidence, by SignedAt.
	Windows map[string]Window
	// Identities are who may sign with a certificate that Root proves.
	Identities []Identity
	// Root proves certificates, and when something was signed. Without one no
	// identity vouches, and no key's signature has a time.
	Root *Root
	// PrivatePKI says that certificates count without log and timestamp: without a
	// proven time their chain must be valid now.
	PrivatePKI bool
	// Unlogged says that a timestamp suffices although Root has transparency logs.
	Unlogged bool
	// Suspended, when not empty, says why the authority cannot be judged at
	// the moment (its key file is gone): its keys vouch for nothing, and a
	// denial that it might have turned is inconclusive.
	Suspended string
}

// Source finds candidates for evidence in one place.
type Source interface {
	// Name names the source in a SourceFailure.
	Name() string

	// Find yields what it finds, in an order that depends on the registry's
	// content alone, until yield returns false or ctx ends. It returns an error
	// when it could not tell whether there is more, and ErrMore when there is and a
	// limit keeps it from looking; what it yielded before stands. That there is
	// nothing is no error. yield may take long, for it fetches and checks; only the
	// goroutine that Find was called by calls it.
	Find(ctx context.Context, registry Registry, subject Subject, yield func(Candidate) bool) error
}

// ErrMore says that there is more than is looked at.
var ErrMore = errors.New("there is more than is looked at")

// Candidate is something that may turn out to be evidence. All of it is
// untrusted. Only the sources of this package make one.
type Candidate struct {
	form      string        // FormSimpleSigning, FormBundle or FormAttestation
	origin    string        // where it was found: the tag, or the referrer
	blob      v1.Descriptor // the payload or bundle; digest and size are well-formed unless there is a fault
	signature []byte        // over the payload's bytes; a bundle has its own
	attached  attached      // what is beside the signature; a bundle has its own
	fault     string        // why it is rejected unread; empty for one worth reading

	// more says that another candidate follows without a request, so that the
	// payloads of both may be fetched together.
	more bool

	// patience, when not zero, says that this is no candidate: the source has looked
	// where it is likely to find something, and lets the others end before it looks
	// elsewhere, but waits no longer than this.
	patience time.Duration
}
