package main

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// blobWorld is a file, two keys and their signatures.
type blobWorld struct {
	*testing.T
	key, stranger       crypto.Signer
	message, other      []byte
	signature, theirs   []byte // over message, by key and by stranger
	public, publicOther string
}

func newBlobWorld(t *testing.T) *blobWorld {
	t.Helper()
	isolate(t)
	w := &blobWorld{T: t, key: generateKey(t), stranger: generateKey(t), message: []byte("released"), other: []byte("something else")}
	w.signature, w.theirs = w.sign(w.key, w.message), w.sign(w.stranger, w.message)
	w.public, w.publicOther = w.text(w.key), w.text(w.stranger)
	writeFile(t, "key.pub", w.public)
	writeFile(t, "stranger.pub", w.publicOther)
	writeFile(t, "file", string(w.message))
	writeFile(t, "other", string(w.other))
	return w
}

func (w *blobWorld) sign(key crypto.Signer, message []byte) []byte {
	digest := sha256.Sum256(message)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		w.Fatal(err)
	}
	return signature
}

func (w *blobWorld) text(key crypto.Signer) string {
	text, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		w.Fatal(err)
	}
	return string(text)
}

// local is an old bundle, with the entry of a log about message, signature and signer.
func (w *blobWorld) local(signature []byte, cert string, message, logged []byte, signedBy string) string {
	sum := sha256.Sum256(message)
	body := fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":%q}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
		hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(logged), base64.StdEncoding.EncodeToString([]byte(signedBy)))
	b := envelope.LocalBundle{Signature: signature, Log: fmt.Appendf(nil,
		`{"SignedEntryTimestamp":"MEQ=","Payload":{"body":%q,"integratedTime":1,"logIndex":2,"logID":"ab"}}`, base64.StdEncoding.EncodeToString([]byte(body)))}
	if cert != "" {
		b.Certificate = []byte(cert)
	}
	data, err := envelope.EncodeLocalBundle(b)
	if err != nil {
		w.Fatal(err)
	}
	return string(data)
}

// sealed is a new bundle.
func (w *blobWorld) sealed(key crypto.Signer, content signer.Content) string {
	sealed, err := signer.Seal(w.Context(), signer.Config{Key: key}, content)
	if err != nil {
		w.Fatal(err)
	}
	return string(sealed.Bundle)
}

// verify runs verify-blob with a bundle.
func (w *blobWorld) verify(bundle string, args ...string) (int, error) {
	writeFile(w.T, "bundle", bundle)
	var out output
	code, err := out.execute(w.Context(), newVerifyBlobCommand(), strings.NewReader(string(w.message)), append([]string{"--bundle", "bundle"}, args...)...)
	if (code == exitHolds) != (out.stderr.String() == "Verified OK\n") {
		w.Errorf("exit %d and %q", code, out.stderr.String())
	}
	return code, err
}

// What CVE-2022-36056 was about: a bundle that is not about the signature, one that
// cannot be read, an entry of the log that is about something else; and the key that a
// bundle brings along (GHSA-fx35-mq7g-6g98).
func TestVerifyBlobIsNotTalkedIntoIt(t *testing.T) {
	w := newBlobWorld(t)
	statement, err := envelope.SignatureStatement("sha256:"+strings.Repeat("a", 64), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	good := w.local(w.signature, "", w.message, w.signature, w.public)
	for name, tt := range map[string]struct {
		bundle string
		args   []string
		code   int
		want   string
	}{
		"the good one":                  {good, nil, exitHolds, ""},
		"the good one, new":             {w.sealed(w.key, signer.Content{Message: w.message}), nil, exitHolds, ""},
		"without a log":                 {`{"base64Signature":"` + base64.StdEncoding.EncodeToString(w.signature) + `"}`, nil, exitHolds, ""},
		"no bundle":                     {`{}`, nil, exitDoesNotHold, "base64Signature"},
		"no JSON":                       {`MEQ=`, nil, exitDoesNotHold, "json"},
		"two bundles":                   {good + good, nil, exitDoesNotHold, "data after"},
		"a stranger's signature":        {w.local(w.theirs, "", w.message, w.theirs, w.publicOther), nil, exitDoesNotHold, "by another key"},
		"a stranger's, without a log":   {`{"base64Signature":"` + base64.StdEncoding.EncodeToString(w.theirs) + `"}`, nil, exitDoesNotHold, "no signature by key.pub"},
		"a stranger's key in cert":      {w.local(w.theirs, base64.StdEncoding.EncodeToString([]byte(w.publicOther)), w.message, w.theirs, w.public), nil, exitDoesNotHold, "no signature by key.pub"},
		"a stranger's, new":             {w.sealed(w.stranger, signer.Content{Message: w.message}), nil, exitDoesNotHold, "no signature by key.pub"},
		"an entry of another file":      {w.local(w.signature, "", w.other, w.signature, w.public), nil, exitDoesNotHold, "log entry is about sha256:"},
		"an entry of another signature": {w.local(w.signature, "", w.message, w.sign(w.key, w.message), w.public), nil, exitDoesNotHold, "about another signature"},
		"an entry by another key":       {w.local(w.signature, "", w.message, w.signature, w.publicOther), nil, exitDoesNotHold, "by another key"},
		"an entry that is none":         {strings.Replace(good, `"Payload"`, `"payload"`, 1), nil, exitDoesNotHold, "log entry"},
		"a signature beside, another":   {good, []string{"--signature", base64.StdEncoding.EncodeToString(w.sign(w.key, w.message))}, exitDoesNotHold, "not the one that --signature gives"},
		"a signature beside, the same":  {good, []string{"--signature", base64.StdEncoding.EncodeToString(w.signature)}, exitHolds, ""},
		"about another file, new":       {w.sealed(w.key, signer.Content{Message: w.other}), nil, exitDoesNotHold, "it is about sha256:"},
		"a statement":                   {w.sealed(w.key, signer.Content{Statement: statement}), nil, exitDoesNotHold, "a statement"},
	} {
		code, err := w.verify(tt.bundle, append(tt.args, "--key", "key.pub", "file")...)
		if code != tt.code || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: exit %d, %v; want %d with %q", name, code, err, tt.code, tt.want)
		}
	}
	if code, err := w.verify(good, "--key", "key.pub", "-"); code != exitHolds {
		t.Errorf("standard input: exit %d, %v", code, err)
	}
	if code, err := w.verify(good, "--key", "key.pub", "other"); code != exitDoesNotHold {
		t.Errorf("another file: exit %d, %v", code, err)
	}
}

func TestVerifyBlobMeetsMisuse(t *testing.T) {
	w := newBlobWorld(t)
	writeFile(t, "sig", "no base64 !")
	for name, args := range map[string][]string{
		"no signature":     {"--key", "key.pub", "file"},
		"no key":           {"--signature", "MEQ=", "file"},
		"no file":          {"--key", "key.pub", "--signature", "MEQ="},
		"a missing file":   {"--key", "key.pub", "--signature", "MEQ=", "missing"},
		"a missing bundle": {"--key", "key.pub", "--bundle", "missing", "file"},
		"neither":          {"--key", "key.pub", "--signature", "missing.sig", "file"},
		"no issuer":        {"--certificate-identity", "x", "--signature", "MEQ=", "file"},
	} {
		var out output
		if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, args...); code != exitMisuse {
			t.Errorf("%s: exit %d, %v", name, code, err)
		}
	}
	var out output
	writeFile(t, "raw.sig", string(w.signature))
	if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, "--key", "key.pub", "--signature", "raw.sig", "file"); code != exitHolds {
		t.Errorf("a signature as it is: exit %d, %v", code, err)
	}
	if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, "--key", "key.pub", "--signature", "sig", "file"); code != exitDoesNotHold {
		t.Errorf("a signature that is none: exit %d, %v", code, err)
	}
}

func TestSignBlobWritesWhatIsAskedFor(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	writeFile(t, "file", "released")
	var out output
	if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), nil); code != exitHolds {
		t.Fatal(code, err)
	}
	for _, tt := range []struct {
		args, files []string
		prints      bool
	}{
		{nil, nil, true},
		{[]string{"--output-signature", "s"}, []string{"s"}, false},
		{[]string{"--output", "s", "--b64=false"}, []string{"s"}, false},
		{[]string{"--bundle", "b"}, []string{"b"}, false},
		{[]string{"--bundle", "b", "--output-signature", "s"}, []string{"b", "s"}, false},
		{[]string{"--bundle", "b", "--new-bundle-format=false"}, []string{"b"}, true},
	} {
		var out output
		code, err := out.execute(t.Context(), newSignBlobCommand(), nil, append(tt.args, "--key", "cosign.key", "file")...)
		if code != exitHolds || (out.stdout.Len() > 0) != tt.prints {
			t.Errorf("%v: exit %d, %v, printed %q", tt.args, code, err, out.stdout.String())
		}
		args := []string{"--key", "cosign.pub"}
		for i, file := range tt.files {
			args = append(args, "--"+map[string]string{"s": "signature", "b": "bundle"}[tt.files[i]], file)
		}
		if len(tt.files) == 0 {
			args = append(args, "--signature", strings.TrimSpace(out.stdout.String()))
		}
		if code, err := out.execute(t.Context(), newVerifyBlobCommand(), nil, append(args, "file")...); code != exitHolds {
			t.Errorf("%v: %v: exit %d, %v", tt.args, args, code, err)
		}
		for _, file := range tt.files {
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}
	}
	var again output
	if code, err := again.execute(t.Context(), newSignBlobCommand(), nil, "--key", "cosign.key", "--output", "a", "--output-signature", "b", "file"); code != exitMisuse {
		t.Errorf("two names for one file: exit %d, %v", code, err)
	}
}
