package access

import "errors"

// Kind is how a caller is known.
type Kind int

// The kinds of callers. The zero Kind is the one with the fewest rights.
const (
	Anonymous   Kind = iota // showed nothing
	User                    // a name and password of the htpasswd file
	Certificate             // a client certificate that the listener has verified
)

// Caller is who makes a request. The zero Caller is anonymous.
type Caller struct {
	Kind Kind
	// Name is the user's name, or the first name of the certificate; empty for
	// anonymous. A certificate's is chosen by who issued it: escape it before it
	// is shown.
	Name string

	names []string // all names of a certificate
}

// String is the caller as a subject of the access list is written: anonymous,
// the user's name, or cert: and the name.
func (c Caller) String() string {
	switch c.Kind {
	case User:
		return c.Name
	case Certificate:
		return CertificatePrefix + c.Name
	}
	return SubjectAnonymous
}

// Action is what a caller wants to do in a repository.
type Action string

// The actions, as the access list names them.
const (
	Pull    Action = "pull"    // read what is admitted
	Push    Action = "push"    // put content; ask whether it is there
	Sign    Action = "sign"    // read manifests and evidence that are not admitted; put evidence
	Inspect Action = "inspect" // read manifests and blobs that are not admitted
	Delete  Action = "delete"
)

// Actions are all actions there are.
func Actions() []Action { return []Action{Pull, Push, Sign, Inspect, Delete} }

// Subjects of the access list that are no names.
const (
	SubjectAnonymous     = "anonymous"     // who showed nothing, and nobody else
	SubjectAuthenticated = "authenticated" // every user, and every certificate
	CertificatePrefix    = "cert:"         // before a name of a client certificate
)

// Errors of Identify.
var (
	// ErrCredentials says that credentials came and do not hold. It never says
	// what about them is wrong.
	ErrCredentials = errors.New("the user name or password is wrong")
	// ErrBusy says that so many passwords are being checked that this one was not.
	ErrBusy = errors.New("too many passwords are being checked at once")
)
