// Package signer makes key pairs and signatures in cosign's formats, and
// attaches signatures to what is in a registry without losing another's.
//
// # Keys
//
// A private key is PKCS#8, encrypted under a password with scrypt and NaCl's
// secretbox, as JSON inside one PEM block: what cosign v2 and v3 write, and
// what every cosign since v0.1 wrote. A key file is not trusted before its
// password has opened it: its size, its single PEM block, its fields and its
// scrypt parameters are checked first, so that a hostile file costs nothing.
// No error of this package contains a password, a key, or a byte of either.
//
// # Signatures
//
// A signature is over the exact bytes of a simple signing payload (package
// envelope), or of a statement as DSSE encodes it, in a sigstore bundle: ECDSA and RSA (PKCS#1 v1.5) over their SHA-256 whatever the size
// of the key, Ed25519 over the bytes themselves. cosign signs with other
// hashes when the key is P-384, P-521 or Ed25519, and then its own verify
// command, podman and older releases refuse the signature unless they are told
// so; what is chosen here is what all of them accept without being told.
//
// A manifest is signed by the digest of the bytes that were fetched, never by
// a digest that a registry claims.
//
// # Attaching, and what is guaranteed
//
// A bundle is a manifest of its own that refers to what is signed. Most
// registries list such referrers themselves and say so; for the others their
// list is an index under the tag sha256-<hex>, which clients keep. An image
// under that tag is never replaced.
//
// The signatures of a manifest are the layers of one image under the tag
// sha256-<hex>.sig, so adding one means to replace the tag, as it does for that
// index: a read, a merge and a write. Few registries offer compare-and-swap, and
// none is relied on. Instead:
//
//   - Everything is uploaded before the tag is read for the last time; when it
//     changed meanwhile the merge is done again. From that read to the end of
//     the write is the window in which another writer can be overwritten.
//   - Right after the write the tag is read again. A signature that is not in
//     it was overwritten, and is merged again after a random pause.
//   - It is read once more after a settling time that is longer than the
//     window of any writer that is as fast as this one: at least SettleFloor,
//     and settleWindows times the longest window that was measured. A writer
//     that read before our write, and so without our signature, has written
//     by then; one that read after it keeps our signature.
//   - Writers on the same host take turns (Locker), which spares them the
//     collisions and changes nothing about the argument.
//
// So no signature is lost among writers of this program against a registry
// whose reads show the last completed write. Not guaranteed: a writer whose
// window is longer than our settling time (stopped in the middle of it, or
// behind a far slower line) can still overwrite us unseen, as can several that
// keep overwriting one another without a gap for all of that time; another
// program that does not look again, such as cosign, may itself be overwritten
// by us inside our window and will not notice, though what it wrote before our
// last read is kept; and a registry that serves stale tags can show us what is
// no longer there.
//
// The layers of others are kept byte for byte as they were read, whatever they
// hold: this package does not judge them, and a signature image that it cannot
// read as one is an error rather than overwritten.
//
// An attestation that replaces those of its type (Request.Replace) is added first, and
// what was there before it began is taken away after it was found to have stayed, by the
// same loop. What another writer puts back meanwhile is taken away again, a few times;
// two that replace at the same moment may both stay.
//
// Add does the same for what was signed elsewhere: layers of images of signatures,
// attestations and SBOMs, and the lists of referrers under fallback tags.
package signer
