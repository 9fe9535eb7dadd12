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

// may reports whether the caller may do action in a canonical repository.
func (q *request) may(repository string, action access.Action) bool {
	if q.Access == nil {
		return action == access.Pull || action == access.Push || action == access.Delete
	}
	return q.Access.Allows(q.caller, repository, action)
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
		return unauthorized(fmt.Sprintf("log in to %s %s", actions[0], repository))
	}
	return &Error{
		Status: http.StatusForbidden, Code: codeDenied,
		Message: fmt.Sprintf("%s may not %s %s", printable(q.caller.String()), actions[0], repository),
	}
}

// unauthorized is the answer to who has to show credentials, or others.
func unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: codeUnauthorized, Message: message}
}
