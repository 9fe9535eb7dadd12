// Package proxy is the registry API of Vidimus: it reads from upstream
// registries, asks a gate about everything that it would serve, and serves
// only what holds.
//
// A request goes through
//
//	route    path, ns and host to an upstream, a repository and a reference
//	ask      who the caller is, and what that caller may do there
//	resolve  a tag to bytes, once; the digest is computed from those bytes
//	fetch    the manifest by digest, from the store or the upstream, hashed
//	gate     the decision about those same bytes
//	record   the decision, before it takes effect
//	keep     what the admitted manifest references
//	serve    the bytes, or one entry of the error map
//
// and, when it was answered a moment ago, from ask to serve by what is kept of
// that (warm.go).
//
// What is pushed goes a path of its own (push.go): authorised, relayed, checked,
// put by its digest, signed where the policy says so, and only then tagged.
//
// # Trust
//
// An upstream, the network, the store and the index are not trusted. Bytes
// count only when this process has hashed them to the digest that was decided
// on. What the index says (a tag's digest, which manifests reference a blob)
// only tells where to look, and is checked again in hashed bytes. Content is
// shared between repositories only when each one's upstream delivered it, or
// answered 200 to HEAD for it. The configuration, through Revision, is trusted.
//
// # What is served
//
// A manifest is served when the gate allows it. Asked for by digest it is also
// served when an index of the same repository, itself allowed now, lists it.
// Blobs are served while an allowed manifest of their repository references
// them. Evidence (signatures, attestations, referrers) is served while its
// subject is allowed, by digest or under a tag that is made of its subject's
// digest, and makes nothing else servable. Under any other tag everything is
// decided as what it would be used as.
//
// What the gate does not allow is read by who may sign or inspect there, and
// enters nothing that others are answered from (unadmitted.go).
//
// Every failure is an error in OCI JSON, made in one place (errors.go); after
// the first byte of a body the only failure is a broken connection.
package proxy
