package policy

import (
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

// SignedAs says how the name that a signature claims is compared with the
// repository that it was found in.
type SignedAs int

const (
	IfPresent  SignedAs = iota // a claimed name must be this repository; none is fine
	Ignore                     // the claimed name is not looked at
	Repository                 // there must be a name, and it must be this repository
	Exact                      // as Repository, and with the requested tag or @digest
)

// Require says which authorities must have signed: AtLeast distinct ones of Of.
// The four spellings of the configuration all come down to it.
type Require struct {
	AtLeast int
	Of      []string
}

// Policy is one entry of the ordered list. Exactly one of Require (AtLeast > 0),
// AllowUnverified and Deny is set.
type Policy struct {
	Name  string
	Match Match

	Require         Require
	AllowUnverified bool
	Deny            string // the reason given to people; not empty = denied

	SignedAs    SignedAs
	Annotations map[string]string // must be in the signed payload
	Enforcement Enforcement       // never higher than the ceiling
	Message     string            // added to a denial
}

// Exception admits digests without evidence until a moment. Its policy's deny
// does not hold against it, a revocation does.
type Exception struct {
	Match   Match
	Digests []v1.Hash
	Until   time.Time
	Reason  string
}

// Config is what New makes a Set of.
type Config struct {
	Revision    string      // names the configuration that this came from
	Enforcement Enforcement // the ceiling for every policy
	Authorities []verifier.Authority
	Policies    []Policy
	Exceptions  []Exception
	Revoked     []v1.Hash
}

// Subject is what a decision is about.
type Subject struct {
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
	Explained string   // one line for a person: why; without the image's name
	Message   string   // the policy's message
	Hint      string   // what would mend it
	Exception string   // the reason of the exception that allowed it
	Via       string   // digest of the allowed index that lists this manifest
	Satisfied []string // authorities that have signed, sorted

	Evidence []verifier.Evidence // all that was looked at
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
	ReasonTooManySignatures  = "too-many-signatures"
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
}
