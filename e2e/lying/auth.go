package lying

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Access says who may use a Registry. The zero value lets everybody.
type Access struct {
	// Username and Password are asked for; with Bearer and no Username,
	// everybody is given a token.
	Username, Password string
	// Bearer asks for a token of the registry's own /token, bound to the scope
	// that it was asked for, instead of basic authentication.
	Bearer bool
	// Realm is said instead of the registry's own /token.
	Realm string
}

// Require asks for access from now on.
func (r *Registry) Require(access Access) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.access = access
}

// ExpireTokens forgets every token that was given out.
func (r *Registry) ExpireTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// challenged answers 401 unless the request may do what it asks for.
func (r *Registry) challenged(a *Answer, req *http.Request) bool {
	if r.access == (Access{}) {
		return false
	}
	if !r.access.Bearer {
		if r.basic(req.Header) {
			return false
		}
		Challenge(`Basic realm="lying"`)(a)
		return true
	}
	scope := scopeOf(a.Request)
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if scopes, known := r.tokens[token]; known && (scope == "" || covers(scopes, scope)) {
		return false
	}
	realm := r.access.Realm
	if realm == "" {
		scheme := "http://"
		if req.TLS != nil {
			scheme = "https://"
		}
		realm = scheme + req.Host + "/token"
	}
	challenge := fmt.Sprintf(`Bearer realm=%q,service="lying"`, realm)
	if scope != "" {
		challenge += fmt.Sprintf(`,scope=%q`, scope)
	}
	Challenge(challenge)(a)
	return true
}

// token gives a token out to who has the password.
func (r *Registry) token(a *Answer) {
	if r.access.Username != "" && !r.basic(a.Request.Header) {
		Challenge(`Basic realm="lying"`)(a)
		return
	}
	r.issued++
	token := fmt.Sprintf("lying-token-%d", r.issued)
	r.tokens[token] = a.Request.Query["scope"]
	a.json("application/json", map[string]any{"token": token, "expires_in": 300})
}

func (r *Registry) basic(header http.Header) bool {
	username, password, ok := (&http.Request{Header: header}).BasicAuth()
	return ok && username == r.access.Username && password == r.access.Password
}

// scopeOf is the scope that a request needs.
func scopeOf(q Request) string {
	switch {
	case q.Repository == "":
		return ""
	case q.Method == http.MethodGet || q.Method == http.MethodHead:
		return "repository:" + q.Repository + ":pull"
	}
	return "repository:" + q.Repository + ":pull,push"
}

// covers reports whether one of the granted scopes has all actions of wanted.
func covers(granted []string, wanted string) bool {
	resource, actions, _ := cutLast(wanted)
	return slices.ContainsFunc(granted, func(scope string) bool {
		r, has, _ := cutLast(scope)
		return r == resource && !slices.ContainsFunc(strings.Split(actions, ","), func(action string) bool {
			return !slices.Contains(strings.Split(has, ","), action)
		})
	})
}

func cutLast(scope string) (resource, actions string, ok bool) {
	i := strings.LastIndexByte(scope, ':')
	if i < 0 {
		return scope, "", false
	}
	return scope[:i], scope[i+1:], true
}
