package main

import (
	"net/netip"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy/access"
)

// Config is a configuration as it is written: decoded, each value plausible by
// itself, relative paths resolved. What its values mean together, and what the
// files hold that it names, is in loaded.
type Config struct {
	pos
	Version         int
	HTTP            httpConfig
	Metrics         listenConfig
	Admin           listenConfig
	Cache           cacheConfig
	Upstreams       []named[upstreamConfig]
	DefaultUpstream located[string]
	Egress          egressConfig
	Enforcement     policy.Enforcement
	TrustedRoot     rootConfig
	rules
	Include   []includeConfig
	Auth      authConfig
	Hooks     hooksConfig
	Decisions decisionsConfig
	Log       logConfig
}

// rules is what an included file may hold.
type rules struct {
	Authorities []named[authorityConfig]
	Policies    []policyConfig
	Exceptions  []exceptionConfig
	Revoked     []located[v1.Hash]
}

type httpConfig struct {
	pos
	Addr           located[string]
	TLS            tlsConfig
	ExternalURL    string
	TrustedProxies []netip.Prefix
	UploadKeyFile  file
	UploadKeyEnv   string
}

type tlsConfig struct {
	pos
	Certificate file
	Key         file
	ClientCAs   []file
}

type listenConfig struct {
	Addr string // "" is off
}

type cacheConfig struct {
	Directory file // none: in memory
	MaxSize   share
	TagTTL    time.Duration
	MaxStale  time.Duration
}

type upstreamConfig struct {
	pos
	URL          string // "" is https://<name>
	Hosts        []located[string]
	CA           file
	AuthHosts    []string
	Username     string
	PasswordFile file
	PasswordEnv  string
	Credentials  credentialsConfig
}

// credentialsConfig says where docker keeps what it logs in with.
type credentialsConfig struct {
	Docker bool
	Config file // none: where docker itself looks
}

type egressConfig struct {
	Allow []netip.Prefix
	Proxy string
}

type authorityConfig struct {
	pos
	Keys            []keyConfig
	Keyless         []identityConfig
	GitHub, GitLab  []identityConfig
	TrustedRoot     rootConfig // none: that of all
	PrivatePKI      bool
	TransparencyLog bool
	Signer          *signerConfig // nil: it signs no pushes
}

type policyConfig struct {
	pos
	Match        []string
	Name         string
	Require      *requireConfig
	SignedAs     signedAsConfig
	Annotations  map[string]string
	Attestations []attestationConfig
	Rego         file
	MaxAge       time.Duration // zero: any age
	MinAge       time.Duration
	Enforcement  *policy.Enforcement // nil: the ceiling
	Message      string
	Allow        bool // unverified
	Deny         string
	Push         *pushConfig // nil: nothing can be pushed
	Scope        string      // of the included file that it stands in; "" is everywhere
}

type signedAsConfig struct {
	As    policy.SignedAs
	Remap policy.Remap // when As is policy.Remapped
}

type requireConfig struct {
	pos
	AtLeast int
	Of      []located[string]
}

type attestationConfig struct {
	pos
	PredicateType string // the URI
	Require       *requireConfig
	Rego          file
}

type exceptionConfig struct {
	pos
	Match   []string
	Digests []v1.Hash
	Until   time.Time
	Reason  string
	Scope   string // of the included file that it stands in; "" is everywhere
}

type includeConfig struct {
	pos
	Files string // resolved; the last component may have wildcards
	Scope string // "" is everywhere
}

type authConfig struct {
	pos
	Htpasswd      file
	Access        []accessConfig
	AnonymousPull bool
}

// accessConfig is one entry of the access list.
type accessConfig struct {
	pos
	Subjects []located[string]
	Match    []string
	Actions  []access.Action
}

type decisionsConfig struct {
	Path     file // Name "-" is standard output
	Required bool
	MaxSize  int64
}

type logConfig struct {
	Level  string
	Format string
}
