package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// source yields a configuration, reading all it needs through r. Faults are what
// is wrong with it; an error means that there is nothing to judge.
type source func(r *reader) (Config, faults, error)

// gathered is a configuration and all the files that it names, before anything
// but its form has been judged.
type gathered struct {
	config Config
	faults faults
	reader *reader
}

// maxReadings bounds how often a configuration that changes under the reading
// is read again, and pauseBetween gives the writer time to end.
const (
	maxReadings  = 10
	pauseBetween = 20 * time.Millisecond
)

// gather reads a configuration until two readings agree. The reader of the
// result is there with an error, too.
func gather(from source, lookup func(string) (string, bool)) (gathered, error) {
	before, err := gatherOnce(from, lookup)
	for range maxReadings {
		after, again := gatherOnce(from, lookup)
		if again == nil && err == nil && before.reader.sum() == after.reader.sum() {
			return after, nil
		}
		if again != nil && err != nil && again.Error() == err.Error() {
			return after, err
		}
		before, err = after, again
		time.Sleep(pauseBetween)
	}
	return before, errors.New("the configuration changes while it is read")
}

func gatherOnce(from source, lookup func(string) (string, bool)) (gathered, error) {
	r := newReader(lookup)
	config, found, err := from(r)
	if err != nil {
		return gathered{reader: r}, err
	}
	for _, f := range config.namedFiles() {
		f.read(r, f.Name) // for the record; who needs the content judges the error
	}
	for _, name := range config.namedVariables() {
		r.variable(name)
	}
	return gathered{config, found, r}, nil
}

type namedFile struct {
	file
	read func(*reader, string) ([]byte, error)
}

// namedVariables are the environment variables that the configuration names.
func (c *Config) namedVariables() []string {
	all := []string{c.HTTP.UploadKeyEnv, c.Hooks.TokenEnv}
	for _, u := range c.Upstreams {
		all = append(all, u.Value.PasswordEnv)
	}
	for _, a := range c.Authorities {
		if s := a.Value.Signer; s != nil {
			all = append(all, s.PasswordEnv)
		}
	}
	return slices.DeleteFunc(all, func(name string) bool { return name == "" })
}

// namedFiles are the files that the configuration names, besides its own.
func (c *Config) namedFiles() []namedFile {
	open, secret := (*reader).read, (*reader).readSecret
	all := []namedFile{{c.HTTP.TLS.Certificate, open}, {c.HTTP.TLS.Key, secret}, {c.Auth.Htpasswd, secret},
		{c.HTTP.UploadKeyFile, secret}, {c.Hooks.TokenFile, secret}}
	for _, f := range c.HTTP.TLS.ClientCAs {
		all = append(all, namedFile{f, open})
	}
	for _, u := range c.Upstreams {
		all = append(all, namedFile{u.Value.CA, open}, namedFile{u.Value.PasswordFile, secret},
			namedFile{u.Value.Credentials.Config, secret})
	}
	all = append(all, namedFile{c.TrustedRoot.file, open})
	for _, a := range c.Authorities {
		all = append(all, namedFile{a.Value.TrustedRoot.file, open})
		for _, k := range a.Value.Keys {
			all = append(all, namedFile{k.file, open})
		}
		if s := a.Value.Signer; s != nil {
			all = append(all, namedFile{s.Key, secret}, namedFile{s.PasswordFile, secret})
		}
	}
	for _, p := range c.Policies {
		all = append(all, namedFile{p.Rego, open})
		for _, a := range p.Attestations {
			all = append(all, namedFile{a.Rego, open})
		}
	}
	return slices.DeleteFunc(all, func(f namedFile) bool { return f.Name == "" })
}

// fromFile is the configuration in the file name, with what it includes.
func fromFile(name string) source {
	return func(r *reader) (Config, faults, error) {
		data, err := r.read(name)
		if err != nil {
			return Config{}, nil, fmt.Errorf("configuration: %s", plainError(err))
		}
		config, found := decodeFile(name, data, configShape())
		found = append(found, config.addIncluded(r)...)
		return config, found, nil
	}
}

// decodeFile decodes one file as s.
func decodeFile[T any](name string, data []byte, s shape[T]) (T, faults) {
	d := decoder{base: filepath.Dir(name)}
	root, found := parseYAML(name, data)
	d.faults = found
	out, _ := s.decode(&d, root)
	return out, d.faults
}

// addIncluded reads what c includes and appends it to what c holds itself, in
// the order of the entries and of the sorted file names.
func (c *Config) addIncluded(r *reader) faults {
	var found faults
	from := make(map[string]bool)
	for _, include := range c.Include {
		names, err := r.glob(include.Files)
		if err != nil {
			found.add(include.fault(plainError(err), "create it, or remove the entry"))
			continue
		}
		for _, name := range names {
			if from[name] {
				found.add(include.fault(name+" is included a second time", "let one entry name it"))
				continue
			}
			from[name] = true
			if len(from) > maxIncluded {
				found.add(include.fault(fmt.Sprintf("more than %d files are included", maxIncluded), "join some"))
				return found
			}
			found = append(found, c.addFile(r, include, name)...)
		}
	}
	return found
}

func (c *Config) addFile(r *reader, include includeConfig, name string) faults {
	data, err := r.read(name)
	if err != nil {
		return faults{include.fault(plainError(err), "create it, or remove the entry")}
	}
	added, found := decodeFile(name, data, includedShape())
	for i := range added.Policies {
		added.Policies[i].Scope = include.Scope
	}
	for i := range added.Exceptions {
		added.Exceptions[i].Scope = include.Scope
	}
	if include.Scope != "" && len(added.Revoked) > 0 {
		found.add(added.Revoked[0].fault("revokes everywhere, but the file is included for "+include.Scope, "move it to a file without a scope"))
	}
	c.Authorities = append(c.Authorities, added.Authorities...)
	c.Policies = append(c.Policies, added.Policies...)
	c.Exceptions = append(c.Exceptions, added.Exceptions...)
	c.Revoked = append(c.Revoked, added.Revoked...)
	return found
}

// plainError is what went wrong with a file, without the system call's name.
func plainError(err error) string {
	path, ok := errors.AsType[*fs.PathError](err)
	switch {
	case !ok:
		return err.Error()
	case errors.Is(err, fs.ErrNotExist):
		return path.Path + " does not exist"
	case errors.Is(err, fs.ErrPermission):
		return path.Path + " may not be read by this process"
	}
	return path.Path + ": " + path.Err.Error()
}
