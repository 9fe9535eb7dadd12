package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"
)

// quickFlags are a configuration on the command line, for who has no file yet:
//
//	vidimus serve --require 'ghcr.io/me/**=cosign.pub' --allow-rest
type quickFlags struct {
	Require     []string // PATTERN=KEYFILE[,KEYFILE...]
	AllowRest   bool
	Upstreams   []string // NAME=URL
	Addr        string
	MetricsAddr optionalText
	AdminAddr   optionalText
	Cache       string
	DockerLogin bool
}

// optionalText is the value of a flag for which "" means something else than
// leaving it out. It implements pflag.Value.
type optionalText struct {
	Text  string
	Given bool
}

func (o *optionalText) String() string { return o.Text }
func (o *optionalText) Type() string   { return "string" }
func (o *optionalText) Set(text string) error {
	*o = optionalText{text, true}
	return nil
}

// add adds the flags to a command.
func (q *quickFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&q.Require, "require", nil, "without a file: `PATTERN=KEY` serves what matches when KEY (a file, or several with commas) has signed it; may be repeated")
	flags.BoolVar(&q.AllowRest, "allow-rest", false, "without a file: serve unverified what no --require matches")
	flags.StringArrayVar(&q.Upstreams, "upstream", nil, "without a file: `NAME=URL` of a registry; those that --require names and docker.io are there already; may be repeated")
	flags.StringVar(&q.Addr, "addr", "", "without a file: `ADDRESS` to listen at (default 127.0.0.1:5080)")
	flags.Var(&q.MetricsAddr, "metrics-addr", "without a file: `ADDRESS` of /healthz, /readyz and /metrics; \"\" for none (default 127.0.0.1:5081)")
	flags.Var(&q.AdminAddr, "admin-addr", "without a file: loopback `ADDRESS` of /api/decisions; none without it")
	flags.StringVar(&q.Cache, "cache", "", "without a file: `DIRECTORY` to keep content in; in memory without it")
	flags.BoolVar(&q.DockerLogin, "docker-credentials", false, "without a file: log in to registries as docker does")
}

// given reports whether any of the flags is used.
func (q *quickFlags) given() bool {
	return len(q.Require) > 0 || q.AllowRest || len(q.Upstreams) > 0 || q.Addr != "" ||
		q.MetricsAddr.Given || q.AdminAddr.Given || q.Cache != "" || q.DockerLogin
}

// chooseSource returns the configuration that the command line means: the flags
// when there are any, else the file that findConfig finds. Both together are
// refused, for one of them would not count.
func chooseSource(named string, q quickFlags, lookup func(string) (string, bool)) (source, error) {
	switch {
	case q.given() && named != "":
		return nil, misuse(errors.New("--config and the flags that do without a file exclude each other: write it into the file"))
	case q.given():
		return fromFlags(q), nil
	}
	name, err := findConfig(named, lookup)
	if err != nil {
		return nil, misuse(err)
	}
	return fromFile(name), nil
}

// flagBase is what the flags start from; everything else has its default.
const flagBase = "version: 1\nupstreams: {docker.io: {}}\ndefaultUpstream: docker.io\n"

// commandLine stands for the file in a configuration that flags spell.
const commandLine = "command line"

// onCommandLine reports whether flags spell c, so that advice names flags.
func (c *Config) onCommandLine() bool { return c.File == commandLine }

// setting is what people change to change c: a key of the file, or a flag.
func (c *Config) setting(key, flag string) string {
	if c.onCommandLine() {
		return flag
	}
	return key
}

// fromFlags is the configuration that the flags spell: one policy for each
// --require, in their order; the upstreams that these name, and docker.io, which
// is the default. A key file is an authority by the file's name.
func fromFlags(q quickFlags) source {
	return func(r *reader) (Config, faults, error) {
		r.flags = fmt.Sprintf("%#v", q) // quoted, so that no two lists of flags are alike
		config, found := decodeFile(commandLine, []byte(flagBase), configShape())
		d := decoder{base: ".", faults: found}
		if q.Addr != "" {
			config.HTTP.Addr, _ = placed(listenAddr(false, anyHost)).decode(&d, flagValue("--addr", q.Addr))
		}
		if q.MetricsAddr.Given {
			config.Metrics.Addr, _ = listenAddr(true, anyHost).decode(&d, flagValue("--metrics-addr", q.MetricsAddr.Text))
		}
		if q.AdminAddr.Given {
			config.Admin.Addr, _ = listenAddr(true, loopbackOnly).decode(&d, flagValue("--admin-addr", q.AdminAddr.Text))
		}
		if q.Cache != "" {
			config.Cache.Directory, _ = filePath().decode(&d, flagValue("--cache", q.Cache))
		}
		for _, text := range q.Upstreams {
			config.addUpstream(&d, text)
		}
		for _, text := range q.Require {
			config.addRequire(&d, text)
		}
		if q.AllowRest {
			config.Policies = append(config.Policies, policyConfig{
				pos: pos{File: "--allow-rest"}, Name: "allow-rest", Match: []string{"**"}, Allow: true,
			})
		}
		if len(q.Require) == 0 && !q.AllowRest {
			d.fail(pos{File: commandLine}, "nothing would be served", "add --require PATTERN=KEY, or --allow-rest")
		}
		for i := range config.Upstreams {
			config.Upstreams[i].Value.Credentials.Docker = q.DockerLogin
		}
		return config, d.faults, nil
	}
}

// flagValue is what a flag says, as a value of a file would be.
func flagValue(flag, value string) node {
	return node{pos: pos{File: flag + " " + quote(value)}, tag: "!!str", value: value}
}

func (c *Config) addUpstream(d *decoder, text string) {
	n := flagValue("--upstream", text)
	name, address, ok := strings.Cut(text, "=")
	if !ok || address == "" {
		d.fail(n, "is not NAME=URL", "write it like local=http://127.0.0.1:5000")
		return
	}
	if what, fix := checkUpstreamName(name); what != "" {
		d.fail(n, quote(name)+" "+what, fix)
	}
	u := upstreamConfig{pos: n.pos}
	n.value = address
	u.URL, _ = webURL().decode(d, n)
	if old := c.upstream(name); old != nil {
		*old = u
		return
	}
	c.Upstreams = append(c.Upstreams, named[upstreamConfig]{n.pos, name, u})
}

func (c *Config) addRequire(d *decoder, text string) {
	n := flagValue("--require", text)
	pattern, keys, ok := strings.Cut(text, "=")
	if !ok || pattern == "" || keys == "" {
		d.fail(n, "is not PATTERN=KEY", "write it like 'ghcr.io/me/**=cosign.pub'")
		return
	}
	registry, _, _ := strings.Cut(pattern, "/")
	if !c.addRegistry(d, n, registry, pattern) {
		return
	}
	require := requireConfig{pos: n.pos, AtLeast: 1}
	for name := range strings.SplitSeq(keys, ",") {
		if what, fix := checkKeyFile(name); what != "" {
			d.fail(n, what, fix)
			continue
		}
		require.Of = append(require.Of, located[string]{n.pos, name})
		c.addAuthority(n.pos, name)
	}
	c.Policies = append(c.Policies, policyConfig{pos: n.pos, Match: []string{pattern}, Require: &require})
}

// addRegistry makes registry, with which pattern begins, an upstream. It returns
// false, having said so, for a word that is rather the beginning of a repository
// of docker.io, since an upstream by that name would leave the repository
// unprotected; and for a host with a port, since an image's name has none inside.
func (c *Config) addRegistry(d *decoder, at node, registry, pattern string) bool {
	if what, _ := checkUpstreamName(registry); what != "" || c.upstream(registry) != nil {
		return true // no word at all, for the pattern's parser to judge; or known
	}
	if host, _, ported := strings.Cut(registry, ":"); ported {
		d.fail(at, registry+" is a host with a port, which docker cannot spell behind Vidimus", naming(host, registry, pattern))
		return false
	}
	if !strings.Contains(registry, ".") && registry != "localhost" {
		if registry == pattern || registry == "library" {
			pattern = "library/" + strings.TrimPrefix(pattern, "library/")
		}
		d.fail(at, registry+" is no registry", "write docker.io/"+pattern+", or name it with --upstream "+registry+"=URL")
		return false
	}
	c.Upstreams = append(c.Upstreams, named[upstreamConfig]{at.pos, registry, upstreamConfig{pos: at.pos}})
	return true
}

// naming says how a registry with a port gets a name: the host's own, or local
// on this machine, where registries seldom have TLS.
func naming(host, registry, pattern string) string {
	name, scheme := host, "https"
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		name, scheme = "local", "http"
	}
	return fmt.Sprintf("give it a name: --upstream %s=%s://%s --require '%s%s=KEY'", name, scheme, registry, name, strings.TrimPrefix(pattern, registry))
}

func (c *Config) addAuthority(where pos, keyFile string) {
	for _, a := range c.Authorities {
		if a.Name == keyFile {
			return
		}
	}
	c.Authorities = append(c.Authorities, named[authorityConfig]{
		where, keyFile, authorityConfig{pos: where, Keys: []keyConfig{{file: file{where, keyFile}}}, TransparencyLog: true},
	})
}
