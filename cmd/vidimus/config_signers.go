package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"vidimus/verifier"
)

// keyConfig is the file of a public key, and when the key counts.
type keyConfig struct {
	file
	From, Until time.Time // zero: no such end
}

// identityConfig is an identity in whichever of its forms, as patterns.
type identityConfig struct {
	pos
	Issuer, Subject string
	Source          string // the repository that is signed for; "" is not looked at
}

// rootConfig is a trust root: a file, or the one of Sigstore's public instance. The
// zero rootConfig is none.
type rootConfig struct {
	file
	Public bool
}

func (r rootConfig) none() bool { return r.Name == "" && !r.Public }

// sigstoreWord stands for the public instance.
const sigstoreWord = "sigstore"

func rootShape() shape[rootConfig] {
	s := filePath()
	return shape[rootConfig]{
		schema: s.schema,
		decode: func(d *decoder, n node) (rootConfig, bool) {
			if n.kind == scalar && n.value == sigstoreWord {
				return rootConfig{file: file{pos: n.pos}, Public: true}, true
			}
			f, ok := s.decode(d, n)
			return rootConfig{file: f}, ok
		},
	}
}

// keyShape is the path of a public key, or a mapping of one and when it counts.
func keyShape() shape[keyConfig] {
	word := keyFile()
	type spelled struct {
		Key         file
		From, Until time.Time
	}
	form := object([]field[spelled]{
		required(key("key", "", word, func(s *spelled) *file { return &s.Key }, "the PEM file of a public key")),
		key("from", "", moment(), func(s *spelled) *time.Time { return &s.From }, "a signature made before this day or moment does not count"),
		key("until", "", moment(), func(s *spelled) *time.Time { return &s.Until },
			"a signature made from when this day begins (UTC) or from this moment on does not count; one that nothing proves to be older is as if made now"),
	})
	return shape[keyConfig]{
		schema: schema{"anyOf": []any{word.schema, form.schema}},
		decode: func(d *decoder, n node) (keyConfig, bool) {
			if n.kind == mapping {
				s, ok := form.decode(d, n)
				return keyConfig{s.Key, s.From, s.Until}, ok && s.Key.Name != ""
			}
			f, ok := word.decode(d, n)
			return keyConfig{file: f}, ok
		},
	}
}

// pinned is one of the forms of an identity.
func pinned[T any](fields []field[T], make func(T) identityConfig) shape[[]identityConfig] {
	inner := oneOrSome(object(fields), "write who may sign")
	return shape[[]identityConfig]{
		schema: inner.schema,
		decode: func(d *decoder, n node) ([]identityConfig, bool) {
			all, ok := inner.decode(d, n)
			var out []identityConfig
			for i, one := range all {
				id := make(one)
				id.pos = n.pos
				if n.kind == sequence {
					id.pos = n.items[i].pos
				}
				out = append(out, id)
			}
			return out, ok
		},
	}
}

const (
	identityFix = "write it as it stands in certificates; * stays between slashes, ** crosses them, {repo} is what the policy's match captures"
	refDoc      = "the ref in full, like refs/tags/v*; any without one"
)

func keylessShape() shape[[]identityConfig] {
	return pinned([]field[identityConfig]{
		key("issuer", "", nonEmpty(identityFix), func(c *identityConfig) *string { return &c.Issuer }, "who vouches for the subject: the URL of an OIDC issuer"),
		required(key("subject", "", nonEmpty(identityFix), func(c *identityConfig) *string { return &c.Subject }, "who signs: the certificate's subject alternative name")),
	}, func(c identityConfig) identityConfig { return c })
}

type workflowConfig struct{ Repository, Workflow, Ref, URL string }

const workflowChars = `A-Za-z0-9._*{}\-`

var (
	repositoryPattern = regexp.MustCompile(`^[` + workflowChars + `]+(/[` + workflowChars + `]+)+$`)
	workflowPattern   = regexp.MustCompile(`^[` + workflowChars + `/]+$`)
	refPattern        = regexp.MustCompile(`^refs/[^ @]+$`)
)

func matching(pattern *regexp.Regexp, what, fix string) shape[string] {
	return checked(fix, func(s string) error {
		if !pattern.MatchString(s) {
			return fmt.Errorf("%s is no %s", quote(s), what)
		}
		return nil
	})
}

// workflowFile is the file of a workflow, with stars that stay between slashes: two
// would cross the @ behind it, and a branch may be called x@refs/heads/main.
func workflowFile() shape[string] {
	const fix = "write the name of its file; * stays between slashes"
	return checked(fix, func(s string) error {
		switch {
		case strings.Contains(s, "**"):
			return fmt.Errorf("%s crosses the @ before the ref, and takes branches that are called like x@refs/heads/main", quote(s))
		case !workflowPattern.MatchString(s):
			return fmt.Errorf("%s is no workflow", quote(s))
		}
		return nil
	})
}

func workflowFields() []field[workflowConfig] {
	return []field[workflowConfig]{
		required(key("repository", "", matching(repositoryPattern, "repository", "write owner/repository, without a host"),
			func(c *workflowConfig) *string { return &c.Repository }, "the repository whose workflow signs, like acme/web or acme/{repo}")),
		key("workflow", "", workflowFile(), func(c *workflowConfig) *string { return &c.Workflow },
			"the file of the workflow"),
		key("ref", "", matching(refPattern, "ref", "write it in full: refs/tags/v* or refs/heads/main"), func(c *workflowConfig) *string { return &c.Ref }, refDoc),
	}
}

// githubShape is a workflow of GitHub Actions. Its certificates name the workflow, and
// in an extension the repository that it ran for, which must be the same one.
func githubShape() shape[[]identityConfig] {
	return pinned(workflowFields(), func(c workflowConfig) identityConfig {
		repository := "https://github.com/" + c.Repository
		return identityConfig{
			Issuer:  "https://token.actions.githubusercontent.com",
			Subject: repository + "/.github/workflows/" + cmp.Or(c.Workflow, "*") + "@" + cmp.Or(c.Ref, "**"),
			Source:  repository,
		}
	})
}

// gitlabShape is a pipeline of GitLab.
func gitlabShape() shape[[]identityConfig] {
	const issuer = "https://gitlab.com"
	fields := append(workflowFields(), key("url", issuer, checked("write the URL of the instance, like https://gitlab.example", func(s string) error {
		if u, err := url.Parse(s); s == "" || err != nil || u.Host == "" {
			return errors.New("is no URL")
		}
		return checkURL(s)
	}), func(c *workflowConfig) *string { return &c.URL }, "the instance"))
	return pinned(fields, func(c workflowConfig) identityConfig {
		instance := strings.TrimSuffix(c.URL, "/")
		repository := instance + "/" + c.Repository
		return identityConfig{Issuer: instance, Subject: repository + "//" + cmp.Or(c.Workflow, ".gitlab-ci.yml") + "@" + cmp.Or(c.Ref, "**"), Source: repository}
	})
}

// open reports whether an identity is any workflow of any ref: whoever may push a
// branch may sign.
func (c identityConfig) open() bool {
	workflow, ref, ok := strings.Cut(c.Subject, "@")
	if !ok {
		return strings.HasPrefix(c.Subject, "https://") && strings.HasSuffix(c.Subject, "**")
	}
	at := max(strings.LastIndex(workflow, "/workflows/"), strings.LastIndex(workflow, "//"), strings.LastIndex(workflow, "/"))
	isAny := func(text string) bool { return strings.Trim(text, "*") == "" }
	return strings.HasPrefix(c.Subject, "https://") && isAny(ref) && isAny(workflow[strings.LastIndex(workflow[:at+1], "/")+1:])
}

// crosses reports whether two stars reach over the @ before the ref of a workflow: who
// may push a branch of the repository may call it x@refs/heads/main. A ref has no
// component that begins with a dot, and no empty one.
func (c identityConfig) crosses() bool {
	at := strings.LastIndex(c.Subject, "@refs/")
	if at < 0 || !strings.HasPrefix(c.Subject, "https://") {
		return false
	}
	stars := strings.LastIndex(c.Subject[:at], "**")
	if stars < 0 {
		return false
	}
	between := c.Subject[stars:at]
	return !strings.Contains(between, "/.") && !strings.Contains(between, "//")
}

// identities are those of the forms that an authority has.
func (c authorityConfig) identities() []identityConfig {
	return append(append(append([]identityConfig(nil), c.Keyless...), c.GitHub...), c.GitLab...)
}

// root is the trust root of an authority: its own, or that of all.
func (c *Config) root(a authorityConfig) rootConfig {
	if a.TrustedRoot.none() {
		return c.TrustedRoot
	}
	return a.TrustedRoot
}

// needsRoot reports whether an authority depends on its trust root: because of
// identities, of a key's window, or of a policy that asks for an age.
func (c *Config) needsRoot(a named[authorityConfig]) bool {
	if len(a.Value.identities()) > 0 {
		return true
	}
	for _, k := range a.Value.Keys {
		if !k.From.IsZero() || !k.Until.IsZero() {
			return true
		}
	}
	for _, p := range c.Policies {
		if p.MaxAge == 0 && p.MinAge == 0 || p.Require == nil {
			continue
		}
		for _, name := range p.Require.Of {
			if name.Value == a.Name {
				return true
			}
		}
	}
	return false
}

// readRoot returns a trust root, or what is wrong with it. private says that it may be
// the certificates of authorities alone.
func readRoot(r *reader, c rootConfig, private bool) (root *verifier.Root, what string) {
	data, name := r.publicRoot(), "the trust root of Sigstore"
	var err error
	if !c.Public {
		name = c.Name
		if data, err = r.read(c.Name); err != nil {
			return nil, plainError(err)
		}
	}
	pem := bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN"))
	switch {
	case pem && !private:
		return nil, name + " holds certificates, which are a trust root for privatePKI: true alone"
	case pem:
		root, err = verifier.ParseCAs(data)
	default:
		root, err = verifier.ParseRoot(data)
	}
	if err != nil {
		return nil, name + ": " + err.Error()
	}
	return root, ""
}
