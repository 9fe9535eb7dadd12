package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vidimus/signer/kms"
	"vidimus/verifier"
)

// Caps on what is read. A configuration is written by people; what is larger is
// a mistake or an attack.
const (
	maxConfigFile = 1 << 20
	maxNamedFile  = 1 << 20 // keys, certificates, passwords
	maxIncluded   = 1000    // files
)

// reader reads the files of one revision, each once, and remembers what it saw
// of each, so that a change after the reading can be told.
type reader struct {
	files map[string]readFile
	globs map[string]globbed
	env   map[string]string
	get   func(name string) (string, bool)
	flags string // what the configuration is made of besides files; no secret
	// keys asks for the keys in a KMS, which are read as files are; nil: nobody does.
	keys *kms.Cache
	// privates remembers private keys that were decrypted, which takes long; nil: nobody does.
	privates *privateKeys
	fresh    []byte // the trust root of Sigstore's public instance; nil is the one built in
}

type readFile struct {
	before fingerprint // taken before the reading, so that a later change differs
	secret bool
	data   []byte
	err    error
}

type globbed struct {
	names []string
	err   error
}

func newReader(lookup func(string) (string, bool)) *reader {
	return &reader{
		files: make(map[string]readFile),
		globs: make(map[string]globbed),
		env:   make(map[string]string),
		get:   lookup,
	}
}

// read returns what the file holds. A file that is read twice for one revision
// is the same both times.
func (r *reader) read(name string) ([]byte, error) { return r.remember(name, false) }

// readSecret is read; the content counts for telling whether anything changed,
// but not for the revision's id, which everybody may see and could test guesses
// against.
func (r *reader) readSecret(name string) ([]byte, error) { return r.remember(name, true) }

func (r *reader) remember(name string, secret bool) ([]byte, error) {
	f, ok := r.files[name]
	if !ok && kms.IsReference(name) {
		f.data, f.err = r.askKMS(name)
	} else if !ok {
		f.before = fingerprintOf(name)
		f.data, f.err = readRegular(name, max(maxConfigFile, maxNamedFile))
	}
	f.secret = f.secret || secret
	r.files[name] = f
	return f.data, f.err
}

// readRegular reads a file that has an end: no device, pipe or directory.
func readRegular(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("larger than %d MiB", limit>>20)}
	}
	return data, err
}

// publicRoot returns the trust root of Sigstore's public instance.
func (r *reader) publicRoot() []byte {
	if r.fresh != nil {
		return r.fresh
	}
	return verifier.PublicRoot()
}

// variable returns the environment variable name.
func (r *reader) variable(name string) (string, bool) {
	value, ok := r.get(name)
	r.env[name] = value
	return value, ok
}

// glob returns the files that pattern names, sorted. Hidden files, among them
// what editors leave behind, need a pattern that begins with a dot itself. A
// pattern without wildcards names one file, there or not; the directory of one
// with wildcards must exist.
func (r *reader) glob(pattern string) ([]string, error) {
	names, err := globFiles(pattern)
	r.globs[pattern] = globbed{names, err}
	return names, err
}

func globFiles(pattern string) ([]string, error) {
	if !hasWildcard(pattern) {
		return []string{pattern}, nil
	}
	if dir := filepath.Dir(pattern); !hasWildcard(dir) {
		if _, err := os.ReadDir(dir); err != nil {
			return nil, err
		}
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(filepath.Base(pattern), ".") {
		names = slices.DeleteFunc(names, func(name string) bool {
			return strings.HasPrefix(filepath.Base(name), ".")
		})
	}
	if len(names) > maxIncluded {
		return nil, fmt.Errorf("%s names more than %d files", pattern, maxIncluded)
	}
	slices.Sort(names)
	return names, nil
}

func hasWildcard(pattern string) bool { return strings.ContainsAny(pattern, `*?[\`) }

// id names the revision for people: a hash over all bytes that were read but
// secrets.
func (r *reader) id() string {
	h := sha256.New()
	r.sumFiles(h, func(f readFile) bool { return !f.secret })
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// sum changes with anything that was read.
func (r *reader) sum() [sha256.Size]byte {
	h := sha256.New()
	r.sumFiles(h, func(readFile) bool { return true })
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		writeItem(h, "env", name, r.env[name])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (r *reader) sumFiles(h hash.Hash, counts func(readFile) bool) {
	if r.flags != "" {
		writeItem(h, "flags", r.flags)
	}
	if r.fresh != nil {
		writeItem(h, "sigstore", string(r.fresh))
	}
	for _, pattern := range slices.Sorted(maps.Keys(r.globs)) {
		g := r.globs[pattern]
		writeItem(h, append([]string{"glob", pattern, fmt.Sprint(g.err)}, g.names...)...)
	}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if f := r.files[name]; counts(f) {
			if f.err != nil && kms.IsReference(name) {
				f.err = errNotAsked // its own words differ each time
			}
			writeItem(h, "file", name, fmt.Sprint(f.err), string(f.data))
		}
	}
}

// writeItem hashes parts so that no two lists of parts hash alike.
func writeItem(h hash.Hash, parts ...string) {
	fmt.Fprintf(h, "%d:", len(parts))
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
}

// seen is what all files and globs looked like when they were read.
func (r *reader) seen() watched {
	w := watched{files: make(map[string]fingerprint), globs: make(map[string]string)}
	for name, f := range r.files {
		w.files[name] = f.before
	}
	for pattern, g := range r.globs {
		w.globs[pattern] = g.String()
	}
	return w
}

func (g globbed) String() string { return fmt.Sprintf("%q %v", g.names, g.err) }

// watched is what the files and globs of a revision look like at one moment.
type watched struct {
	files map[string]fingerprint
	globs map[string]string
}

// now looks at the same files and globs again.
func (w watched) now() watched {
	out := watched{files: make(map[string]fingerprint), globs: make(map[string]string)}
	for name := range w.files {
		out.files[name] = fingerprintOf(name)
	}
	for pattern := range w.globs {
		names, err := globFiles(pattern)
		out.globs[pattern] = globbed{names, err}.String()
	}
	return out
}

// with is w and other, of which other counts where both know something.
func (w watched) with(other watched) watched {
	maps.Copy(w.files, other.files)
	maps.Copy(w.globs, other.globs)
	return w
}

func (w watched) equal(other watched) bool {
	return maps.Equal(w.files, other.files) && maps.Equal(w.globs, other.globs)
}

// fingerprint tells one state of a file from another without reading it, through
// symbolic links: a swapped link, a rename over it and a save in place all
// change it.
type fingerprint struct {
	device, inode uint64
	size          int64
	mtime, ctime  int64 // nanoseconds
	mode          fs.FileMode
	trouble       string // why there is nothing to look at; empty: there is
}

func fingerprintOf(name string) fingerprint {
	if kms.IsReference(name) {
		return fingerprint{} // nobody tells when it changes
	}
	info, err := os.Stat(name)
	if err != nil {
		return fingerprint{trouble: plainError(err)}
	}
	f := fingerprint{size: info.Size(), mtime: info.ModTime().UnixNano(), mode: info.Mode()}
	f.identify(info)
	return f
}
