package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// plainText is one line of text.
func plainText() shape[string] {
	return shape[string]{
		schema: schema{"type": "string"},
		decode: func(d *decoder, n node) (string, bool) {
			switch {
			case !d.is(n, scalar, "write one text"):
				return "", false
			case n.tag != "!!str":
				d.fail(n, "is not text", "put it into quotes")
				return "", false
			case strings.ContainsFunc(n.value, unicode.IsControl):
				d.fail(n, "contains a line break or another control character", "keep it on one line")
				return "", false
			}
			return n.value, true
		},
	}
}

// checked is text that holds check. An error says what is wrong with the text;
// fix says what to write instead.
func checked(fix string, check func(string) error) shape[string] {
	return parsed(schema{"type": "string"}, fix, func(s string) (string, error) { return s, check(s) })
}

// parsed is a single value whose text parse understands.
func parsed[T any](sch schema, fix string, parse func(string) (T, error)) shape[T] {
	return shape[T]{
		schema: sch,
		decode: func(d *decoder, n node) (T, bool) {
			var zero T
			if !d.is(n, scalar, fix) {
				return zero, false
			}
			v, err := parse(n.value)
			if err != nil {
				d.fail(n, err.Error(), fix)
				return zero, false
			}
			return v, true
		},
	}
}

// nonEmpty is text that says something.
func nonEmpty(fix string) shape[string] {
	s := plainText()
	return shape[string]{
		schema: schema{"type": "string", "minLength": 1},
		decode: func(d *decoder, n node) (string, bool) {
			v, ok := s.decode(d, n)
			if ok && strings.TrimSpace(v) == "" {
				d.fail(n, "is empty", fix)
				return "", false
			}
			return v, ok
		},
	}
}

func boolean() shape[bool] {
	return shape[bool]{
		schema: schema{"type": "boolean"},
		decode: func(d *decoder, n node) (bool, bool) {
			if !d.is(n, scalar, "write true or false") {
				return false, false
			}
			yes := strings.EqualFold(n.value, "true")
			if n.tag != "!!bool" || !yes && !strings.EqualFold(n.value, "false") {
				d.fail(n, quote(n.value)+" is neither true nor false", "write true or false, without quotes")
				return false, false
			}
			return yes, true
		},
	}
}

// integer is a whole number of at least lowest.
func integer(lowest int) shape[int] {
	fix := fmt.Sprintf("write a whole number of at least %d", lowest)
	return shape[int]{
		schema: schema{"type": "integer", "minimum": lowest},
		decode: func(d *decoder, n node) (int, bool) {
			if !d.is(n, scalar, fix) {
				return 0, false
			}
			v, err := strconv.Atoi(n.value)
			if err != nil || n.tag != "!!int" || v < lowest {
				d.fail(n, quote(n.value)+" is not such a number", fix)
				return 0, false
			}
			return v, true
		},
	}
}

// choice is one word and what it means.
type choice[T any] struct {
	word  string
	means T
}

// oneOf is one of a few words.
func oneOf[T any](choices []choice[T]) shape[T] {
	words := make([]string, len(choices))
	for i, c := range choices {
		words[i] = c.word
	}
	return parsed(schema{"type": "string", "enum": words}, "write "+alternatives(words),
		func(s string) (T, error) {
			i := slices.Index(words, s)
			if i < 0 {
				var zero T
				return zero, fmt.Errorf("%s is not known here", quote(s))
			}
			return choices[i].means, nil
		})
}

func alternatives(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// duration is Go's notation, and d for days.
func duration() shape[time.Duration] {
	const pattern = `^\+?([0-9.]+(ns|us|µs|μs|ms|s|m|h))+$|^[0-9]+d$|^\+?0$`
	return parsed(schema{"type": []string{"string", "integer"}, "pattern": pattern}, "write a duration like 30s, 1h30m or 7d", parseDuration)
}

func parseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%s is not a duration", quote(s))
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, wrong
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return 0, wrong
	}
	return v, nil
}

// byteSize is a number of bytes.
func byteSize() shape[int64] {
	return parsed(schema{"type": []string{"string", "integer"}, "pattern": `^[0-9]+([KMGT]iB)?$`},
		"write a size like 512MiB, 50GiB or 1TiB", parseSize)
}

func parseSize(s string) (int64, error) {
	wrong := fmt.Errorf("%s is not a size", quote(s))
	digits, factor := s, int64(1)
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			digits, factor = number, int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || int64(n) > (1<<62)/factor {
		return 0, wrong
	}
	return int64(n) * factor, nil
}

// share is how much of a file system may be used: a percentage, or bytes.
type share struct {
	Percent int   // 1 to 100; 0 when Bytes counts
	Bytes   int64 // 0 when Percent counts
}

func fileSystemShare() shape[share] {
	return parsed(schema{"type": []string{"string", "integer"}, "pattern": `^[0-9]+([KMGT]iB|%)?$`},
		"write a size like 50GiB, or a share of the file system like 80%",
		func(s string) (share, error) {
			digits, ok := strings.CutSuffix(s, "%")
			if !ok {
				bytes, err := parseSize(s)
				return share{Bytes: bytes}, err
			}
			percent, err := strconv.ParseUint(digits, 10, 8)
			if err != nil || percent < 1 || percent > 100 {
				return share{}, fmt.Errorf("%s is not a share", quote(s))
			}
			return share{Percent: int(percent)}, nil
		})
}

// moment is a moment; a day alone means its beginning, in UTC.
func moment() shape[time.Time] {
	return parsed(schema{"type": "string"}, "write a day like 2026-12-01, or a moment like 2026-12-01T18:00:00Z",
		func(s string) (time.Time, error) {
			for _, layout := range []string{time.DateOnly, time.RFC3339} {
				if t, err := time.Parse(layout, s); err == nil {
					return t.UTC(), nil
				}
			}
			return time.Time{}, fmt.Errorf("%s is not a date", quote(s))
		})
}

func digestOf() shape[v1.Hash] {
	return parsed(schema{"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}, "write sha256: and 64 hexadecimal digits",
		func(s string) (v1.Hash, error) {
			h, err := v1.NewHash(s)
			if err != nil || h.Algorithm != "sha256" {
				return v1.Hash{}, fmt.Errorf("%s is not a digest", quote(s))
			}
			return h, nil
		})
}

// prefix is an address or a range of them.
func prefix() shape[netip.Prefix] {
	return parsed(schema{"type": "string"}, "write an address or a range like 10.0.0.0/8",
		func(s string) (netip.Prefix, error) {
			if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
				return netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			p, err := netip.ParsePrefix(s)
			switch {
			case err != nil:
				return netip.Prefix{}, fmt.Errorf("%s is not an address", quote(s))
			case p != p.Masked():
				return netip.Prefix{}, fmt.Errorf("%s begins inside of its range, which is %s", quote(s), p.Masked())
			}
			return p, nil
		})
}

// listenAddr is host:port to listen at; "" switches off when off is true.
func listenAddr(off bool, check func(host string) error) shape[string] {
	fix := "write an address like 127.0.0.1:5080"
	if off {
		fix += `, or "" to switch it off`
	}
	return checked(fix, func(s string) error {
		if s == "" && off {
			return nil
		}
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			return fmt.Errorf("%s is not host:port", quote(s))
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%s is not the number of a port", quote(port))
		}
		return check(host)
	})
}

func anyHost(string) error { return nil }

func loopbackOnly(host string) error {
	if !isLoopback(host) {
		return fmt.Errorf("%s is not a loopback address", quote(host))
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// webURL is http(s)://host[:port], without anything that a request would lose or
// a log would show. "" is no URL.
func webURL() shape[string] {
	return checked("write a URL like https://registry.example:5000, without user, path or query", checkURL)
}

func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s) // its error shows the text, which may hold a password
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return errors.New("is not an http or https URL")
	case u.User != nil:
		return errors.New("holds credentials")
	case strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return errors.New("has a path, a query or a fragment")
	}
	return nil
}

// proxyChoice is where upstreams are dialled through.
func proxyChoice() shape[string] {
	return checked("write environment, none or a URL like http://proxy.example:3128; a password goes into the environment's HTTPS_PROXY",
		func(s string) error {
			switch s {
			case "environment", "none":
				return nil
			case "":
				return errors.New("is empty")
			}
			return checkURL(s)
		})
}

// file is the path of a file, resolved; Name is "" when none is named.
type file struct {
	pos
	Name string
}

// filePath is the path of a file or directory, relative to the file that names it.
func filePath() shape[file] {
	s := plainText()
	return shape[file]{
		schema: s.schema,
		decode: func(d *decoder, n node) (file, bool) {
			v, ok := s.decode(d, n)
			if ok && v != "" && !filepath.IsAbs(v) {
				v = filepath.Join(d.base, v)
			}
			return file{n.pos, v}, ok
		},
	}
}

// existing is a path that may not be empty.
func existing() shape[file] {
	s := filePath()
	return shape[file]{
		schema: schema{"type": "string", "minLength": 1},
		decode: func(d *decoder, n node) (file, bool) {
			f, ok := s.decode(d, n)
			if ok && f.Name == "" {
				d.fail(n, "is empty", "name a file")
				return file{}, false
			}
			return f, ok
		},
	}
}
