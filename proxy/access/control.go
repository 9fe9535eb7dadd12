package access

import (
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"

	"vidimus/policy"
)

// Entry is one entry of the access list.
type Entry struct {
	// Subjects are whom it is about: anonymous, authenticated, names of users, or
	// cert: and a name of a client certificate.
	Subjects []string
	Match    policy.Match
	// Actions are all that its subjects may do in what it matches.
	Actions []Action
}

// Config is what New makes a Control of.
type Config struct {
	Passwords *Passwords // nil: there are no users
	Entries   []Entry
}

// Control says who may do what. It is not changed once it is made, and safe for
// concurrent use.
type Control struct {
	passwords *Passwords
	entries   []Entry
}

// New returns a Control. An entry without subjects or actions is an error.
func New(config Config) (*Control, error) {
	for _, e := range config.Entries {
		if len(e.Subjects) == 0 || len(e.Actions) == 0 {
			return nil, errors.New("access: an entry needs subjects and actions")
		}
	}
	return &Control{passwords: config.Passwords, entries: slices.Clone(config.Entries)}, nil
}

// Identify tells who makes a request: the user whose name and password it
// carries, or else the certificate that the listener has verified, or nobody.
// Credentials that are there have to hold: another scheme than Basic, or two
// headers, is ErrCredentials too. An empty name with an empty password is what
// podman and its kin send who have none, and claims nothing.
func (c *Control) Identify(r *http.Request) (Caller, error) {
	if sent := r.Header["Authorization"]; len(sent) > 0 {
		user, password, ok := r.BasicAuth()
		if !ok || len(sent) > 1 {
			return Caller{}, ErrCredentials
		}
		if user != "" || password != "" {
			if err := c.passwords.Check(r.Context(), user, password); err != nil {
				return Caller{}, err
			}
			return Caller{Kind: User, Name: user}, nil
		}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 {
		if names := certificateNames(r.TLS.VerifiedChains[0][0]); len(names) > 0 {
			return Caller{Kind: Certificate, Name: names[0], names: names}, nil
		}
	}
	return Caller{}, nil
}

// certificateNames returns what a client certificate calls its holder: its
// subject alternative names (DNS, e-mail, URI), as in RFC 6125 the common name
// only when it has none of these. A certificate without a name is nobody's.
func certificateNames(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	if len(names) == 0 {
		names = append(names, c.Subject.CommonName)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// Allows reports whether caller may do action in a canonical repository: whether
// the first entry that is about the caller and matches the repository lists it.
func (c *Control) Allows(caller Caller, repository string, action Action) bool {
	for i := range c.entries {
		if e := &c.entries[i]; e.isAbout(caller) && e.Match.Matches(repository) {
			return slices.Contains(e.Actions, action)
		}
	}
	return false
}

// AllowsSome reports whether an entry is about caller at all.
func (c *Control) AllowsSome(caller Caller) bool {
	return slices.ContainsFunc(c.entries, func(e Entry) bool { return e.isAbout(caller) })
}

func (e *Entry) isAbout(caller Caller) bool {
	return slices.ContainsFunc(e.Subjects, func(subject string) bool {
		certificate, isCertificate := strings.CutPrefix(subject, CertificatePrefix)
		switch {
		case subject == SubjectAnonymous || caller.Kind == Anonymous:
			return subject == SubjectAnonymous && caller.Kind == Anonymous
		case subject == SubjectAuthenticated:
			return true
		case isCertificate:
			return caller.Kind == Certificate && slices.Contains(caller.names, certificate)
		}
		return caller.Kind == User && subject == caller.Name
	})
}
