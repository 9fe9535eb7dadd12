package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// hooksConfig is where the token stands that registries show.
type hooksConfig struct {
	pos
	TokenFile file
	TokenEnv  string
}

// What is shorter could be guessed.
const (
	minToken     = 16 // bytes
	minUploadKey = 32
)

func hooksShape() shape[hooksConfig] {
	return object([]field[hooksConfig]{
		key("tokenFile", `""`, filePath(), func(c *hooksConfig) *file { return &c.TokenFile },
			"file with the token that registries show at POST /hooks/push; nothing is taken there without one"),
		key("tokenEnv", `""`, checked("write the name of an environment variable, not the token", checkVariable),
			func(c *hooksConfig) *string { return &c.TokenEnv }, "environment variable with that token"),
	})
}

// hooks judges how registries tell of pushes.
func (j *judgement) hooks() {
	c := j.config.Hooks
	where := c.pos
	wanted := slices.IndexFunc(j.config.Policies, func(p policyConfig) bool { return p.Push != nil && p.Push.Hook })
	if c.TokenFile.Name == "" && c.TokenEnv == "" {
		if wanted >= 0 {
			j.fail(j.config.Policies[wanted].Push, "has hook, and no registry can tell anything", "add hooks: {tokenFile: FILE}")
		}
		return
	}
	token, ok := j.secret(where, c.TokenFile, c.TokenEnv, "token", minToken)
	if ok && strings.ContainsFunc(string(token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		j.fail(where, "the token holds something else than letters, digits and marks, which no header carries", "make another token")
	}
	j.out.HookToken = string(token)
	if j.config.Cache.Directory.Name == "" {
		j.out.Warnings.add(where.fault("what registries tell is kept in memory, and forgotten when this program ends", "add cache.directory"))
	}
	if wanted < 0 {
		j.out.Warnings.add(where.fault("nothing comes of what registries tell", "add hook: true to the push of a policy"))
	}
}

// uploadKey reads what seals uploads.
func (j *judgement) uploadKey() {
	h := j.config.HTTP
	if h.UploadKeyFile.Name == "" && h.UploadKeyEnv == "" {
		return
	}
	j.out.UploadKey, _ = j.secret(h.pos, h.UploadKeyFile, h.UploadKeyEnv, "uploadKey", minUploadKey)
}

// secret returns what the file or the environment variable holds, without line breaks
// at its end; false when it is reported that there is none.
func (j *judgement) secret(at pos, f file, variable, name string, atLeast int) ([]byte, bool) {
	var data []byte
	fromVariable := at
	fromVariable.Path = joinKey(at.Path, name+"Env")
	from, what := f.pos, f.Name
	switch {
	case f.Name != "" && variable != "":
		j.fail(at, fmt.Sprintf("has %sFile and %sEnv", name, name), "keep one of the two")
		return nil, false
	case variable != "":
		value, set := j.reader.variable(variable)
		if !set {
			j.fail(fromVariable, "the environment has no "+variable, "set it where this program is started")
			return nil, false
		}
		data, from, what = []byte(value), fromVariable, variable
	default:
		read, ok := j.content(f)
		if !ok {
			return nil, false
		}
		data = read
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) < atLeast {
		j.fail(from, fmt.Sprintf("%s holds less than %d bytes", what, atLeast), "make it with: openssl rand -hex 32")
		return nil, false
	}
	return data, true
}
