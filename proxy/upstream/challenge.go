package upstream

import (
	"net/http"
	"slices"
	"strings"
)

// challenge is what a registry asks for before it answers. It is comparable;
// its fields are the registry's text.
type challenge struct {
	scheme  string // "basic" or "bearer"
	realm   string // URL of the token host; empty for basic
	service string
	scope   string
}

// Bounds of a WWW-Authenticate header, beyond what net/http sets for all headers.
const (
	maxChallenges = 8
	maxParameters = 32
)

// pickChallenge returns the challenge to answer: bearer, or otherwise basic.
// wants is what the request wanted to do.
func pickChallenge(header http.Header, wants need) (challenge, bool) {
	var parsed []parsedChallenge
	for _, value := range header.Values("WWW-Authenticate") {
		parsed = append(parsed, parseChallenges(value)...)
		if len(parsed) > maxChallenges {
			return challenge{}, false
		}
	}
	for _, p := range parsed {
		if p.scheme == "bearer" && p.parameters["realm"] != "" {
			return challenge{
				scheme:  "bearer",
				realm:   p.parameters["realm"],
				service: p.parameters["service"],
				scope:   wants.scope(p.parameters["scope"]),
			}, true
		}
	}
	if slices.ContainsFunc(parsed, func(p parsedChallenge) bool { return p.scheme == "basic" }) {
		return challenge{scheme: "basic"}, true
	}
	return challenge{}, false
}

// forNeed returns the challenge as it is expected for another request.
func (c challenge) forNeed(wants need) challenge {
	if c.scheme == "bearer" {
		c.scope = wants.scope("")
	}
	return c
}

// rights are what a request does to its repository.
type rights int

const (
	pulls   rights = iota
	pushes         // and pulls
	deletes        // and pushes
)

// need is what a token has to be good for.
type need struct {
	repository string
	rights     rights
	from       string // another repository, to pull from; empty: none
}

// scope returns the scope to ask a token for: what the registry asks for, less
// every right that this request does not need. Whoever gets hold of the token of a
// pull can then change nothing with it, and that of a push nothing elsewhere.
// https://distribution.github.io/distribution/spec/auth/scope/
func (n need) scope(asked string) string {
	var scopes []string
	for _, scope := range strings.Fields(asked) {
		if at := strings.LastIndexByte(scope, ':'); strings.HasPrefix(scope, "repository") && at > strings.IndexByte(scope, ':') {
			scope = scope[:at+1] + n.actions(scope[:at], scope[at+1:])
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	if len(scopes) == 0 {
		own := "repository:" + n.repository
		scopes = append(scopes, own+":"+n.actions(own, ""))
		if n.from != "" {
			scopes = append(scopes, "repository:"+n.from+":pull")
		}
	}
	return strings.Join(scopes, " ")
}

// actions are those to ask for on resource, of which the registry asks for asked.
func (n need) actions(resource, asked string) string {
	if n.rights == pulls || resource != "repository:"+n.repository {
		return "pull"
	}
	if n.rights == pushes {
		return "pull,push"
	}
	for action := range strings.SplitSeq(asked, ",") {
		if !slices.Contains([]string{"pull", "push", "delete", "*"}, action) {
			return "pull,push,delete"
		}
	}
	return asked
}

// parsedChallenge is one challenge of a header: scheme and parameter names in
// lower case.
type parsedChallenge struct {
	scheme     string
	parameters map[string]string
}

// parseChallenges parses one WWW-Authenticate field, RFC 9110 section 11.6.1.
// It is lenient about unquoted values, which some registries send. What is not
// understood, a parameter that is there twice included, makes all of it count
// for nothing.
func parseChallenges(value string) []parsedChallenge {
	s := fieldScanner{rest: value}
	var parsed []parsedChallenge
	for {
		s.skip(" \t,")
		if s.rest == "" {
			return parsed
		}
		name := strings.ToLower(s.token())
		if name == "" || len(parsed) > maxChallenges {
			return nil
		}
		spaces := s.skip(" \t")
		if !s.accept('=') {
			if spaces == 0 && s.rest != "" && s.rest[0] != ',' {
				return nil
			}
			parsed = append(parsed, parsedChallenge{scheme: name, parameters: map[string]string{}})
			s.token68()
			continue
		}
		s.skip(" \t")
		text, ok := s.value()
		if !ok || len(parsed) == 0 {
			return nil
		}
		parameters := parsed[len(parsed)-1].parameters
		if _, twice := parameters[name]; twice || len(parameters) >= maxParameters {
			return nil
		}
		parameters[name] = text
	}
}

// fieldScanner reads the parts of a structured header field from the left.
type fieldScanner struct{ rest string }

// skip drops leading characters of set and returns how many.
func (s *fieldScanner) skip(set string) int {
	trimmed := strings.TrimLeft(s.rest, set)
	n := len(s.rest) - len(trimmed)
	s.rest = trimmed
	return n
}

func (s *fieldScanner) accept(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// token reads RFC 9110's token; it may be empty.
func (s *fieldScanner) token() string { return s.while(isTokenChar) }

// token68 drops the credentials-like form of a challenge ("Negotiate abc=="),
// when all that follows up to a comma has that form.
func (s *fieldScanner) token68() {
	text, rest, _ := strings.Cut(s.rest, ",")
	text = strings.TrimRight(text, " \t")
	body := strings.TrimRight(text, "=")
	if body == "" || strings.ContainsFunc(body, func(r rune) bool {
		return r >= 0x80 || !isTokenChar(byte(r)) && r != '/'
	}) {
		return
	}
	s.rest = rest
}

// value reads a quoted string, or anything up to a space or comma.
func (s *fieldScanner) value() (string, bool) {
	if !s.accept('"') {
		text := s.while(func(c byte) bool { return c > ' ' && c != ',' && c != '"' && c != 0x7f })
		return text, s.rest == "" || s.rest[0] != '"'
	}
	var text strings.Builder
	for i := 0; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return text.String(), true
		case c == '\\' && i+1 < len(s.rest):
			i++
			text.WriteByte(s.rest[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", false
		default:
			text.WriteByte(c)
		}
	}
	return "", false
}

func (s *fieldScanner) while(accept func(byte) bool) string {
	n := 0
	for n < len(s.rest) && accept(s.rest[n]) {
		n++
	}
	text := s.rest[:n]
	s.rest = s.rest[n:]
	return text
}

func isTokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
