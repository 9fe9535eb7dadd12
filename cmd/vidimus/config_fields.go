package main

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// configShape is the configuration file. Every key, its default and its
// description are here and in config_rules.go, and nowhere else.
func configShape() shape[Config] {
	fields := slices.Concat([]field[Config]{
		required(key("version", "", versionOne(), func(c *Config) *int { return &c.Version }, "the version of this format: 1")),
		key("http", "{}", httpShape(), func(c *Config) *httpConfig { return &c.HTTP }, "the registry API"),
		key("metrics", "{}", listenShape("127.0.0.1:5081", anyHost, "where /healthz, /readyz and /metrics are served"),
			func(c *Config) *listenConfig { return &c.Metrics }, "the listener for monitoring"),
		key("admin", "{}", listenShape(`""`, loopbackOnly, "where /api/decisions is served; loopback only"),
			func(c *Config) *listenConfig { return &c.Admin }, "the listener for looking at decisions"),
		key("cache", "{}", cacheShape(), func(c *Config) *cacheConfig { return &c.Cache }, "what is kept"),
		required(key("upstreams", "", someEntries(upstreamShape(), checkUpstreamName, "add a registry to pull from, like docker.io: {}"),
			func(c *Config) *[]named[upstreamConfig] { return &c.Upstreams }, "the registries to pull from, by name")),
		key("defaultUpstream", `""`, placed(plainText()), func(c *Config) *located[string] { return &c.DefaultUpstream },
			"the upstream of names without a registry"),
		key("egress", "{}", egressShape(), func(c *Config) *egressConfig { return &c.Egress }, "what may be dialled, and how"),
		key("trustedRoot", `""`, rootShape(), func(c *Config) *rootConfig { return &c.TrustedRoot },
			"what proves certificates, and when something was signed: a trusted_root.json, or sigstore for the public instance"),
		key("enforcement", "enforce", enforcementShape(), enforcementOf, "the ceiling for every policy"),
	}, rulesFields(func(c *Config) *rules { return &c.rules }), []field[Config]{
		key("include", "[]", listOf(includeShape()), func(c *Config) *[]includeConfig { return &c.Include },
			"further files with authorities, policies, exceptions and revoked"),
		key("auth", "{}", authShape(), func(c *Config) *authConfig { return &c.Auth }, "who may talk to the proxy"),
		key("hooks", "{}", hooksShape(), func(c *Config) *hooksConfig { return &c.Hooks }, "how registries tell of what is pushed to them"),
		key("decisions", "{}", decisionsShape(), func(c *Config) *decisionsConfig { return &c.Decisions }, "the record of decisions"),
		key("log", "{}", logShape(), func(c *Config) *logConfig { return &c.Log }, "what the program says of itself"),
	})
	return object(fields)
}

// versionOne is the number of this format. Another is left alone: who wrote it
// meant another program.
func versionOne() shape[int] {
	return shape[int]{
		schema: schema{"const": 1},
		decode: func(d *decoder, n node) (int, bool) {
			if !d.is(n, scalar, "write version: 1") {
				return 0, false
			}
			if n.tag != "!!int" || n.value != "1" {
				d.fail(n, quote(n.value)+" is not a version that is known", "write version: 1")
				return 0, false
			}
			return 1, true
		},
	}
}

func httpShape() shape[httpConfig] {
	return object([]field[httpConfig]{
		key("addr", "127.0.0.1:5080", placed(listenAddr(false, anyHost)), func(c *httpConfig) *located[string] { return &c.Addr },
			"where the registry API listens"),
		key("tls", "{}", tlsShape(), func(c *httpConfig) *tlsConfig { return &c.TLS }, "how the registry API is encrypted; not at all without a certificate"),
		key("externalURL", `""`, webURL(), func(c *httpConfig) *string { return &c.ExternalURL },
			"the URL that clients know; its host is also a name of what is signed through it"),
		key("trustedProxies", "[]", listOf(prefix()), func(c *httpConfig) *[]netip.Prefix { return &c.TrustedProxies },
			"addresses whose X-Forwarded-For is believed"),
		key("uploadKeyFile", `""`, filePath(), func(c *httpConfig) *file { return &c.UploadKeyFile },
			"file with 32 bytes or more, with which replicas that share it go on with each other's uploads; read at the start"),
		key("uploadKeyEnv", `""`, checked("write the name of an environment variable, not the key", checkVariable),
			func(c *httpConfig) *string { return &c.UploadKeyEnv }, "environment variable with the same"),
	})
}

func tlsShape() shape[tlsConfig] {
	return object([]field[tlsConfig]{
		key("certificate", `""`, filePath(), func(c *tlsConfig) *file { return &c.Certificate }, "PEM file of the certificate and its chain; read again when it changes"),
		key("key", `""`, filePath(), func(c *tlsConfig) *file { return &c.Key }, "PEM file of the certificate's private key; read again when it changes"),
		key("clientCAs", "[]", listOf(existing()), func(c *tlsConfig) *[]file { return &c.ClientCAs },
			"PEM files of authorities; a client must show a certificate by one of them"),
	})
}

func listenShape(def string, check func(host string) error, doc string) shape[listenConfig] {
	return object([]field[listenConfig]{
		key("addr", def, listenAddr(true, check), func(c *listenConfig) *string { return &c.Addr }, doc),
	})
}

func cacheShape() shape[cacheConfig] {
	return object([]field[cacheConfig]{
		key("directory", `""`, filePath(), func(c *cacheConfig) *file { return &c.Directory }, "where content is kept; in memory and bounded without it"),
		key("maxSize", "80%", fileSystemShare(), func(c *cacheConfig) *share { return &c.MaxSize },
			"how much of the file system, or how many bytes; what was least recently used goes first"),
		key("tagTTL", "30s", duration(), func(c *cacheConfig) *time.Duration { return &c.TagTTL }, "a tag is asked upstream again after this"),
		key("maxStale", "1h", duration(), func(c *cacheConfig) *time.Duration { return &c.MaxStale },
			"how long after its last confirmation a tag is served when the upstream cannot answer"),
	}, "bucket")
}

func upstreamShape() shape[upstreamConfig] {
	return object([]field[upstreamConfig]{
		key("url", `""`, webURL(), func(c *upstreamConfig) *string { return &c.URL }, "its URL; https:// and its name without one"),
		key("hosts", "[]", listOf(placed(hostPort())), func(c *upstreamConfig) *[]located[string] { return &c.Hosts }, "values of the Host header that mean this upstream"),
		key("ca", `""`, filePath(), func(c *upstreamConfig) *file { return &c.CA }, "PEM file of the authorities that its certificate is checked against, besides the system's"),
		key("authHosts", "[]", listOf(hostPort()), func(c *upstreamConfig) *[]string { return &c.AuthHosts }, "further hosts that may hand out its tokens and see its credentials"),
		key("username", `""`, plainText(), func(c *upstreamConfig) *string { return &c.Username }, "who pulls"),
		key("passwordFile", `""`, filePath(), func(c *upstreamConfig) *file { return &c.PasswordFile }, "file with the password or token"),
		key("passwordEnv", `""`, checked("write the name of an environment variable, not the password", checkVariable),
			func(c *upstreamConfig) *string { return &c.PasswordEnv }, "environment variable with the password or token"),
		key("credentials", "{}", credentialsShape(), func(c *upstreamConfig) *credentialsConfig { return &c.Credentials }, "docker, or {dockerConfig: FILE}: log in as docker does"),
	})
}

// hostPort is host or host:port, as a Host header or a URL has it.
func hostPort() shape[string] {
	return checked("write host or host:port, in lower case", func(s string) error {
		if !hostPattern.MatchString(s) {
			return fmt.Errorf("%s is not a host", quote(s))
		}
		return nil
	})
}

var (
	hostPattern     = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

func checkVariable(s string) error {
	if s != "" && !variablePattern.MatchString(s) {
		return fmt.Errorf("is not the name of an environment variable") // may be the password itself
	}
	return nil
}

func checkUpstreamName(name string) (what, fix string) {
	switch {
	case name == "index.docker.io" || name == "registry-1.docker.io":
		return "is another name of docker.io", "write docker.io"
	case !hostPattern.MatchString(name):
		return "is not the name of a registry", "write it like ghcr.io or localhost:5000, in lower case"
	}
	return "", ""
}

// credentialsShape is the word docker, or a mapping; the default {} is neither.
func credentialsShape() shape[credentialsConfig] {
	word := oneOf([]choice[credentialsConfig]{{"docker", credentialsConfig{Docker: true}}})
	form := object([]field[credentialsConfig]{
		key("dockerConfig", `""`, filePath(), func(c *credentialsConfig) *file { return &c.Config }, "docker's config.json to read"),
	})
	return shape[credentialsConfig]{
		schema: schema{"anyOf": []any{word.schema, form.schema}},
		decode: func(d *decoder, n node) (credentialsConfig, bool) {
			if n.kind != mapping {
				return word.decode(d, n)
			}
			c, ok := form.decode(d, n)
			c.Docker = c.Config.Name != ""
			return c, ok
		},
	}
}

func egressShape() shape[egressConfig] {
	return object([]field[egressConfig]{
		key("allow", "[]", listOf(prefix()), func(c *egressConfig) *[]netip.Prefix { return &c.Allow },
			"private addresses that redirects, token hosts and proxies may resolve to"),
		key("proxy", "environment", proxyChoice(), func(c *egressConfig) *string { return &c.Proxy },
			"environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), none, or a URL"),
	})
}

func decisionsShape() shape[decisionsConfig] {
	return object([]field[decisionsConfig]{
		key("path", `"-"`, recordPath(), func(c *decisionsConfig) *file { return &c.Path }, "file of JSON lines; - is standard output"),
		key("required", "false", boolean(), func(c *decisionsConfig) *bool { return &c.Required }, "a decision that cannot be written is not acted upon (503)"),
		key("maxSize", "1GiB", byteSize(), func(c *decisionsConfig) *int64 { return &c.MaxSize }, "at this size the file is renamed to its name and .1, in place of an older one, and begun anew"),
	})
}

// recordPath is a path, or - for standard output, which is nowhere on disk.
func recordPath() shape[file] {
	s := existing()
	return shape[file]{
		schema: s.schema,
		decode: func(d *decoder, n node) (file, bool) {
			if n.kind == scalar && n.value == "-" {
				return file{n.pos, "-"}, true
			}
			return s.decode(d, n)
		},
	}
}

func logShape() shape[logConfig] {
	words := func(all ...string) shape[string] {
		var choices []choice[string]
		for _, w := range all {
			choices = append(choices, choice[string]{w, w})
		}
		return oneOf(choices)
	}
	return object([]field[logConfig]{
		key("level", "info", words("debug", "info", "warn", "error"), func(c *logConfig) *string { return &c.Level }, "the least that is said"),
		key("format", "json", words("json", "text"), func(c *logConfig) *string { return &c.Format }, "how it is written"),
	})
}

func digests() shape[[]v1.Hash] { return some(digestOf(), "name a digest") }
