package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"net"
	"slices"

	"vidimus/policy"
	"vidimus/signer"
	"vidimus/signer/kms"
	"vidimus/verifier"
)

// signerConfig is the private key of an authority, with which pushes are signed.
type signerConfig struct {
	pos
	Key          file
	PasswordFile file
	PasswordEnv  string
}

// pushConfig is what becomes of what is pushed.
type pushConfig struct {
	pos
	Unsigned    bool
	Sign        located[string]
	Annotations map[string]string
	Recursive   bool
	Formats     []string
	Hook        bool
	Delete      bool
}

// The formats of a signature.
const (
	formatTag    = "tag"
	formatBundle = "bundle"
)

func signerShape() shape[*signerConfig] {
	return optional(object([]field[signerConfig]{
		required(key("key", "", keyFile(), func(c *signerConfig) *file { return &c.Key }, "file with the private key, as vidimus generate-key-pair and cosign write it, or a key in a KMS")),
		key("passwordFile", `""`, filePath(), func(c *signerConfig) *file { return &c.PasswordFile }, "file with the key's password"),
		key("passwordEnv", `""`, checked("write the name of an environment variable, not the password", checkVariable),
			func(c *signerConfig) *string { return &c.PasswordEnv }, "environment variable with the key's password"),
	}))
}

// pushShape is the word unsigned, or a mapping.
func pushShape() shape[*pushConfig] {
	word := oneOf([]choice[bool]{{"unsigned", true}})
	form := object([]field[pushConfig]{
		key("sign", `""`, placed(plainText()), func(c *pushConfig) *located[string] { return &c.Sign },
			"the authority whose signer signs what is pushed, before its tag is there"),
		key("unsigned", "false", boolean(), func(c *pushConfig) *bool { return &c.Unsigned }, "store what is pushed as it comes; instead of sign"),
		key("annotations", "{}", annotationsShape(), func(c *pushConfig) *map[string]string { return &c.Annotations },
			"what is signed along, besides who pushed and when"),
		key("recursive", "true", boolean(), func(c *pushConfig) *bool { return &c.Recursive }, "sign what an index lists, too"),
		key("formats", "[tag, bundle]", some(oneOf([]choice[string]{{formatTag, formatTag}, {formatBundle, formatBundle}}), "write [tag, bundle]"),
			func(c *pushConfig) *[]string { return &c.Formats }, "how the signature is written: at a tag, as a sigstore bundle, or both"),
		key("hook", "false", boolean(), func(c *pushConfig) *bool { return &c.Hook }, "sign what the upstream tells of that was pushed to it around this proxy, too; see hooks"),
		key("delete", "false", boolean(), func(c *pushConfig) *bool { return &c.Delete }, "let tags and manifests be deleted"),
	})
	return shape[*pushConfig]{
		schema: schema{"anyOf": []any{word.schema, form.schema}},
		decode: func(d *decoder, n node) (*pushConfig, bool) {
			if n.kind != mapping {
				unsigned, ok := word.decode(d, n)
				return &pushConfig{pos: n.pos, Unsigned: unsigned}, ok
			}
			before := len(d.faults)
			c, _ := form.decode(d, n)
			if len(d.faults) == before && c.Unsigned == (c.Sign.Value != "") {
				d.fail(n, "says neither or both of sign and unsigned", "write {sign: AUTHORITY}, or unsigned")
			}
			return &c, true
		},
	}
}

// pushRule is what the policy package carries of c.
func (c *pushConfig) rule() *policy.Push {
	if c == nil {
		return nil
	}
	p := &policy.Push{Delete: c.Delete, Hook: c.Hook}
	if !c.Unsigned {
		p.Sign, p.Annotations, p.Recursive, p.Formats = c.Sign.Value, c.Annotations, c.Recursive, c.Formats
	}
	return p
}

// signingKey is the private key of an authority.
type signingKey struct {
	crypto.Signer
	id verifier.Key // its public half
}

// signers opens the private keys. What a key signs must count for its authority, or
// what is pushed could not be pulled.
func (j *judgement) signers() {
	j.out.Signers = make(map[string]signingKey)
	for i, a := range j.config.Authorities {
		if a.Value.Signer == nil || i >= len(j.out.Policy.Authorities) || j.out.Policy.Authorities[i].Name != a.Name {
			continue // reported already
		}
		ids := j.out.Policy.Authorities[i].Keys
		key, why, ok := j.signerHere(a.Value.Signer)
		if why != "" {
			// Whichever of them it is, it vouches for no more than it will when it is known.
			for _, id := range ids {
				j.out.Policy.SigningKeys = append(j.out.Policy.SigningKeys, id.ID())
			}
			j.out.lacks(signerOf(a.Name), why)
			if len(ids) > 1 {
				j.out.unsure = append(j.out.unsure, fmt.Sprintf("the key of authority %s that signs pushes is not known here (%s): "+
					"each of its keys is taken for it, and counts only for the repository that a signature names", a.Name, why))
			}
		}
		if !ok {
			continue
		}
		if !slices.ContainsFunc(ids, func(k verifier.Key) bool { return k.ID() == key.id.ID() }) && j.out.Policy.Authorities[i].Suspended == "" {
			j.fail(a.Value.Signer, "is the key of none of the authority's keys, so that nothing it signs would count", "add its public key to keys: vidimus public-key --key "+a.Value.Signer.Key.Name)
			continue
		}
		j.out.Signers[a.Name] = key
		j.out.Policy.SigningKeys = append(j.out.Policy.SigningKeys, key.id.ID())
	}
}

// signerHere is signer; but who only decides may lack the key.
func (j *judgement) signerHere(c *signerConfig) (opened signingKey, absent string, ok bool) {
	if !j.decides {
		return j.signer(c)
	}
	apart := *j
	apart.faults = nil
	opened, absent, ok = apart.signer(c)
	if len(apart.faults) > 0 {
		absent = apart.faults[0].What
	}
	return opened, absent, ok
}

// signer opens a private key. absent is why a KMS has not been heard of it.
func (j *judgement) signer(c *signerConfig) (opened signingKey, absent string, ok bool) {
	if c.Key.Name == "" { // which was reported when it was decoded
		j.keyPassword(c)
		return signingKey{}, "", false
	}
	var key crypto.Signer
	if kms.IsReference(c.Key.Name) {
		if c.PasswordFile.Name != "" || c.PasswordEnv != "" {
			j.fail(c, "has a password, and a key in a KMS, which needs none", "remove passwordFile and passwordEnv")
			return signingKey{}, "", false
		}
		var err error
		if key, err = j.reader.kmsSigner(c.Key.Name); err != nil {
			return signingKey{}, err.Error(), false
		}
	} else if key, ok = j.signerFile(c); !ok {
		return signingKey{}, "", false
	}
	id, err := verifier.NewKey(key.Public())
	if err != nil {
		j.fail(c.Key, c.Key.Name+": "+err.Error(), "make another key")
		return signingKey{}, "", false
	}
	return signingKey{key, id}, "", true
}

func (j *judgement) signerFile(c *signerConfig) (crypto.Signer, bool) {
	password, ok := j.keyPassword(c)
	data, also := j.content(c.Key)
	if !ok || !also {
		return nil, false
	}
	key, err := j.reader.privates.parse(data, password)
	switch {
	case errors.Is(err, signer.ErrPassword):
		j.fail(c.Key, "the password does not open "+c.Key.Name, "mend passwordFile or passwordEnv")
	case err != nil:
		j.fail(c.Key, c.Key.Name+": "+err.Error(), "name a key file of vidimus generate-key-pair or cosign")
	}
	return key, err == nil
}

// keyPassword returns the password of a private key, which may be empty.
func (j *judgement) keyPassword(c *signerConfig) ([]byte, bool) {
	switch {
	case c.PasswordFile.Name != "" && c.PasswordEnv != "":
		j.fail(c, "has passwordFile and passwordEnv", "keep one of the two")
		return nil, false
	case c.PasswordEnv != "":
		password, set := j.reader.variable(c.PasswordEnv)
		if !set {
			at := c.pos
			at.Path = joinKey(at.Path, "passwordEnv")
			j.fail(at, "the environment has no "+c.PasswordEnv, "set it where this program is started")
		}
		return []byte(password), set
	case c.PasswordFile.Name != "":
		data, ok := j.content(c.PasswordFile)
		return bytes.TrimRight(data, "\r\n"), ok
	}
	return nil, true
}

// pushes judges the push rules: who signs must have a key, and where nobody has to
// log in nobody else may make it sign.
func (j *judgement) pushes() {
	hasSigner := make(map[string]bool)
	for _, a := range j.config.Authorities {
		hasSigner[a.Name] = a.Value.Signer != nil
	}
	host, _, err := net.SplitHostPort(j.config.HTTP.Addr.Value)
	named := j.config.HTTP.ExternalURL != "" && j.config.everybodyPushes()
	open := err == nil && (named || !j.config.knowsCallers() && !isLoopback(host))
	fix := "configure auth; or listen on loopback, without http.externalURL"
	if j.config.knowsCallers() {
		fix = "let anonymous not push, in auth.access; or remove http.externalURL"
	}
	for _, p := range j.config.Policies {
		if p.Push == nil || p.Push.Unsigned {
			continue
		}
		for i, format := range p.Push.Formats {
			if slices.Contains(p.Push.Formats[:i], format) {
				j.fail(p.Push, "formats has "+format+" twice", "remove one of the two")
			}
		}
		sign := p.Push.Sign
		if known, ok := hasSigner[sign.Value]; !ok && sign.Value != "" {
			j.authorityExists(sign)
		} else if !known && sign.Value != "" {
			j.fail(sign, "authority "+quote(sign.Value)+" has no signer", "add to it: signer: {key: FILE, passwordFile: FILE}")
		}
		if open && sign.Value != "" {
			j.fail(p.Push, "signs what everybody pushes who reaches "+j.config.HTTP.Addr.Value+", for nobody has to log in", fix)
		}
	}
}
