package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"vidimus/signer"
	"vidimus/verifier/envelope"
)

// jsonConsumer reads JSON for models.UnmarshalProposedEntry.
type jsonConsumer struct{}

func (jsonConsumer) Consume(r io.Reader, into any) error { return json.NewDecoder(r).Decode(into) }

func newReader(data []byte) io.Reader { return bytes.NewReader(data) }

// signed is what package signer hands over: a payload or a statement, signed by key.
func signed(t *testing.T, format signer.Format, statement []byte, key crypto.Signer, hash crypto.Hash) signer.Signed {
	t.Helper()
	s := signer.Signed{Format: format, Message: []byte("payload"), Statement: statement, Hash: hash, Public: key.Public()}
	if statement != nil {
		s.Message = envelope.SignedStatement(statement)
	}
	message := s.Message
	if hash != 0 {
		message = digestOf(hash, s.Message)
	}
	var err error
	s.Signature, err = key.Sign(rand.Reader, message, hash)
	check(t, err)
	return s
}

// enveloped puts a signed statement into the envelope that a tag holds.
func enveloped(t *testing.T, s signer.Signed) signer.Signed {
	t.Helper()
	var err error
	s.Envelope, err = envelope.EncodeEnvelope(envelope.Envelope{
		Statement: s.Statement, Signatures: []envelope.EnvelopeSignature{{Signature: s.Signature}},
	})
	check(t, err)
	return s
}

var statement = []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.Repeat("a", 64) +
	`"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`)

func TestCertify(t *testing.T) {
	w := newWorld(t)
	key, err := newKey()
	check(t, err)
	chain, err := w.services().Certify(t.Context(), key, token(who))
	check(t, err)
	leaf, err := x509.ParseCertificate(chain[0])
	check(t, err)
	if len(chain) != 2 || leaf.EmailAddresses[0] != who || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("%d certificates, the first of %v", len(chain), leaf.EmailAddresses)
	}
	for _, none := range []string{"", "a.b", "a.b.c", "e30.e30.x", "e30.!.x"} {
		if _, err := w.services().Certify(t.Context(), key, none); !errors.Is(err, ErrToken) {
			t.Errorf("token %q: %v", none, err)
		}
	}
	if _, err := w.services().Certify(t.Context(), key, token("other")); err == nil || !strings.Contains(err.Error(), "certificate authority "+w.url+": 401") {
		t.Errorf("another's token: %v", err)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"its certificate is of another key": func(rw http.ResponseWriter, _ *http.Request) { w.sendCertificate(rw, w.authorityKey.Public()) },
		"its answer has 0 certificates":     func(rw http.ResponseWriter, _ *http.Request) { answerJSON(rw, 200, map[string]any{}) },
		"its answer has no certificate":     certificateTexts("x"),
		"its answer has 11 certificates":    certificateTexts(strings.Split(strings.Repeat("x", 11), "")...),
		"its answer: ":                      func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "<html>") },
		"an answer of more than":            func(rw http.ResponseWriter, _ *http.Request) { rw.Write(make([]byte, maxAnswer+1)) },
		"500 Internal":                      func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
	} {
		w.certify = answer
		if _, err := w.services().Certify(t.Context(), key, token(who)); err == nil || !strings.Contains(err.Error(), name) ||
			!strings.HasPrefix(err.Error(), "certificate authority "+w.url) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func certificateTexts(texts ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		answerJSON(rw, 200, map[string]any{"signedCertificateDetachedSct": map[string]any{"chain": map[string]any{"certificates": texts}}})
	}
}

// What is proven holds under the world's trust root, for every kind of key and content.
func TestProve(t *testing.T) {
	w := newWorld(t)
	ephemeral, err := newKey()
	check(t, err)
	chain, err := w.services().Certify(t.Context(), ephemeral, token(who))
	check(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for name, s := range map[string]signer.Signed{
		"keyless statement":       signed(t, signer.FormatBundle, statement, ephemeral, crypto.SHA256),
		"keyless payload":         signed(t, signer.FormatTag, nil, ephemeral, crypto.SHA256),
		"statement by a key":      signed(t, signer.FormatBundle, statement, w.stamperKey, crypto.SHA256),
		"payload by a key":        signed(t, signer.FormatTag, nil, w.stamperKey, crypto.SHA256),
		"payload by P-384":        signed(t, signer.FormatTag, nil, p384, crypto.SHA256),
		"statement by an Ed25519": signed(t, signer.FormatBundle, statement, edwards, 0),
		"statement under a tag":   enveloped(t, signed(t, signer.FormatTag, statement, w.stamperKey, crypto.SHA256)),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "keyless") {
				s.Certificate = chain[0]
			}
			proof, err := w.services().Prove(t.Context(), s)
			check(t, err)
			if len(proof.Entries) != 1 || len(proof.Timestamps) != 1 {
				t.Fatalf("%d entries, %d timestamps", len(proof.Entries), len(proof.Timestamps))
			}
			over := s.Signature
			if s.Envelope != nil {
				over = s.Envelope
			}
			stamp, err := timestamp.ParseResponse(proof.Timestamps[0])
			if err != nil || !bytes.Equal(stamp.HashedMessage, digestOf(crypto.SHA256, over)) {
				t.Errorf("the timestamp is of something else, %v", err)
			}
			var promise struct {
				SignedEntryTimestamp []byte
				Payload              struct{ LogID string }
			}
			id, err := w.RekorLogID()
			check(t, err)
			if err := json.Unmarshal(proof.LogBundle, &promise); err != nil || len(promise.SignedEntryTimestamp) == 0 || promise.Payload.LogID != id {
				t.Errorf("log bundle %s, %v", proof.LogBundle, err)
			}
			if _, err := envelope.EncodeBundle(envelope.Sealed{
				Certificate: s.Certificate, KeyHint: "x", Entries: proof.Entries, Timestamps: proof.Timestamps,
				Statement: statement, Signature: s.Signature,
			}); err != nil {
				t.Error(err)
			}
			again, err := w.services().Prove(t.Context(), s)
			if err != nil || !bytes.Equal(again.LogBundle, proof.LogBundle) {
				t.Errorf("an entry that is there already: %v", err)
			}
		})
	}
}

// A service that lies is found out where there is a trust root, and one that answers
// for something else always.
func TestProveFindsLies(t *testing.T) {
	w := newWorld(t)
	s := signed(t, signer.FormatBundle, statement, w.stamperKey, crypto.SHA256)
	other, stranger := signed(t, signer.FormatBundle, statement, w.stamperKey, crypto.SHA256), newWorld(t)
	stamps := func(rw http.ResponseWriter, _ *http.Request) {
		w.sendStamp(rw, digestOf(crypto.SHA256, other.Signature))
	}
	for name, tt := range map[string]struct {
		lie  func(*world)
		want string
	}{
		"a timestamp of another signature": {func(w *world) { w.stamp = stamps }, "timestamp authority " + w.url + "/stamp: its timestamp is of something else"},
		"a timestamp of another authority": {func(w *world) { w.stamp = stranger.honestStamp }, "does not hold under the trusted root"},
		"an entry of another log":          {func(w *world) { w.enter = stranger.honestEnter }, "does not hold under the trusted root"},
		"no timestamp":                     {func(w *world) { w.stamp = text(200, "x") }, "timestamp authority"},
		"no entry":                         {func(w *world) { w.enter = text(201, "{}") }, "its answer has 0 entries"},
		"half an entry":                    {func(w *world) { w.enter = text(201, `{"x":{"body":"e30="}}`) }, "its answer is not an entry"},
		"no JSON":                          {func(w *world) { w.enter = text(201, "<html>") }, "transparency log " + w.url + ": "},
		"a log that is full":               {func(w *world) { w.enter = text(503, "full\x1b[31m") }, `503 Service Unavailable: "full\x1b[31m"`},
		"a conflict that is nowhere":       {func(w *world) { w.enter = text(409, "") }, "does not say where"},
		"an answer without end":            {func(w *world) { w.enter = text(201, strings.Repeat(" ", maxAnswer+1)) }, "an answer of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			w.certify, w.enter, w.stamp = w.honestCertify, w.honestEnter, w.honestStamp
			clear(w.entries)
			tt.lie(w)
			if _, err := w.services().Prove(t.Context(), s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		io.WriteString(rw, body)
	}
}

// A service that hangs is named, and holds nobody up.
func TestServicesThatHang(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	hang := func(http.ResponseWriter, *http.Request) { <-release }
	w.certify, w.enter, w.stamp = hang, hang, hang
	key, err := newKey()
	check(t, err)
	s := signed(t, signer.FormatBundle, statement, key, crypto.SHA256)
	services := w.services()
	services.Timeout = 50 * time.Millisecond
	onlyLog, onlyStamp := services, services
	onlyLog.Stampers, onlyStamp.Logs = nil, nil
	prove := func(services Services) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := services.Prove(ctx, s)
			return err
		}
	}
	for want, do := range map[string]func(context.Context) error{
		"certificate authority " + w.url: func(ctx context.Context) error {
			_, err := services.Certify(ctx, key, token(who))
			return err
		},
		"transparency log " + w.url:               prove(onlyLog),
		"timestamp authority " + w.url + "/stamp": prove(onlyStamp),
	} {
		if err := do(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want+": no answer within 50ms") {
			t.Errorf("%s: %v", want, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := do(ended); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s, given up: %v", want, err)
		}
	}
}

func TestWhatLogsDoNotTake(t *testing.T) {
	w := newWorld(t)
	services := w.services()
	services.Logs = []Log{{"http://127.0.0.1:1", 2}}
	proof, err := services.Prove(t.Context(), signed(t, signer.FormatTag, nil, w.stamperKey, crypto.SHA256))
	if err != nil || len(proof.Entries) != 0 || len(proof.Timestamps) != 1 || services.Promises() {
		t.Errorf("%+v, %v", proof, err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	if _, err := services.Prove(t.Context(), signed(t, signer.FormatBundle, statement, edwards, 0)); err == nil || !strings.Contains(err.Error(), "Ed25519") {
		t.Errorf("error %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	if _, err := w.services().Prove(t.Context(), signed(t, signer.FormatBundle, statement, p384, crypto.SHA384)); err == nil || !strings.Contains(err.Error(), "SHA-384") {
		t.Errorf("error %v", err)
	}
	if _, err := services.Prove(t.Context(), signed(t, signer.FormatBundle, statement, p384, crypto.SHA256)); err == nil || !strings.Contains(err.Error(), "SHA-384") {
		t.Errorf("error %v", err)
	}
}

func TestParseSigningConfig(t *testing.T) {
	const config = `{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",
"caUrls":[{"url":"https://ca.example","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
"rekorTlogUrls":[{"url":"https://old.example","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"},
 {"url":"https://new.example","majorApiVersion":2,"validFor":{"start":"2021-01-01T00:00:00Z"},"operator":"x"}],
"rekorTlogConfig":{"selector":"ANY"},
"tsaUrls":[{"url":"https://tsa.example/x","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
"tsaConfig":{"selector":"ALL"}}`
	s, err := ParseSigningConfig([]byte(config), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || s.Authority != "https://ca.example" || len(s.Logs) != 1 || s.Logs[0] != (Log{"https://new.example", 2}) ||
		len(s.Stampers) != 1 || s.Stampers[0] != "https://tsa.example/x" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = ParseSigningConfig([]byte(config), time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || len(s.Logs) != 1 || s.Logs[0].Version != 1 {
		t.Errorf("before the new log: %+v, %v", s, err)
	}
	for name, bad := range map[string]string{
		"nothing is valid yet": config,
		"another type":         strings.Replace(config, "v0.2", "v0.1", 1),
		"no URL":               strings.Replace(config, "https://ca.example", "file:///etc/passwd", 1),
		"no JSON":              "{",
		"too large":            strings.Repeat(" ", maxFile+1),
	} {
		if s, err := ParseSigningConfig([]byte(bad), time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := ParseTrustedRoot([]byte(`{}`)); err == nil {
		t.Error("a trusted root that is none is taken")
	}
}
