package e2e_test

import (
	"encoding/base64"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// More than a run of all tests has time for: go test ./e2e -run Differential -args -images 2000 -seed 7
var (
	differentialImages = flag.Int("images", 150, "how many images TestDifferential makes")
	differentialSeed   = flag.Uint64("seed", 1, "where TestDifferential begins")
)

// specimen is an image with evidence made at random, and what is known of it by
// construction.
type specimen struct {
	*rand.Rand
	repository    string
	key, stranger lying.Key
	content       lying.Content

	tag, old, oci11 []lying.Layer
	bundles         []lying.Content
	attested        []lying.Layer
	pieces          []found
	asked           bool // for the annotation env=prod
}

// found is a piece of evidence, as it was meant.
type found struct {
	kind
	env string // the annotation that is signed; empty: none
}

// place is where evidence stands.
type place string

const (
	atTag      place = "at the tag"
	atOldTag   place = "at the tag of cosign 0.1"
	inReferrer place = "in a signature image with a subject"
	inBundle   place = "in a bundle"
	asEnvelope place = "in an envelope at the tag of attestations"
)

// kind is a kind of evidence.
type kind struct {
	name  string
	place place
	// right is a signature of this image by the key, in a form that SPEC section 5 takes.
	// Whatever name it claims: cosign's command does not compare it, nor does ours.
	right bool
	// rule is why cosign takes what is not right, or does not take what is.
	rule string
	// spoils says that cosign refuses whatever stands beside it.
	spoils bool
	put    func(s *specimen, env string)
}

// The rules of SPEC section 5 by which the two differ.
const (
	ruleAttestation = "an attestation is not a signature"
	ruleStrict      = "payloads are parsed strictly"
	ruleAnnotations = "what is asked for must be signed, in a bundle, too"
	ruleUnion       = "evidence is the union of all forms found, none masks another"
	ruleBeside      = "what cannot be read takes nothing from what stands beside it"
	ruleAttached    = "what is attached to a key's signature proves its time, and takes nothing from it"
	ruleMessage     = "a bundle over the manifest itself is a signature"
)

func (s *specimen) optional(env string) map[string]any {
	if env == "" {
		return nil
	}
	return map[string]any{"env": env}
}

// name is what a signature claims: nothing, the repository, or another one.
func (s *specimen) name() string {
	return []string{"", "registry.example/" + s.repository, "registry.example/acme/other"}[s.IntN(3)]
}

func (s *specimen) payload(env string) []byte {
	return lying.Payload(s.name(), s.content.Digest(), s.optional(env))
}

func (s *specimen) garbage(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(s.Uint32())
	}
	return data
}

func (s *specimen) layer(l lying.Layer) { s.tag = append(s.tag, l) }

// noted adds an annotation to the layer of a right signature.
func (s *specimen) noted(env, name, value string) {
	l := lying.Signature(s.key, s.payload(env))
	l.Annotations[name] = value
	s.layer(l)
}

// signed adds a layer whose payload is text with DIGEST in it, signed by the key.
func (s *specimen) signed(text string) {
	s.layer(lying.Signature(s.key, []byte(strings.ReplaceAll(text, "DIGEST", s.content.Digest().String()))))
}

func (s *specimen) bundle(key lying.Key, statement []byte, predicateType string, change func(fields map[string]any)) {
	fields := lying.BundleFields(lying.Bundle03, key, statement)
	if change != nil {
		change(fields)
	}
	s.bundles = append(s.bundles, lying.BundleArtifact(s.content.Descriptor(), lying.Bundle03, lying.Encode(fields), predicateType))
}

func (s *specimen) statement(env string) []byte {
	return lying.Statement(s.content.Digest(), lying.PredicateSign, s.optional(env))
}

var elsewhere = lying.Image("what nobody asks for")

// noBundle is the name of what says that it is a bundle.
const noBundle = "no bundle"

const plainPayload = `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"},"optional":null}`

var kinds = []kind{
	{name: "right", place: atTag, right: true, put: func(s *specimen, env string) { s.layer(lying.Signature(s.key, s.payload(env))) }},
	{name: "right, of cosign 0.1", place: atTag, right: true, put: func(s *specimen, env string) {
		s.layer(lying.Signature(s.key, lying.LegacyPayload(s.name(), s.content.Digest(), s.optional(env))))
	}},
	{name: "right, again", place: atTag, right: true, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		s.tag = append(s.tag, l, l)
	}},
	{name: "right, beside nonsense for a certificate", place: atTag, right: true, rule: ruleAttached, put: func(s *specimen, env string) {
		s.noted(env, "dev.sigstore.cosign/certificate", "none")
	}},
	{name: "right, beside nonsense for an entry", place: atTag, right: true, rule: ruleAttached, put: func(s *specimen, env string) {
		s.noted(env, "dev.sigstore.cosign/bundle", "{")
	}},
	{name: "right, beside nonsense for a timestamp", place: atTag, right: true, rule: ruleAttached, put: func(s *specimen, env string) {
		s.noted(env, "dev.sigstore.cosign/rfc3161timestamp", "{")
	}},
	{name: "a stranger's", place: atTag, put: func(s *specimen, env string) { s.layer(lying.Signature(s.stranger, s.payload(env))) }},
	{name: "of another image", place: atTag, put: func(s *specimen, env string) {
		s.layer(lying.Signature(s.key, lying.Payload("", elsewhere.Digest(), s.optional(env))))
	}},
	{name: "of garbage", place: atTag, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		l.Annotations[lying.SignatureAnnotation] = base64.StdEncoding.EncodeToString(s.garbage(70))
		s.layer(l)
	}},
	{name: "of another payload", place: atTag, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		l.Annotations[lying.SignatureAnnotation] = s.key.SignPayload([]byte("another"))
		s.layer(l)
	}},
	{name: "not base64", place: atTag, spoils: true, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		l.Annotations[lying.SignatureAnnotation] = "%"
		s.layer(l)
	}},
	{name: "without a signature", place: atTag, spoils: true, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		l.Annotations = nil
		s.layer(l)
	}},
	{name: "of another type", place: atTag, rule: ruleStrict, put: func(s *specimen, _ string) {
		s.signed(strings.Replace(plainPayload, "cosign container image", "atomic container", 1))
	}},
	{name: "of two minds", place: atTag, rule: ruleStrict, put: func(s *specimen, _ string) {
		s.signed(strings.Replace(plainPayload, `{"critical"`, `{"critical":{"image":{"docker-manifest-digest":"`+elsewhere.Digest().String()+`"}},"Critical"`, 1))
	}},
	{name: "with more than a payload has", place: atTag, rule: ruleStrict, put: func(s *specimen, _ string) {
		s.signed(strings.Replace(plainPayload, `{"critical"`, `{"more":1,"critical"`, 1))
	}},
	{name: "with data behind it", place: atTag, put: func(s *specimen, _ string) { s.signed(plainPayload + "{}") }},
	{name: "no JSON", place: atTag, put: func(s *specimen, _ string) { s.signed("DIGEST") }},
	{name: "in a layer of another type", place: atTag, rule: ruleStrict, put: func(s *specimen, env string) {
		l := lying.Signature(s.key, s.payload(env))
		l.MediaType = "application/octet-stream"
		s.layer(l)
	}},

	{name: "right", place: atOldTag, right: true, put: func(s *specimen, env string) {
		s.old = append(s.old, lying.Signature(s.key, s.payload(env)))
	}},
	{name: "right", place: inReferrer, right: true, put: func(s *specimen, env string) {
		s.oci11 = append(s.oci11, lying.Signature(s.key, s.payload(env)))
	}},

	{name: "right", place: inBundle, right: true, put: func(s *specimen, env string) { s.bundle(s.key, s.statement(env), lying.PredicateSign, nil) }},
	{name: "right, with another's hint", place: inBundle, right: true, put: func(s *specimen, env string) {
		s.bundle(s.key, s.statement(env), lying.PredicateSign, func(fields map[string]any) {
			fields["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": "c29tZWJvZHkgZWxzZQ=="}}
		})
	}},
	{name: "right, over the manifest", place: inBundle, right: true, rule: ruleMessage, put: func(s *specimen, _ string) {
		bundle := lying.Encode(lying.MessageFields(s.key, s.content.Body))
		s.bundles = append(s.bundles, lying.BundleArtifact(s.content.Descriptor(), lying.Bundle03, bundle, ""))
	}},
	{name: "a stranger's", place: inBundle, put: func(s *specimen, env string) {
		s.bundle(s.stranger, s.statement(env), lying.PredicateSign, nil)
	}},
	{name: "a stranger's, with the key's hint", place: inBundle, put: func(s *specimen, env string) {
		s.bundle(s.stranger, s.statement(env), lying.PredicateSign, func(fields map[string]any) {
			fields["verificationMaterial"] = lying.BundleFields(lying.Bundle03, s.key, nil)["verificationMaterial"]
		})
	}},
	{name: "of another image", place: inBundle, put: func(s *specimen, env string) {
		s.bundle(s.key, lying.Statement(elsewhere.Digest(), lying.PredicateSign, s.optional(env)), lying.PredicateSign, nil)
	}},
	{name: "of garbage", place: inBundle, put: func(s *specimen, env string) {
		s.bundle(s.key, s.statement(env), lying.PredicateSign, func(fields map[string]any) {
			fields["dsseEnvelope"].(map[string]any)["signatures"] = []any{map[string]any{"sig": s.garbage(70)}}
		})
	}},
	{name: "an attestation", place: inBundle, rule: ruleAttestation, put: func(s *specimen, env string) {
		s.bundle(s.key, lying.Statement(s.content.Digest(), lying.PredicateSLSA, s.optional(env)), lying.PredicateSLSA, nil)
	}},
	{name: "an attestation that is called a signature", place: inBundle, rule: ruleAttestation, put: func(s *specimen, env string) {
		s.bundle(s.key, lying.Statement(s.content.Digest(), lying.PredicateSLSA, s.optional(env)), lying.PredicateSign, nil)
	}},
	{name: "over other bytes", place: inBundle, put: func(s *specimen, _ string) {
		bundle := lying.Encode(lying.MessageFields(s.key, elsewhere.Body))
		s.bundles = append(s.bundles, lying.BundleArtifact(s.content.Descriptor(), lying.Bundle03, bundle, ""))
	}},
	{name: noBundle, place: inBundle, spoils: true, put: func(s *specimen, _ string) {
		s.bundles = append(s.bundles, lying.BundleArtifact(s.content.Descriptor(), lying.Bundle03, []byte("{}"), lying.PredicateSign))
	}},

	{name: "an attestation", place: asEnvelope, put: func(s *specimen, env string) {
		data := lying.Encode(lying.SignStatement(s.key, lying.Statement(s.content.Digest(), lying.PredicateSign, s.optional(env))))
		s.attested = append(s.attested, lying.Layer{MediaType: "application/vnd.dsse.envelope.v1+json", Data: data, Annotations: map[string]string{lying.SignatureAnnotation: ""}})
	}},
}

// newSpecimen makes the image of a number, with up to four pieces of evidence.
func newSpecimen(seed uint64, number int) *specimen {
	s := &specimen{Rand: rand.New(rand.NewPCG(seed, uint64(number))), key: lying.P256(), stranger: lying.P256()}
	s.repository = fmt.Sprintf("acme/image-%d", number)
	s.content = lying.Image(s.repository)
	s.asked = s.IntN(4) == 0
	places := [][]place{{atTag}, {inBundle}, {atTag, inBundle}, {atTag, inBundle, atOldTag, inReferrer, asEnvelope}}[s.IntN(4)]
	for range s.IntN(5) {
		k := kinds[s.IntN(len(kinds))]
		for again := s.IntN(2); again == 0 && !k.right; {
			k = kinds[s.IntN(len(kinds))]
		}
		if !slices.Contains(places, k.place) {
			continue
		}
		f := found{k, []string{"", "prod", "prod", "test"}[s.IntN(4)]}
		if k.name == "right, over the manifest" {
			f.env = "" // it can sign none
		}
		k.put(s, f.env)
		s.pieces = append(s.pieces, f)
	}
	return s
}

// push puts it into a registry.
func (s *specimen) push(r *lying.Registry) {
	digest := r.Push(s.repository, s.content, "v1")
	for tag, layers := range map[string][]lying.Layer{
		lying.SignatureTag(digest): s.tag, lying.LegacyTag(digest): s.old, lying.FallbackTag(digest) + ".att": s.attested,
	} {
		if len(layers) > 0 {
			r.Push(s.repository, lying.Signatures(layers...), tag)
		}
	}
	if len(s.oci11) > 0 {
		r.PushReferrer(s.repository, digest, lying.SignatureArtifact(s.content.Descriptor(), s.oci11...))
	}
	for _, bundle := range s.bundles {
		r.PushReferrer(s.repository, digest, bundle)
	}
}

// holds reports whether a signature as it is asked for is there.
func (s *specimen) holds(where ...place) bool {
	return slices.ContainsFunc(s.pieces, func(f found) bool {
		return f.right && (!s.asked || f.env == "prod") && (len(where) == 0 || slices.Contains(where, f.place))
	})
}

func (s *specimen) has(what func(found) bool) bool { return slices.ContainsFunc(s.pieces, what) }

// looked is where cosign looks: at bundles, and where there is none that it can read at the
// tag.
func (s *specimen) looked() place {
	if s.has(func(f found) bool { return f.place == inBundle && f.name != noBundle }) {
		return inBundle
	}
	return atTag
}

// explained names the rule by which cosign of a version says something else than what
// holds; it is empty when none does.
func (s *specimen) explained(major int, cosign bool) string {
	at := s.looked()
	matches := func(f found) bool { return f.place == at && (!s.asked || f.env == "prod") }
	if cosign { // it takes what is not right
		for _, f := range s.pieces {
			if !f.right && f.rule != "" && (matches(f) || at == inBundle && f.place == at && major == 2) {
				return f.rule
			}
		}
		if major == 2 && at == inBundle && s.asked && s.has(func(f found) bool { return f.place == at && f.right }) {
			return ruleAnnotations
		}
		return ""
	}
	switch {
	case !s.holds(at):
		return ruleUnion
	case s.has(func(f found) bool { return f.place == at && f.spoils }):
		return ruleBeside
	case s.has(func(f found) bool { return f.right && f.rule == "" && matches(f) }):
		return "" // it should have taken that
	}
	for _, f := range s.pieces {
		if f.right && matches(f) {
			return f.rule
		}
	}
	return ""
}

func (s *specimen) String() string {
	var all []string
	for _, f := range s.pieces {
		all = append(all, fmt.Sprintf("%s: %s (env %q)", f.place, f.name, f.env))
	}
	return fmt.Sprintf("%s, env=prod asked for: %v; %s", s.repository, s.asked, strings.Join(all, "; "))
}

// Whatever evidence an image has, we say what holds by construction; and where cosign says
// something else, a rule of ours is why: nothing passes here that cosign refuses but by the
// rule that one form hides no other, and then a right signature is there.
func TestDifferential(t *testing.T) {
	t.Parallel()
	cosigns := map[int]*real.Cosign{2: real.NewCosign(t, 2), 3: real.NewCosign(t, 3)}
	listing, tagging := lying.Start(t), lying.Start(t)
	tagging.WithoutReferrers()
	dir := t.TempDir()
	var mu sync.Mutex
	agreed, differed := map[bool]int{}, map[string]int{}
	t.Run("images", func(t *testing.T) {
		for number := range *differentialImages {
			t.Run(fmt.Sprint(number), func(t *testing.T) {
				t.Parallel()
				s := newSpecimen(*differentialSeed, number)
				registry, major := listing, 3
				if s.IntN(3) == 0 {
					registry = tagging
				}
				if s.IntN(4) == 0 {
					major = 2
				}
				s.push(registry)
				key := s.key.WritePublic(t, dir, fmt.Sprint(number, ".pub"))
				image := registry.Host + "/" + s.repository + "@" + s.content.Digest().String()
				var args []string
				if s.asked {
					args = []string{"-a", "env=prod"}
				}
				ours := vidimus(t, "", nil, append(append([]string{"verify", "--key", key}, args...), image)...)
				theirs := cosigns[major].Verify(t, key, image, args...)
				holds, cosign := s.holds(), theirs.Code == 0
				switch {
				case ours.Code > 1:
					t.Errorf("%s\nwe could not tell: %s", s, ours.Output())
				case (ours.Code == 0) != holds:
					t.Errorf("%s\nit holds: %v, and we say\n%s", s, holds, ours.Output())
				}
				mu.Lock()
				defer mu.Unlock()
				if holds == cosign {
					agreed[holds]++
					return
				}
				rule := s.explained(major, cosign)
				if rule == "" {
					t.Errorf("%s\nit holds: %v, and cosign %d says, for no reason that is known:\n%s", s, holds, major, theirs.Output())
				}
				differed[rule]++
			})
		}
	})
	t.Logf("agreed %v, differed:", agreed)
	for _, rule := range slices.Sorted(maps.Keys(differed)) {
		t.Logf("%4d %s", differed[rule], rule)
	}
	if agreed[true] < *differentialImages/8 || agreed[false] < *differentialImages/8 || differed[ruleUnion] == 0 {
		t.Error("it does not look at much")
	}
}
