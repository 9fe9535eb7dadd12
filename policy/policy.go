// Package policy decides what may be served: which policy fits a repository,
// and whether the evidence about a manifest meets it.
//
// Trusted are the configuration that New is given, the verifier's word on what
// is verified, and the caller's word that Subject.Repository is canonical and
// Subject.Digest is what it will serve. Nothing else is: the names and
// annotations that a signature claims are compared and never interpreted, and
// reach a person only escaped and cut to length.
//
// A Set is one configuration, checked and immutable. Its parts are pure: Match
// says which repositories a policy covers, decide weighs evidence. An Evaluator
// joins a Set to the verifier; it alone reads the clock and the registry, within
// the limits of verifier/limits.go.
//
// Everything denies unless something allows: the zero Match matches nothing, the
// zero Policy and the zero Decision deny, no policy that fits is a denial. More
// evidence never turns an allowed subject into a denied one, but by a policy's Rego,
// for which all evidence is waited for. A denial is a Decision; an error means that
// nobody could tell, and its Decision denies too.
package policy

import (
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// Enforcement says what a denial does. The zero value enforces.
type Enforcement int

const (
	Enforce Enforcement = iota // deny what fails
	Warn                       // verify first, serve whatever the outcome, and say so
	Observe                    // serve at once, verify afterwards, record
)

// String returns the configuration's word.
func (e Enforcement) String() string {
	switch e {
	case Enforce:
		return "enforce"
	case Warn:
		return "warn"
	case Observe:
		return "observe"
	}
	return "unknown"
}

// MarshalText returns the configuration's word.
func (e Enforcement) MarshalText() ([]byte, error) {
	if e < Enforce || e > Observe {
		return nil, fmt.Errorf("enforcement %d has no word", int(e))
	}
	return []byte(e.String()), nil
}

// UnmarshalText reads the configuration's word.
func (e *Enforcement) UnmarshalText(text []byte) error {
	for _, known := range []Enforcement{Enforce, Warn, Observe} {
		if known.String() == string(text) {
			*e = known
			return nil
		}
	}
	return fmt.Errorf("%q is none of enforce, warn and observe", clean(string(text), maxLabel))
}

// SignedAs says how the name that a signature claims is compared with the
// repository that it was found in.
type SignedAs int

const (
	IfPresent  SignedAs = iota // a claimed name must be this repository; none is fine
	Ignore                     // the claimed name is not looked at
	Repository                 // there must be a name, and it must be this repository
	Exact                      // as Repository, and with the requested tag or @digest
	Remapped                   // as Repository, after Policy.Remap
)

// String returns the configuration's word, and for Remapped its two keys.
func (s SignedAs) String() string {
	switch s {
	case IfPresent:
		return "ifPresent"
	case Ignore:
		return "ignore"
	case Repository:
		return "repository"
	case Exact:
		return "exact"
	case Remapped:
		return "{prefix, signedPrefix}"
	}
	return "unknown"
}

// Remap says that repositories under Prefix hold copies of those under
// SignedPrefix, and that signatures name the originals. Both are an upstream or
// registry, with or without the first components of a repository. A repository
// that is not under Prefix is compared as it is.
type Remap struct {
	Prefix       string
	SignedPrefix string
}

// Require says which authorities must have signed: AtLeast distinct ones of Of.
// The four spellings of the configuration all come down to it.
type Require struct {
	AtLeast int
	Of      []string
}

// Policy is one entry of the ordered list. Exactly one of these is set: Require
// (AtLeast > 0) or Attestations or both, AllowUnverified, Deny.
type Policy struct {
	Name  string // empty: the first pattern of Match
	Match Match

	Require         Require
	Attestations    []Attestation // each must be met
	Rego            Rego          // when not nil, may deny what all else allows
	AllowUnverified bool
	Deny            string // the reason given to people; not empty = denied

	SignedAs    SignedAs
	Remap       Remap             // when SignedAs is Remapped, and only then
	Annotations map[string]string // must be in the signed payload
	// MaxAge and MinAge are how old a signature that is needed may be at most, and must
	// be at least, by its proven time; without one it does not count. Zero: any age, and
	// no time is asked for.
	MaxAge, MinAge time.Duration
	Enforcement    *Enforcement // never above the ceiling; nil is the ceiling
	Message        string       // added to a denial
	Push           *Push        // nil: nothing can be pushed

	originals []string                              // other hosts of the upstream of Remap.SignedPrefix
	windows   map[string]map[string]verifier.Window // of the keys of required authorities, by authority and key
	certified map[string]string                     // required authorities with identities: whose
	signing   []string                              // ids of the keys that sign pushes, under whatever policy
}

// Exception admits digests without evidence until a moment. Its policy's deny
// does not hold against it, a revocation does.
type Exception struct {
	Match   Match
	Digests []v1.Hash
	Until   time.Time // from this moment on it admits nothing
	Reason  string
}

// Config is what New makes a Set of.
type Config struct {
	Revision    string      // names the configuration that this came from
	Enforcement Enforcement // the ceiling for every policy
	Authorities []verifier.Authority
	// Root, when not nil, proves who signed what nobody is asked to sign, besides the
	// roots of Authorities: for telling alone, nothing counts by it.
	Root       *verifier.Root
	Policies   []Policy
	Exceptions []Exception
	Revoked    []v1.Hash
	// SigningKeys are the ids of the keys that sign pushes under this configuration.
	// What they sign counts only where it says it was signed.
	SigningKeys []string
	// Hosts are, by an upstream's name, the other registries by which its
	// repositories are known: its URL's host, the proxy's external host with the
	// upstream's name behind it. Signatures of an original (Remap.SignedPrefix)
	// may use them. What no name can begin with is passed over.
	Hosts map[string][]string
	// Now tells how far ahead an exception reaches; nil means time.Now.
	Now func() time.Time
}

// Subject is what a decision is about.
type Subject struct {
	// ID becomes the decision's, for a caller that had to name it before it was
	// made. Empty: a new one.
	ID string
	// Repository is canonical: <upstream name>/<repository>.
	Repository string
	// Tag is the tag that was asked for; empty when the request was by digest.
	Tag    string
	Digest v1.Hash
	// Aliases are the other names that a signature may use for Repository: by
	// its upstream's host, by the proxy's external host. Without tag or digest.
	Aliases []string
}

// Decision is the outcome of applying a Set to a Subject. The zero value denies.
type Decision struct {
	ID       string // random, lower-case hex
	Time     time.Time
	Revision string

	Subject     Subject
	Policy      string // name; empty when none fits
	Enforcement Enforcement

	Allowed   bool
	Reason    string   // one of the Reason constants; empty when allowed
	Explained string   // one line for a person: why; without the image's name and, for clients read it, any address
	Message   string   // the policy's message
	Hint      string   // what would mend it, on one line
	Remedies  []Remedy // the same piece by piece, and what clients are not told; or what an allowed one could ask for
	Causes    []string // of an inconclusive one: at most a handful of lines, in full, for the record and the log
	Exception string   // the reason of the exception that allowed it
	Via       string   // digest of the allowed index that lists this manifest
	About     string   // digest of the subject manifest that this is evidence about
	Satisfied []string // authorities that have signed, or attested what is required, sorted
	// Expires is when what allowed it ends, an exception or the evidence: the decision is
	// not to be used from then on. Zero when the decision has no end of its own.
	Expires time.Time

	Evidence []verifier.Evidence // all that was looked at, without what attestations say
	Weights  []Weight            // of Evidence, in its order; none where no policy asks for evidence
}

// Reasons of a denial. They are wire format.
const (
	ReasonNoPolicy           = "no-policy"
	ReasonPolicyDeny         = "policy-deny"
	ReasonRevoked            = "revoked"
	ReasonUnsigned           = "unsigned"
	ReasonUntrusted          = "untrusted"
	ReasonPayloadInvalid     = "payload-invalid"
	ReasonDigestMismatch     = "digest-mismatch"
	ReasonIdentityMismatch   = "identity-mismatch"
	ReasonAnnotationMismatch = "annotation-mismatch"
	ReasonThreshold          = "threshold"
	ReasonExpired            = "expired" // signed too long ago, too lately (minAge), or by a key that did not count then
	ReasonTooManySignatures  = "too-many-signatures"
	ReasonAttestedNotSigned  = "attested-not-signed" // required authorities have made attestations only
	ReasonAttestationMissing = "attestation-missing"
	ReasonRego               = "rego"         // denied by Rego, which a policy has besides
	ReasonInconclusive       = "inconclusive" // with an error: nobody could tell
)

// Served reports whether content with this decision goes out: because it is
// allowed, or because the policy does not enforce. What is revoked never does.
func (d Decision) Served() bool {
	return d.Allowed || d.Enforcement != Enforce && d.Reason != ReasonRevoked
}

// Scope is what a Set says of a repository before any evidence is known.
type Scope struct {
	Policy      string      // name; empty when none fits
	Enforcement Enforcement // the effective one: the lower of ceiling and policy
	ReadsTag    bool        // the decision depends on the tag that was asked for
	Unverified  bool        // allow: unverified
	Denied      bool        // no policy fits, or the one that fits denies: only an exception is served
	Push        *Push       // nil: nothing can be pushed; not to be changed
}
