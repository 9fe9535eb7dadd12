package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"

	"vidimus/proxy/upstream"
)

// upstreamSettings is what one upstream's client is made of.
type upstreamSettings struct {
	Name    string
	Config  upstream.Config
	URLHost string   // host[:port] of its URL
	Hosts   []string // values of the Host header that mean it
	// Identity differs whenever anything in Config does, secrets included.
	Identity [sha256.Size]byte
}

func (u upstreamConfig) hasCredentials() bool {
	return u.Username != "" || u.PasswordFile.Name != "" || u.PasswordEnv != "" || u.Credentials.Docker
}

// address is the URL of an upstream that goes by name.
func (u upstreamConfig) address(name string) string {
	switch {
	case u.URL != "":
		return u.URL
	case name == "docker.io":
		return "https://registry-1.docker.io"
	}
	return "https://" + name
}

func (j *judgement) upstreams() {
	known := make([]string, 0, len(j.config.Upstreams))
	hosts := make(map[string]string) // whose they are
	for _, u := range j.config.Upstreams {
		known = append(known, u.Name)
		for _, h := range u.Value.Hosts {
			if other, taken := hosts[h.Value]; taken {
				j.fail(h, quote(h.Value)+" is listed by "+other+" already", "let one upstream list it")
			}
			hosts[h.Value] = u.Name
		}
		j.upstream(u)
	}
	if d := j.config.DefaultUpstream; d.Value != "" && j.config.upstream(d.Value) == nil {
		j.fail(d, quote(d.Value)+" is not an upstream", suggest(d.Value, known))
	}
}

// upstream returns the upstream that goes by name, or nil.
func (c *Config) upstream(name string) *upstreamConfig {
	for i := range c.Upstreams {
		if c.Upstreams[i].Name == name {
			return &c.Upstreams[i].Value
		}
	}
	return nil
}

func (j *judgement) upstream(u named[upstreamConfig]) {
	address := u.Value.address(u.Name)
	s := upstreamSettings{
		Name: u.Name,
		Config: upstream.Config{
			Name:      u.Name,
			URL:       address,
			AuthHosts: u.Value.AuthHosts,
			Egress:    j.config.Egress.Allow,
			Proxy:     proxyFunc(j.config.Egress.Proxy),
			UserAgent: "vidimus/" + version(),
		},
	}
	if parsed, err := url.Parse(address); err == nil {
		s.URLHost = parsed.Host
	}
	for _, h := range u.Value.Hosts {
		s.Hosts = append(s.Hosts, h.Value)
	}
	s.Config.CA, _ = j.content(u.Value.CA)
	secret := j.credentials(u, &s.Config)

	h := sha256.New()
	writeItem(h, u.Name, address, string(s.Config.CA), fmt.Sprint(u.Value.AuthHosts),
		fmt.Sprint(j.config.Egress), proxyEnvironment(j.config.Egress.Proxy), secret)
	s.Identity = [sha256.Size]byte(h.Sum(nil))

	if !j.faults.inside(u.pos) {
		if _, err := upstream.New(s.Config); err != nil {
			for _, each := range unjoin(err) {
				j.fail(u, each.Error(), "")
			}
		}
	}
	j.out.Upstreams = append(j.out.Upstreams, s)
}

// credentials sets how c logs in, and returns all that this depends on.
func (j *judgement) credentials(u named[upstreamConfig], c *upstream.Config) (secret string) {
	v := u.Value
	fromFile, fromEnv := v.PasswordFile.Name != "", v.PasswordEnv != ""
	switch {
	case v.Credentials.Docker && (v.Username != "" || fromFile || fromEnv):
		j.fail(u, "has credentials and a username or password of its own", "keep one of the two")
	case v.Credentials.Docker:
		c.Credentials = upstream.DockerConfig(v.Credentials.Config.Name)
		config, _ := j.content(v.Credentials.Config)
		return "docker " + v.Credentials.Config.Name + string(config)
	case fromFile && fromEnv:
		j.fail(u, "has passwordFile and passwordEnv", "keep one of the two")
	case v.Username == "" && (fromFile || fromEnv):
		j.fail(u, "has a password and no username", "add username")
	case v.Username != "" && !fromFile && !fromEnv:
		j.fail(u, "has a username and no password", "add passwordFile or passwordEnv")
	case v.Username != "":
		if password, ok := j.password(u); ok {
			c.Credentials = upstream.Static(v.Username, password)
			return "static " + v.Username + "\x00" + password
		}
	}
	return ""
}

func (j *judgement) password(u named[upstreamConfig]) (string, bool) {
	if name := u.Value.PasswordEnv; name != "" {
		password, _ := j.reader.variable(name)
		if password == "" {
			at := u.pos
			at.Path = joinKey(at.Path, "passwordEnv")
			j.fail(at, "the environment has no "+name, "set it where this program is started")
		}
		return password, password != ""
	}
	data, ok := j.content(u.Value.PasswordFile)
	password := string(bytes.TrimRight(data, "\r\n"))
	if ok && password == "" {
		j.fail(u.Value.PasswordFile, u.Value.PasswordFile.Name+" is empty", "write the password into it")
	}
	return password, password != ""
}

// proxyFunc returns how requests find their proxy.
func proxyFunc(choice string) func(*http.Request) (*url.URL, error) {
	switch choice {
	case "none":
		return nil
	case "environment":
		ask := httpproxy.FromEnvironment().ProxyFunc()
		return func(r *http.Request) (*url.URL, error) { return ask(r.URL) }
	}
	return func(*http.Request) (*url.URL, error) { return url.Parse(choice) }
}

func proxyEnvironment(choice string) string {
	if choice != "environment" {
		return choice
	}
	return fmt.Sprintf("environment %+v", *httpproxy.FromEnvironment())
}
