package verifier_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/notary"
)

// The kinds of bundle that a verifier has to refuse, as the tests of conformance of
// Sigstore's clients tell them apart, made by ourselves. Those that are not here are in
// TestACertificateThatIsNotProvenIsRejected and TestABundleThatIsNotAsItShouldBeIsRejected.
func TestBundlesThatNoClientMayTake(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	said := func() object { return statement(subject.Digest, predicateSign) }
	good := func() object { return s.sign(h, said()) }
	message := func() object {
		return s.prove(overMessage(t, h.Key, crypto.SHA256, []byte("subject")), h.PEM(), s.Now)
	}
	another := s.sign(h, statement(other, predicateSign))
	entryOf := func(b object) object { return part(b, "verificationMaterial", "tlogEntries") }
	proofOf := func(b object) object { return part(entryOf(b), "inclusionProof") }
	stampOf := func(b object) object {
		return part(b, "verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")
	}
	changed := func(b object, change func(b object)) object {
		change(b)
		return b
	}
	checkpoint := func(b object, change func(lines []string)) {
		lines := strings.Split(part(proofOf(b), "checkpoint")["envelope"].(string), "\n")
		change(lines)
		part(proofOf(b), "checkpoint")["envelope"] = strings.Join(lines, "\n")
	}
	flipped := func(data any) []byte {
		out := bytes.Clone(data.([]byte))
		out[len(out)/2] ^= 1
		return out
	}
	both, logs, stamps := notary.Has{Logs: true, Stamps: true}, notary.Has{Logs: true}, notary.Has{Stamps: true}
	for _, tt := range []struct {
		name   string
		trust  notary.Has
		bundle object
	}{
		{"a checkpoint whose signature is of other bytes", both, changed(good(), func(b object) {
			checkpoint(b, func(lines []string) {
				at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "\u2014 ") })
				name, encoded, _ := strings.Cut(strings.TrimPrefix(lines[at], "\u2014 "), " ")
				signature, err := base64.StdEncoding.DecodeString(encoded)
				if err != nil {
					t.Fatal(err)
				}
				lines[at] = "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(flipped(signature))
			})
		})},
		{"a checkpoint without a signature", both, changed(good(), func(b object) {
			checkpoint(b, func(lines []string) {
				for i := range lines {
					if strings.HasPrefix(lines[i], "\u2014 ") {
						lines[i] = ""
					}
				}
			})
		})},
		{"a checkpoint of another size", both, changed(good(), func(b object) { checkpoint(b, func(lines []string) { lines[1] = "2" }) })},
		{"a checkpoint of another root", both, changed(good(), func(b object) {
			checkpoint(b, func(lines []string) { lines[2] = base64.StdEncoding.EncodeToString(make([]byte, 32)) })
		})},
		{"a proof with another root", both, changed(good(), func(b object) { proofOf(b)["rootHash"] = make([]byte, 32) })},
		{"a proof with a hash too many", both, changed(good(), func(b object) { proofOf(b)["hashes"] = []any{make([]byte, 32)} })},
		{"a proof in another tree's size", both, changed(good(), func(b object) { proofOf(b)["treeSize"] = "2" })},
		{"a proof of another place", both, changed(good(), func(b object) { proofOf(b)["logIndex"] = "1" })},
		{"a proof of a place below the first", both, changed(good(), func(b object) { proofOf(b)["logIndex"] = "-1" })},
		{"a proof of another entry", both, changed(good(), func(b object) { entryOf(b)["inclusionProof"] = entryOf(another)["inclusionProof"] })},
		{"a proof without a checkpoint", both, changed(good(), func(b object) { delete(proofOf(b), "checkpoint") })},
		{"v0.3 without a proof", both, unproven(good(), "proof")},
		{"v0.2 without a proof", both, unproven(versioned(good(), version02), "proof")},
		{"v0.1 without a promise", logs, unproven(versioned(good(), version01), "promise", "stamp")},
		{"a promise for another time", logs, changed(good(), func(b object) { entryOf(b)["integratedTime"] = "1700000000" })},
		{"a promise for another place", logs, changed(good(), func(b object) { entryOf(b)["logIndex"] = "8" })},
		{"a promise of another log's name", logs, changed(good(), func(b object) { part(entryOf(b), "logId")["keyId"] = make([]byte, 32) })},
		{"a body with a bit changed", both, changed(good(), func(b object) { entryOf(b)["canonicalizedBody"] = flipped(entryOf(b)["canonicalizedBody"]) })},
		{"an entry without a kind", both, changed(good(), func(b object) { delete(entryOf(b), "kindVersion") })},
		{"a timestamp with a bit changed", stamps, changed(good(), func(b object) { stampOf(b)["signedTimestamp"] = flipped(stampOf(b)["signedTimestamp"]) })},
		{"a timestamp that is empty", stamps, changed(good(), func(b object) { stampOf(b)["signedTimestamp"] = []byte{} })},
		{"a timestamp of what is signed, not of its signature", stamps, changed(good(), func(b object) {
			stampOf(b)["signedTimestamp"] = s.Stamp(part(b, "dsseEnvelope")["payload"].([]byte))
		})},
		{"a message's digest that is another's", both, changed(message(), func(b object) {
			part(b, "messageSignature", "messageDigest")["digest"] = make([]byte, 32)
		})},
		{"a message's digest of another algorithm", both, changed(message(), func(b object) {
			part(b, "messageSignature", "messageDigest")["algorithm"] = "SHA2_512"
		})},
		{"a signature with a bit changed", both, changed(good(), func(b object) {
			part(b, "dsseEnvelope", "signatures")["sig"] = flipped(part(b, "dsseEnvelope", "signatures")["sig"])
		})},
		{"two signatures", both, changed(good(), func(b object) {
			envelope := part(b, "dsseEnvelope")
			envelope["signatures"] = append(envelope["signatures"].([]any), envelope["signatures"].([]any)...)
		})},
		{"an envelope and a message", both, changed(good(), func(b object) { b["messageSignature"] = message()["messageSignature"] })},
		{"a certificate and a key", both, changed(good(), func(b object) {
			part(b, "verificationMaterial")["publicKey"] = object{"hint": "x"}
		})},
		{"a version to come", both, versioned(good(), "application/vnd.dev.sigstore.bundle.v0.4+json")},
		{"no version", both, versioned(good(), "application/vnd.dev.sigstore.bundle+json")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			report := s.find(t, r, keyless(t, "ci", s.trust(tt.trust), githubIssuer, workflow))
			if anyVerified(report.Evidence) || len(report.Failures) > 0 {
				t.Errorf("report %+v", report)
			}
			for _, e := range report.Evidence {
				if e.Detail() == "" || e.Signer() != "" {
					t.Errorf("rejected without a word, or as %q: %s", e.Signer(), e.Detail())
				}
			}
		})
	}
	t.Run("and the one that they were made of counts", func(t *testing.T) {
		for _, b := range []object{good(), message()} {
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			r.list(t, b)
			e := s.find(t, r, keyless(t, "ci", s.trust(both), githubIssuer, workflow)).Evidence[0]
			if at, timed := e.SignedAt(); !e.Verified() || !timed || at.Sub(s.Now).Abs() > time.Minute {
				t.Errorf("verified %v, at %v: %s", e.Verified(), at, e.Detail())
			}
		}
	})
}
