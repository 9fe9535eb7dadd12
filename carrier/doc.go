// Package carrier finds an image with everything that is said about it, and
// carries both from one place to another.
//
// # What belongs to an image
//
// The manifest that is named; what it lists, when it is an index, at any depth;
// and the evidence about each of these:
//
//   - images under cosign's tags: sha256-<hex>.sig, .att, .sbom, and .cosign,
//     where cosign v0.1 to v0.3 kept signatures;
//   - manifests whose subject it is, of whatever type: sigstore bundles,
//     notation's signatures, SBOMs. They are looked for by the referrers API and
//     under the fallback tag sha256-<hex>, and neither hides what the other has;
//   - what is said about these in turn.
//
// # What is guaranteed
//
// Every byte that is carried is hashed here: a manifest when it is read, a blob
// before the last of it is passed on, so that no target ever holds the whole of
// something that is not what its digest says.
//
// What is at the target stays: images of evidence are merged layer by layer, as
// package signer does it, and lists of referrers likewise. A tag that names
// another image is moved only when that is asked for.
//
// The tag is written last, when all else is there, so that it never stands without
// its evidence. A copy that was cut off leaves a target without the tag, and can be
// made again.
//
// Everything that a remote party sizes is bounded: see the constants.
package carrier
