// Package access says who may talk to the proxy: who a caller is, by the
// passwords of an htpasswd file or by a client certificate, and what callers may
// do, by an ordered list.
//
// Trusted are the configuration, and the listener's word that a client
// certificate was verified. A name that a caller gives counts only with its
// password. Everything is refused unless an entry of the list allows it; the first
// entry whose subjects and match fit decides, also against the caller.
//
// What is allowed here is a right to ask. What is served is for the gate to
// decide.
package access
