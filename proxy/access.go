package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"vidimus/proxy/access"
)

// challenge is what a client is told to show. The realm is for people: clients
// remember credentials by host.
const challenge = `Basic realm="Vidimus", charset="UTF-8"`

// busyRetry is what a client is told to wait whose password was not checked.
const busyRetry = 2 * time.Second

// identify learns who makes the request. Who may do nothing anywhere is told
// nothing else, not even whether a path is one.
func (q *request) identify() error {
	if q.Access == nil {
		return nil
	}
	caller, err := q.Access.Identify(q.r)
	switch {
	case errors.Is(err, access.ErrCredentials):
		return unauthorized("the user name or password is wrong")
	case errors.Is(err, access.ErrBusy):
		return &Error{
			Status: http.StatusTooManyRequests, Code: codeTooManyRequests,
			Message: "Vidimus checks too many passwords at once", RetryAfter: busyRetry, Err: err,
		}
	case err != nil:
		return fmt.Errorf("identify the caller: %w", err)
	}
	q.caller = caller
	if q.Access.AllowsSome(caller) {
		return nil
	}
	if caller.Kind == access.Anonymous {
		return unauthorized("log in first: Vidimus answers nobody whom it does not know")
	}
	return &Error{
		Status: http.StatusForbidden, Code: codeDenied,
		Message: printable(caller.String()) + " may do nothing here: no entry of auth.access names such a caller",
	}
}

// callerName is the caller for records and the log; empty where nobody is known.
func (q *request) callerName() string {
	if q.Access == nil {
		return ""
	}
	return printable(q.caller.String())
}

// exactCaller is the caller as the access list would name it, to the letter: no two have
// the same. It is not for the eyes of people.
func (q *request) exactCaller() string {
	if q.Access == nil {
		return ""
	}
	return q.caller.String()
}

// may reports whether the caller may do action in a canonical repository.
func (q *request) may(repository string, action access.Action) bool {
	if q.Access == nil {
		return action == access.Pull || action == access.Push || action == access.Delete
	}
	return q.Access.Allows(q.caller, repository, action)
}

// The rights of which one lets a request through, the one that a refusal names
// first. What exactly is then answered depends on which of them it is.
var (
	readContent  = []access.Action{access.Pull, access.Sign, access.Inspect}
	headContent  = []access.Action{access.Pull, access.Sign, access.Inspect, access.Push}
	readTags     = []access.Action{access.Pull, access.Inspect}
	writeContent = []access.Action{access.Push, access.Sign}
	deleteOnly   = []access.Action{access.Delete}
)

// rights returns what a request for something in a repository needs. A method
// that nothing answers to needs what a push does.
func (r route) rights(method string) []access.Action {
	switch {
	case method == http.MethodDelete && r.endpoint != endpointUpload: // an upload is ended by who began it
		return deleteOnly
	case method != http.MethodGet && method != http.MethodHead, r.endpoint == endpointUpload:
		return writeContent
	case r.endpoint == endpointTags:
		return readTags
	case method == http.MethodHead && (r.endpoint == endpointManifest || r.endpoint == endpointBlob):
		return headContent
	}
	return readContent
}

// authoriseRoute returns the answer to who may not do what is asked at a place,
// or nil.
func (q *request) authoriseRoute(at place) error {
	if q.Access == nil {
		q.pulls = true
		return nil
	}
	repository := at.canonical()
	q.pulls = q.may(repository, access.Pull)
	return q.authorise(repository, q.route.rights(q.r.Method)...)
}

// authorise returns the answer to who may do none of actions in a canonical
// repository, or nil. The first action is the one that the answer names.
func (q *request) authorise(repository string, actions ...access.Action) error {
	for _, action := range actions {
		if q.may(repository, action) {
			return nil
		}
	}
	if q.caller.Kind == access.Anonymous {
		return unauthorized(fmt.Sprintf("log in to %s %s", doing(actions[0]), repository))
	}
	return &Error{
		Status: http.StatusForbidden, Code: codeDenied,
		Message: fmt.Sprintf("%s may not %s %s", printable(q.caller.String()), doing(actions[0]), repository),
	}
}

// doing is an action before the name of a repository.
func doing(action access.Action) string {
	switch action {
	case access.Pull:
		return "pull from"
	case access.Push:
		return "push to"
	case access.Delete:
		return "delete in"
	}
	return string(action) + " in"
}

// unauthorized is the answer to who has to show credentials, or others.
func unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: codeUnauthorized, Message: message, Challenge: challenge}
}
