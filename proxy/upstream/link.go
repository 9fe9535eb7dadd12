package upstream

import (
	"net/http"
	"net/url"
	"strings"
)

// nextPage returns the query of the next page that an answer to a request for u
// links to, RFC 8288; more is false when there is none. Only the query is taken:
// the next request goes to the same path. A link to another origin is refused.
func (c *Client) nextPage(header http.Header, u *url.URL) (query string, more bool, err error) {
	for _, value := range header.Values("Link") {
		target, found, ok := nextLink(value)
		if !ok {
			return "", false, fault(KindMismatch, "the Link header is malformed")
		}
		if !found {
			continue
		}
		next, err := u.Parse(target)
		if err != nil {
			return "", false, fault(KindMismatch, "the Link header holds no URL")
		}
		at, err := originOf(next)
		if err != nil {
			return "", false, fault(KindRefused, "its Link to the next page is not followed: %v", err)
		}
		if at != c.own {
			return "", false, fault(KindRefused, "its Link to the next page is on %s, which is not the registry itself", clip(at.String()))
		}
		if _, err := url.ParseQuery(next.RawQuery); err != nil {
			return "", false, fault(KindMismatch, "the Link header holds no URL")
		}
		return next.RawQuery, true, nil
	}
	return "", false, nil
}

// nextLink returns the target of the first link of a Link field whose relation
// is "next". ok is false when the field up to there is not a list of links.
func nextLink(value string) (target string, found, ok bool) {
	s := fieldScanner{rest: value}
	for {
		s.skip(" \t,")
		if s.rest == "" {
			return "", false, true
		}
		if !s.accept('<') {
			return "", false, false
		}
		target = s.while(func(c byte) bool { return c > ' ' && c != '<' && c != '>' && c != 0x7f })
		if !s.accept('>') {
			return "", false, false
		}
		relation, ok := s.relation()
		if !ok {
			return "", false, false
		}
		for word := range strings.FieldsSeq(relation) {
			if strings.EqualFold(word, "next") {
				return target, true, true
			}
		}
	}
}

// relation reads the parameters of one link, and returns the first rel.
func (s *fieldScanner) relation() (relation string, ok bool) {
	seen := false
	for {
		s.skip(" \t")
		if s.rest == "" || s.rest[0] == ',' {
			return relation, true
		}
		if !s.accept(';') {
			return "", false
		}
		s.skip(" \t")
		name := s.token()
		s.skip(" \t")
		if name == "" && (s.rest == "" || s.rest[0] == ',' || s.rest[0] == ';') {
			continue // an empty parameter
		}
		if name == "" {
			return "", false
		}
		text := ""
		if s.accept('=') {
			s.skip(" \t")
			if text, ok = s.linkValue(); !ok {
				return "", false
			}
		}
		if strings.EqualFold(name, "rel") && !seen {
			relation, seen = text, true
		}
	}
}

// linkValue is value, which here ends at a semicolon as well.
func (s *fieldScanner) linkValue() (string, bool) {
	if s.rest != "" && s.rest[0] == '"' {
		return s.value()
	}
	return s.while(isTokenChar), true
}
