package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/signer/kms"
)

// rulesFields are the keys that the configuration and an included file share.
func rulesFields[T any](of func(*T) *rules) []field[T] {
	return []field[T]{
		key("authorities", "{}", entries(authorityShape(), checkAuthorityName),
			func(c *T) *[]named[authorityConfig] { return &of(c).Authorities }, "who may vouch, by name"),
		key("policies", "[]", listOf(policyShape()), func(c *T) *[]policyConfig { return &of(c).Policies },
			"an ordered list; the first whose match fits decides, and none fits is denied"),
		key("exceptions", "[]", listOf(exceptionShape()), func(c *T) *[]exceptionConfig { return &of(c).Exceptions },
			"what is let through without evidence, for a while and for a reason"),
		key("revoked", "[]", listOf(placed(digestOf())), func(c *T) *[]located[v1.Hash] { return &of(c).Revoked },
			"digests that are never served, whatever vouches for them"),
	}
}

// includedShape is an included file.
func includedShape() shape[rules] {
	inner := object(rulesFields(func(r *rules) *rules { return r }))
	main := make(map[string]bool)
	for name := range configShape().schema["properties"].(schema) {
		main[name] = true
	}
	return shape[rules]{
		schema: inner.schema,
		decode: func(d *decoder, n node) (rules, bool) {
			kept := n
			kept.pairs = nil
			for _, p := range n.pairs {
				if _, here := inner.schema["properties"].(schema)[p.key]; !here && main[p.key] {
					d.fail(p.at, "does not belong into an included file", "move it to the main file")
					continue
				}
				kept.pairs = append(kept.pairs, p)
			}
			return inner.decode(d, kept)
		},
	}
}

func authorityShape() shape[authorityConfig] {
	return object([]field[authorityConfig]{
		key("keys", "", some(keyShape(), "name a file with a public key"), func(c *authorityConfig) *[]keyConfig { return &c.Keys },
			"PEM files of public keys, or KMS URIs, any one of which may vouch; {key: FILE, from: DAY, until: DAY} for one that counts for a while"),
		key("keyless", "", keylessShape(), func(c *authorityConfig) *[]identityConfig { return &c.Keyless },
			"who may sign with a certificate, by issuer and subject; or a list of them"),
		key("github", "", githubShape(), func(c *authorityConfig) *[]identityConfig { return &c.GitHub },
			"a workflow of GitHub Actions that may sign with certificates; or a list of them"),
		key("gitlab", "", gitlabShape(), func(c *authorityConfig) *[]identityConfig { return &c.GitLab },
			"a pipeline of GitLab that may sign with certificates; or a list of them"),
		key("trustedRoot", `""`, rootShape(), func(c *authorityConfig) *rootConfig { return &c.TrustedRoot },
			"what proves its certificates and times, when it is not what proves all others'"),
		key("privatePKI", "false", boolean(), func(c *authorityConfig) *bool { return &c.PrivatePKI },
			"certificates count without log and timestamp when their whole chain is valid now; trustedRoot may be PEM certificates then"),
		key("transparencyLog", "true", boolean(), func(c *authorityConfig) *bool { return &c.TransparencyLog },
			"certificates must be in a log where the trust root has any; without that a timestamp suffices"),
		key("signer", "", signerShape(), func(c *authorityConfig) **signerConfig { return &c.Signer },
			"the private key with which pushes are signed"),
	}, "kms")
}

// keyFile is the path of a public key. What cosign would look for elsewhere is
// refused as such, not looked for on disk.
func keyFile() shape[file] {
	s := existing()
	return shape[file]{
		schema: s.schema,
		decode: func(d *decoder, n node) (file, bool) {
			if what, fix := checkKeyFile(n.value); what != "" && n.kind == scalar {
				d.fail(n, what, fix)
				return file{}, false
			}
			if n.kind == scalar && kms.IsReference(n.value) {
				return file{n.pos, n.value}, true
			}
			return s.decode(d, n)
		},
	}
}

var keyScheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://|^(pkcs11):`)

// checkKeyFile says what is wrong with the name of a key that is no file's.
func checkKeyFile(name string) (what, fix string) {
	const instead = "write the public key into a file and name that"
	match := keyScheme.FindStringSubmatch(name)
	if match == nil {
		return "", ""
	}
	if kms.IsReference(name) {
		if err := kms.Check(name); err != nil {
			return err.Error(), "write it as cosign does"
		}
		return "", ""
	}
	if scheme := match[1] + match[2]; !strings.EqualFold(scheme, "env") {
		return "keys of " + scheme + " are not supported", instead + ", or the key of awskms, gcpkms, azurekms or hashivault"
	}
	return "keys of the environment are not supported in the configuration", instead
}

var authorityPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func checkAuthorityName(name string) (what, fix string) {
	if !authorityPattern.MatchString(name) {
		return "is not a name for an authority", "use letters, digits, dots, dashes and underscores"
	}
	return "", ""
}

func enforcementShape() shape[policy.Enforcement] {
	return oneOf([]choice[policy.Enforcement]{
		{"observe", policy.Observe}, {"warn", policy.Warn}, {"enforce", policy.Enforce},
	})
}

func enforcementOf(c *Config) *policy.Enforcement { return &c.Enforcement }

func policyShape() shape[policyConfig] {
	return object([]field[policyConfig]{
		required(key("match", "", matchShape(), func(c *policyConfig) *[]string { return &c.Match },
			"which repositories: a pattern or a list of them; * stays in one component, ** crosses, ! excludes")),
		key("name", `""`, plainText(), func(c *policyConfig) *string { return &c.Name }, "its name in answers and records; the first match without one"),
		key("require", "", requireShape(), func(c *policyConfig) **requireConfig { return &c.Require },
			"which authorities must have signed: NAME, {any: [...]}, {all: [...]} or {atLeast: 2, of: [...]}"),
		key("allow", "", oneOf([]choice[bool]{{"unverified", true}}), func(c *policyConfig) *bool { return &c.Allow }, "unverified: serve it as it is"),
		key("deny", "", nonEmpty("say why; people will read it"), func(c *policyConfig) *string { return &c.Deny }, "never serve it, and say this"),
		key("signedAs", "ifPresent", signedAsShape(), func(c *policyConfig) *signedAsConfig { return &c.SignedAs },
			"how the name that a signature claims is compared: ignore, ifPresent, repository or exact; or, for copies that keep the signatures of their originals, {prefix: WHERE THEY ARE, signedPrefix: WHERE THEY WERE SIGNED}"),
		key("annotations", "{}", annotationsShape(), func(c *policyConfig) *map[string]string { return &c.Annotations },
			"what must be in the signed payload"),
		key("attestations", "[]", listOf(attestationShape()), func(c *policyConfig) *[]attestationConfig { return &c.Attestations },
			"statements about the image that must be there, each signed by what its own require says; with require or in place of it"),
		key("rego", `""`, filePath(), func(c *policyConfig) *file { return &c.Rego },
			"file with rules in Rego that may deny what all else allows; it sees what the verified evidence says"),
		key("maxAge", "0s", duration(), func(c *policyConfig) *time.Duration { return &c.MaxAge },
			"each signature that is needed must be proven, by a log or a timestamp, to be no older than this; any age without it"),
		key("minAge", "0s", duration(), func(c *policyConfig) *time.Duration { return &c.MinAge },
			"each signature that is needed must be proven to be at least this old, so that there is time to notice a stolen key"),
		key("enforcement", "", optional(enforcementShape()), func(c *policyConfig) **policy.Enforcement { return &c.Enforcement },
			"what a denial does, never more than the ceiling says"),
		key("message", `""`, plainText(), func(c *policyConfig) *string { return &c.Message }, "added to a denial"),
		key("push", "", pushShape(), func(c *policyConfig) **pushConfig { return &c.Push },
			"unsigned, or {sign: AUTHORITY}: what becomes of what is pushed; without it nothing can be pushed"),
	}, "immutableTags")
}

func matchShape() shape[[]string] {
	const fix = "write a pattern like ghcr.io/acme/**"
	return oneOrSome(nonEmpty(fix), fix)
}

// requireShape understands the four spellings.
func requireShape() shape[*requireConfig] {
	const name = "name an authority"
	names := some(placed(nonEmpty(name)), name)
	single := placed(nonEmpty(name))
	type spelled struct {
		pos
		Any, All, Of []located[string]
		AtLeast      int
	}
	form := object([]field[spelled]{
		key("any", "", names, func(s *spelled) *[]located[string] { return &s.Any }, "one of them"),
		key("all", "", names, func(s *spelled) *[]located[string] { return &s.All }, "each of them"),
		key("atLeast", "", integer(1), func(s *spelled) *int { return &s.AtLeast }, "this many of those in of"),
		key("of", "", names, func(s *spelled) *[]located[string] { return &s.Of }, "for atLeast"),
	})
	return shape[*requireConfig]{
		schema: schema{"anyOf": []any{single.schema, form.schema}},
		decode: func(d *decoder, n node) (*requireConfig, bool) {
			out := &requireConfig{pos: n.pos}
			switch n.kind {
			case sequence:
				d.fail(n, "is a bare list, which could mean any or all of them", "write {any: [...]} or {all: [...]}")
				return out, true
			case scalar:
				v, ok := single.decode(d, n)
				if ok {
					out.AtLeast, out.Of = 1, []located[string]{v}
				}
				return out, true
			}
			before := len(d.faults)
			s, _ := form.decode(d, n)
			switch {
			case len(d.faults) > before: // said already
			case s.Any != nil && s.All == nil && s.Of == nil && s.AtLeast == 0:
				out.AtLeast, out.Of = 1, s.Any
			case s.All != nil && s.Any == nil && s.Of == nil && s.AtLeast == 0:
				out.AtLeast, out.Of = len(s.All), s.All
			case s.Of != nil && s.AtLeast > 0 && s.Any == nil && s.All == nil:
				out.AtLeast, out.Of = s.AtLeast, s.Of
			default:
				d.fail(n, "is none of the four spellings", "write NAME, {any: [...]}, {all: [...]} or {atLeast: 2, of: [...]}")
			}
			return out, true
		},
	}
}

func signedAsWords() []choice[policy.SignedAs] {
	return []choice[policy.SignedAs]{
		{"ignore", policy.Ignore}, {"ifPresent", policy.IfPresent}, {"repository", policy.Repository}, {"exact", policy.Exact},
	}
}

func signedAsShape() shape[signedAsConfig] {
	words := oneOf(signedAsWords())
	const prefix = "write the first components of repositories, like ghcr.io/acme"
	form := object([]field[policy.Remap]{
		required(key("prefix", "", nonEmpty(prefix), func(r *policy.Remap) *string { return &r.Prefix }, "where the copies are")),
		required(key("signedPrefix", "", nonEmpty(prefix), func(r *policy.Remap) *string { return &r.SignedPrefix }, "where they were signed")),
	})
	return shape[signedAsConfig]{
		schema: schema{"anyOf": []any{words.schema, form.schema}},
		decode: func(d *decoder, n node) (out signedAsConfig, ok bool) {
			if n.kind == mapping {
				out.As = policy.Remapped
				out.Remap, ok = form.decode(d, n)
				return out, ok
			}
			out.As, ok = words.decode(d, n)
			return out, ok
		},
	}
}

func annotationsShape() shape[map[string]string] {
	all := entries(plainText(), func(name string) (what, fix string) {
		if name == "" {
			return "is an empty name", "name the annotation"
		}
		return "", ""
	})
	return shape[map[string]string]{
		schema: all.schema,
		decode: func(d *decoder, n node) (map[string]string, bool) {
			list, ok := all.decode(d, n)
			out := make(map[string]string, len(list))
			for _, a := range list {
				out[a.Name] = a.Value
			}
			return out, ok
		},
	}
}

func exceptionShape() shape[exceptionConfig] {
	return object([]field[exceptionConfig]{
		required(key("match", "", matchShape(), func(c *exceptionConfig) *[]string { return &c.Match }, "which repositories")),
		required(key("digests", "", digests(), func(c *exceptionConfig) *[]v1.Hash { return &c.Digests }, "which images, by digest")),
		required(key("until", "", moment(), func(c *exceptionConfig) *time.Time { return &c.Until }, "when it ends: a day or a moment, at most 30 days away")),
		required(key("reason", "", nonEmpty("say why; people will read it"), func(c *exceptionConfig) *string { return &c.Reason }, "why, for those who read the record")),
	})
}

// includeShape is a path, or a mapping of one and a scope.
func includeShape() shape[includeConfig] {
	word := existing()
	type spelled struct {
		pos
		Files file
		Scope string
	}
	form := object([]field[spelled]{
		required(key("files", "", word, func(s *spelled) *file { return &s.Files }, "the files; * stands for any part of a name")),
		required(key("scope", "", nonEmpty("write a pattern like ghcr.io/team-a/**"), func(s *spelled) *string { return &s.Scope },
			"what the policies of these files may be about")),
	})
	return shape[includeConfig]{
		schema: schema{"anyOf": []any{word.schema, form.schema}},
		decode: func(d *decoder, n node) (includeConfig, bool) {
			var s spelled
			ok := true
			if n.kind == mapping {
				s, ok = form.decode(d, n)
			} else {
				s.Files, ok = word.decode(d, n)
			}
			if _, err := filepath.Match(s.Files.Name, ""); err != nil {
				d.fail(n, quote(s.Files.Name)+" is not a pattern of files", "mend its brackets")
				return includeConfig{}, false
			}
			return includeConfig{n.pos, s.Files.Name, s.Scope}, ok
		},
	}
}
