package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// certifiedBlob is a signature of a file by somebody with a certificate, and what proves
// it.
type certifiedBlob struct {
	testing.TB
	signature, certificate, stamp []byte
	entry                         map[string]any // of a log, as a bundle has it
}

func signBlobCertified(tb testing.TB, virtual *ca.VirtualSigstore, who, issuer string, message []byte) certifiedBlob {
	tb.Helper()
	b := certifiedBlob{TB: tb}
	entity, err := virtual.SignAtTime(who, issuer, message, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	content, _ := entity.SignatureContent()
	material, _ := entity.VerificationContent()
	entries, _ := entity.TlogEntries()
	stamps, _ := entity.Timestamps()
	b.signature, b.stamp = content.Signature(), stamps[0]
	b.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: material.Certificate().Raw})
	entry := entries[0].TransparencyLogEntry()
	id, err := virtual.RekorLogID()
	if err != nil {
		tb.Fatal(err)
	}
	if entry.LogId.KeyId, err = hex.DecodeString(id); err != nil {
		tb.Fatal(err)
	}
	promise, err := virtual.RekorSignPayload(tlog.RekorPayload{
		Body: entries[0].Body(), IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: id,
	})
	if err != nil {
		tb.Fatal(err)
	}
	entry.KindVersion = &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.1"}
	entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	raw, err := protojson.Marshal(entry)
	if err == nil {
		err = json.Unmarshal(raw, &b.entry)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// local is an old bundle with an entry's log and this certificate, in base64 as cosign
// writes it; none when it is empty.
func (b certifiedBlob) local(entry map[string]any, certificate []byte) string {
	b.Helper()
	local := envelope.LocalBundle{Signature: b.signature}
	if certificate != nil {
		local.Certificate = certificate
	}
	if entry != nil {
		id, _ := base64.StdEncoding.DecodeString(entry["logId"].(map[string]any)["keyId"].(string))
		index, _ := entry["logIndex"].(string)
		if index == "" {
			index = "0"
		}
		local.Log = []byte(`{"SignedEntryTimestamp":"` + entry["inclusionPromise"].(map[string]any)["signedEntryTimestamp"].(string) +
			`","Payload":{"body":"` + entry["canonicalizedBody"].(string) + `","integratedTime":` + entry["integratedTime"].(string) +
			`,"logIndex":` + index + `,"logID":"` + hex.EncodeToString(id) + `"}}`)
	}
	data, err := envelope.EncodeLocalBundle(local)
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

// sealed is a new bundle.
func (b certifiedBlob) sealed(message []byte, entry map[string]any) string {
	b.Helper()
	block, _ := pem.Decode(b.certificate)
	material := map[string]any{
		"x509CertificateChain":      map[string]any{"certificates": []any{map[string]any{"rawBytes": block.Bytes}}},
		"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": b.stamp}}},
	}
	if entry != nil {
		material["tlogEntries"] = []any{entry}
	}
	digest, _ := hex.DecodeString(strings.TrimPrefix(sha256Of(message).String(), "sha256:"))
	data, err := json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle+json;version=0.1",
		"verificationMaterial": material,
		"messageSignature": map[string]any{
			"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": digest}, "signature": b.signature,
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

// with is an entry in which one thing is another.
func with(entry map[string]any, name string, value any) map[string]any {
	changed := make(map[string]any, len(entry))
	for n, v := range entry {
		changed[n] = v
	}
	changed[name] = value
	return changed
}

// The four faults of CVE-2022-36056, one by one, in both forms of a bundle: (1) the bundle
// was not bound to the file and the signature, (2) who is named in the certificate was not
// looked at beside a bundle, (3) an invalid bundle and (4) an invalid entry of the log made
// a success.
func TestVerifyBlobKeylessIsNotTalkedIntoIt(t *testing.T) {
	isolate(t)
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	const who, issuer = "dev@acme.example", "https://accounts.example"
	message, other := []byte("released"), []byte("something else")
	writeFile(t, "file", string(message))
	writeFile(t, "other", string(other))
	b := signBlobCertified(t, virtual, who, issuer, message)
	again := signBlobCertified(t, virtual, who, issuer, message) // another certificate, too
	theirs := signBlobCertified(t, virtual, who, issuer, other)
	foreign := signBlobCertified(t, elsewhere, who, issuer, message)
	evil := signBlobCertified(t, virtual, "evil@evil.example", issuer, message)
	writeFile(t, "root.json", string(trustOf(t, virtual, true)))
	writeFile(t, "stamps.json", string(trustOf(t, virtual, false)))
	writeFile(t, "foreign.json", string(trustOf(t, elsewhere, true)))
	writeFile(t, "cert.pem", string(b.certificate))
	writeFile(t, "cert.b64", base64.StdEncoding.EncodeToString(b.certificate))
	writeFile(t, "again.pem", string(again.certificate))
	forged := map[string]any{"signedEntryTimestamp": "MEQ="}
	named := func(args ...string) []string {
		return append([]string{"--certificate-identity", who, "--certificate-oidc-issuer", issuer}, args...)
	}
	good, proven := b.local(b.entry, b.certificate), []string{"--trusted-root", "root.json"}
	for _, tt := range []struct {
		name, bundle string
		args         []string
		file         string
		code         int
		want         string
	}{
		{"the good one, old", good, named(proven...), "file", exitHolds, ""},
		{"the good one, new", b.sealed(message, b.entry), named(proven...), "file", exitHolds, ""},
		{"by expressions", good, append(proven, "--certificate-identity-regexp", ".*@acme.example", "--certificate-oidc-issuer-regexp", "https://.*"), "file", exitHolds, ""},
		{"a certificate beside it", b.local(b.entry, nil), named("--trusted-root", "root.json", "--certificate", "cert.pem"), "file", exitHolds, ""},
		{"a certificate beside it, in base64", good, named("--trusted-root", "root.json", "--certificate", "cert.b64"), "file", exitHolds, ""},

		{"1: of another file, old", good, named(proven...), "other", exitDoesNotHold, "its log entry is about"},
		{"1: of another file, without an entry", b.local(nil, b.certificate), named(proven...), "other", exitDoesNotHold, "not by the key in its certificate"},
		{"1: of another file, new", b.sealed(message, b.entry), named(proven...), "other", exitDoesNotHold, "it is about"},
		{"1: it says that it is of another file, new", b.sealed(other, b.entry), named(proven...), "other", exitDoesNotHold, "not by the key in its certificate"},
		{"1: the entry of another file, old", b.local(theirs.entry, b.certificate), named(proven...), "file", exitDoesNotHold, "its log entry is about"},
		{"1: the entry of another file, new", b.sealed(message, theirs.entry), named(proven...), "file", exitDoesNotHold, "does not match"},
		{"1: the entry of another signature, old", b.local(again.entry, b.certificate), named(proven...), "file", exitDoesNotHold, "about another signature"},
		{"1: the entry of another signature, new", b.sealed(message, again.entry), named(proven...), "file", exitDoesNotHold, "does not match"},
		{"1: another certificate, old", b.local(b.entry, again.certificate), named(proven...), "file", exitDoesNotHold, "by another certificate"},
		{"1: another certificate beside it", good, named("--trusted-root", "root.json", "--certificate", "again.pem"), "file", exitDoesNotHold, "not the one that --certificate gives"},
		{"1: another signature beside it", good, named("--trusted-root", "root.json", "--signature", base64.StdEncoding.EncodeToString(again.signature)), "file", exitDoesNotHold, "not the one that --signature gives"},

		{"2: somebody else, old", evil.local(evil.entry, evil.certificate), named(proven...), "file", exitDoesNotHold, "none of the identities"},
		{"2: somebody else, new", evil.sealed(message, evil.entry), named(proven...), "file", exitDoesNotHold, "none of the identities"},
		{"2: another issuer", good, append(proven, "--certificate-identity", who, "--certificate-oidc-issuer", "https://evil.example"), "file", exitDoesNotHold, "none of the identities"},
		{"2: an expression that fits a part", good, append(proven, "--certificate-identity-regexp", "acme", "--certificate-oidc-issuer", issuer), "file", exitDoesNotHold, "none of the identities"},

		{"3: no bundle", "{}", named(proven...), "file", exitDoesNotHold, "base64Signature"},
		{"3: no JSON", "MEQ=", named(proven...), "file", exitDoesNotHold, "json"},
		{"3: without a certificate", b.local(b.entry, nil), named(proven...), "file", exitDoesNotHold, "no certificate"},
		{"3: a certificate that is none", b.local(nil, []byte("none")), named(proven...), "file", exitDoesNotHold, "not PEM certificates"},
		{"3: nothing proves it", b.local(nil, b.certificate), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"3: a timestamp alone, and the root has a log", b.sealed(message, nil), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"3: a timestamp suffices when it is said", b.sealed(message, nil), named("--trusted-root", "root.json", "--insecure-ignore-tlog"), "file", exitHolds, ""},

		{"4: a promise that is none, old", b.local(with(b.entry, "inclusionPromise", forged), b.certificate), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"4: a promise that is none, new", b.sealed(message, with(b.entry, "inclusionPromise", forged)), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"4: another time, old", b.local(with(b.entry, "integratedTime", "1700000000"), b.certificate), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"4: an entry that is none, old", b.local(with(b.entry, "canonicalizedBody", "e30="), b.certificate), named(proven...), "file", exitDoesNotHold, "log entry"},
		{"4: of another log, old", foreign.local(foreign.entry, foreign.certificate), named(proven...), "file", exitDoesNotHold, "does not hold"},
		{"4: the right log, and another root", good, named("--trusted-root", "foreign.json"), "file", exitDoesNotHold, "does not hold"},
		{"4: the public instance's root", good, named(), "file", exitDoesNotHold, "does not hold"},
	} {
		writeFile(t, "bundle", tt.bundle)
		var out output
		code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, append(tt.args, "--bundle", "bundle", tt.file)...)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if code != tt.code || !strings.Contains(text, tt.want) || (code == exitHolds) != (out.stderr.String() == "Verified OK\n") {
			t.Errorf("%s: exit %d, %q; want %d with %q", tt.name, code, text, tt.code, tt.want)
		}
	}
}

func TestVerifyBlobKeylessMeetsMisuse(t *testing.T) {
	isolate(t)
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("released")
	b := signBlobCertified(t, virtual, "dev@acme.example", "https://accounts.example", message)
	writeFile(t, "file", string(message))
	writeFile(t, "cert.pem", string(b.certificate))
	writeFile(t, "root.json", string(trustOf(t, virtual, true)))
	public, err := signer.EncodePublicKey(generateKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "some.pub", string(public))
	signature := base64.StdEncoding.EncodeToString(b.signature)
	who := []string{"--certificate-identity", "dev@acme.example", "--certificate-oidc-issuer", "https://accounts.example", "--trusted-root", "root.json"}
	for want, args := range map[string][]string{
		"say which certificate": append(who, "--signature", signature),
		"missing.pem":           append(who, "--signature", signature, "--certificate", "missing.pem"),
		"two signers":           append(who, "--key", "key.pub", "--signature", signature),
		"--key is not":          {"--key", "some.pub", "--certificate", "cert.pem", "--signature", signature},
	} {
		var out output
		if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, append(args, "file")...); code != exitMisuse || !strings.Contains(err.Error(), want) {
			t.Errorf("exit %d, %v; want %q", code, err, want)
		}
	}
	// A signature and a certificate by themselves have no time.
	var out output
	if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, append(who, "--certificate", "cert.pem", "--signature", signature, "file")...); code != exitDoesNotHold || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("exit %d, %v", code, err)
	}
}

// A key's old bundle whose entry the log has not made proves nothing, and where a trusted
// root is given that is a fault.
func TestVerifyBlobHoldsAKeysEntryAgainstTheTrustedRoot(t *testing.T) {
	w := newBlobWorld(t)
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "root.json", string(trustOf(t, virtual, true)))
	forged := w.local(w.signature, "", w.message, w.signature, w.public)
	if code, err := w.verify(forged, "--key", "key.pub", "file"); code != exitHolds {
		t.Errorf("without a root: exit %d, %v", code, err)
	}
	if code, err := w.verify(forged, "--key", "key.pub", "--trusted-root", "root.json", "file"); code != exitDoesNotHold || !strings.Contains(err.Error(), "its log entry does not hold") {
		t.Errorf("with a root: exit %d, %v", code, err)
	}
}

// trustOf is the trusted root of an instance, with its log or without.
func trustOf(t *testing.T, virtual *ca.VirtualSigstore, logs bool) []byte {
	t.Helper()
	var known map[string]*root.TransparencyLog
	if logs {
		known = virtual.RekorLogs()
		for _, log := range known {
			id, err := hex.DecodeString(string(log.ID))
			if err != nil {
				t.Fatal(err)
			}
			log.ID = id
		}
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, virtual.FulcioCertificateAuthorities(), nil, virtual.TimestampingAuthorities(), known)
	if err != nil {
		t.Fatal(err)
	}
	data, err := made.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(data)
}
