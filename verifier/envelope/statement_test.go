package envelope

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const otherDigest = "sha256:f355d0a3b6a95690a64ee3733aeebdb043a09fcd6c5d15f68903b5b775e818fa"

// statement, dsse and bundle build documents as cosign v3.1.3 lays them out.
func statement(subjects string) string {
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subjects + `],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
}

func subject(digest string) string {
	return `{"digest":{"sha256":"` + strings.TrimPrefix(digest, "sha256:") + `"}}`
}

func dsse(statement string) string {
	return `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(statement)) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEQ="}]}`
}

func bundle(mediaType, content string) string {
	return `{"mediaType":"` + mediaType + `","verificationMaterial":{"publicKey":{"hint":"x"}},` + content + `}`
}

func message(digest string) string {
	return `"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` + digest + `"},"signature":"MEQ="}`
}

const messageDigest = "lSxyAVrBWDHfBP6q5fM93npTi650+hpzyUU+EpNO8sI="

func TestSubjectsNamesWhatEvidenceIsAbout(t *testing.T) {
	signed := dsse(statement(subject(digest)))
	for _, tt := range []struct {
		name, mediaType, text string
		want                  []string
	}{
		{"a payload", MediaTypeSimpleSigning, modern, []string{digest}},
		{"a payload of v0.1", MediaTypeSimpleSigning, legacy, []string{digest}},
		{"an envelope", MediaTypeDSSE, signed, []string{digest}},
		{"an envelope with a name we do not know", MediaTypeDSSE, strings.Replace(signed, "{", `{"extra":1,`, 1), []string{digest}},
		{"a statement v0.1", MediaTypeDSSE, dsse(strings.Replace(statement(subject(digest)), "Statement/v1", "Statement/v0.1", 1)), []string{digest}},
		{"several subjects, sorted, each once", MediaTypeDSSE, dsse(statement(subject(otherDigest) + "," + subject(digest) + "," + subject(otherDigest))), []string{digest, otherDigest}},
		{"subjects by other algorithms are passed over", MediaTypeDSSE, dsse(statement(`{"digest":{"gitCommit":"abc"}},` + subject(digest))), []string{digest}},
		{"a bundle with an envelope", MediaTypeBundle, bundle(MediaTypeBundle, `"dsseEnvelope":`+signed), []string{digest}},
		{"a bundle v0.1", mediaTypeBundle01, bundle(mediaTypeBundle01, `"dsseEnvelope":`+signed), []string{digest}},
		{"a bundle v0.2", mediaTypeBundle02, bundle(mediaTypeBundle02, `"dsseEnvelope":`+signed), []string{digest}},
		{"a bundle v0.3 as it was first called", mediaTypeBundle03, bundle(mediaTypeBundle03, `"dsseEnvelope":`+signed), []string{digest}},
		{"a bundle with a message signature", MediaTypeBundle, bundle(MediaTypeBundle, message(messageDigest)), []string{"sha256:" + fmt.Sprintf("%x", mustDecode(messageDigest))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Subjects(tt.mediaType, []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("subjects (-want +got):\n%s", diff)
			}
			if !IsEvidence(tt.mediaType) {
				t.Errorf("%s is not called evidence", tt.mediaType)
			}
		})
	}
}

func mustDecode(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestSubjectsOfOtherContentIsAnError(t *testing.T) {
	good := statement(subject(digest))
	envelope := dsse(good)
	full := bundle(MediaTypeBundle, `"dsseEnvelope":`+envelope)
	for _, tt := range []struct{ name, mediaType, text, want string }{
		{"an image's layer", "application/vnd.oci.image.layer.v1.tar+gzip", modern, "not one of evidence"},
		{"no media type", "", modern, "not one of evidence"},
		{"a media type with a parameter", MediaTypeSimpleSigning + "; charset=utf-8", modern, "not one of evidence"},
		{"an archive called a payload", MediaTypeSimpleSigning, "\x1f\x8b\x08\x00", "not valid UTF-8"},
		{"an archive called an envelope", MediaTypeDSSE, "\x1f\x8b\x08\x00", "not valid UTF-8"},
		{"an archive called a bundle", MediaTypeBundle, "\x1f\x8b\x08\x00", "not valid UTF-8"},
		{"an envelope called a payload", MediaTypeSimpleSigning, envelope, `has no "critical"`},
		{"a payload called an envelope", MediaTypeDSSE, modern, "payloadType of the envelope is missing"},
		{"an envelope of another payload type", MediaTypeDSSE, strings.Replace(envelope, "in-toto+json", "other", 1), "payloadType of the envelope is"},
		{"an envelope without signatures", MediaTypeDSSE, strings.Replace(envelope, `"signatures"`, `"other"`, 1), "signatures of the envelope is missing"},
		{"an envelope whose payload is no base64", MediaTypeDSSE, `{"payload":"*","payloadType":"application/vnd.in-toto+json","signatures":[]}`, "not base64"},
		{"an envelope whose payload is null", MediaTypeDSSE, `{"payload":null,"payloadType":"application/vnd.in-toto+json","signatures":[]}`, "payload of the envelope is null"},
		{"an envelope with two payloads", MediaTypeDSSE, strings.Replace(envelope, `"payload"`, `"Payload":"","payload"`, 1), "two letter cases"},
		{"a statement of another type", MediaTypeDSSE, dsse(strings.Replace(good, "Statement/v1", "Statement/v9", 1)), "_type of the statement is"},
		{"a statement with two subjects", MediaTypeDSSE, dsse(strings.Replace(good, `"subject"`, `"Subject":[],"subject"`, 1)), "two letter cases"},
		{"a statement without subjects", MediaTypeDSSE, dsse(statement("")), "names no subject by a sha256 digest"},
		{"a statement about a commit only", MediaTypeDSSE, dsse(statement(`{"digest":{"gitCommit":"a"}}`)), "names no subject by a sha256 digest"},
		{"a subject that is null", MediaTypeDSSE, dsse(statement("null")), "a subject of the statement is null"},
		{"a subject without a digest", MediaTypeDSSE, dsse(statement(`{"name":"x"}`)), "digest of a subject of the statement is missing"},
		{"a subject with a short digest", MediaTypeDSSE, dsse(statement(`{"digest":{"sha256":"ab"}}`)), "64 lower-case"},
		{"a subject whose digest is a number", MediaTypeDSSE, dsse(statement(`{"digest":{"sha256":1}}`)), "is a number, not a string"},
		{"a hundred thousand subjects", MediaTypeDSSE, dsse(statement(strings.Repeat("{},", 100_000) + "{}")), "more than 1024 elements"},
		{"a bundle of another version", MediaTypeBundle, strings.Replace(full, "v0.3+json", "v0.9+json", 1), "not that of its blob"},
		{"a bundle that says it is an older one", MediaTypeBundle, bundle(mediaTypeBundle01, `"dsseEnvelope":`+envelope), "not that of its blob"},
		{"a bundle with both contents", MediaTypeBundle, bundle(MediaTypeBundle, message(messageDigest)+`,"dsseEnvelope":`+envelope), `has "dsseEnvelope", which does not belong there`},
		{"a bundle with neither", MediaTypeBundle, bundle(MediaTypeBundle, `"x":1`), `has no "dsseEnvelope"`},
		{"a bundle with protobuf's second spelling", MediaTypeBundle, bundle(MediaTypeBundle, `"dsse_envelope":`+envelope+`,"dsseEnvelope":`+envelope), `has "dsse_envelope"`},
		{"a bundle without material", MediaTypeBundle, strings.Replace(full, `{"publicKey":{"hint":"x"}}`, "null", 1), "verificationMaterial is null"},
		{"a message digest of another algorithm", MediaTypeBundle, bundle(MediaTypeBundle, strings.Replace(message(messageDigest), "SHA2_256", "SHA2_512", 1)), "not SHA2_256"},
		{"a short message digest", MediaTypeBundle, bundle(MediaTypeBundle, message("AAAA")), "not 32 bytes in base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Subjects(tt.mediaType, []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Subjects = %v, %v; want an error with %q", got, err, tt.want)
			}
			if got != nil {
				t.Errorf("subjects in spite of the error: %v", got)
			}
		})
	}
}

// FuzzSubjects: an answer is a sorted list of at least one well-formed digest,
// and the document does not bear an addition.
func FuzzSubjects(f *testing.F) {
	types := []string{MediaTypeSimpleSigning, MediaTypeDSSE, MediaTypeBundle}
	signed := dsse(statement(subject(digest)))
	f.Add(0, []byte(modern))
	f.Add(1, []byte(signed))
	f.Add(2, []byte(bundle(MediaTypeBundle, `"dsseEnvelope":`+signed)))
	f.Add(2, []byte(bundle(MediaTypeBundle, message(messageDigest))))
	f.Fuzz(func(t *testing.T, choice int, data []byte) {
		mediaType := types[uint(choice)%uint(len(types))]
		digests, err := Subjects(mediaType, data)
		if err != nil {
			if digests != nil {
				t.Fatalf("digests %v with an error", digests)
			}
			return
		}
		if len(digests) == 0 || !slices.IsSorted(digests) {
			t.Fatalf("digests %v", digests)
		}
		for _, digest := range digests {
			if err := checkDigest(digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Subjects(mediaType, append(slices.Clone(data), '0')); err == nil {
			t.Fatalf("trailing data after %q is accepted", data)
		}
	})
}
