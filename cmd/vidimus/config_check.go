package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/policy/rego"
	"vidimus/proxy/access"
	"vidimus/verifier"
)

// loaded is a configuration that holds, with what its files say: everything
// that one revision is built from.
type loaded struct {
	Config
	ID        string
	Policy    policy.Config
	TLS       *tls.Config // nil: the registry API is not encrypted
	Upstreams []upstreamSettings
	Access    *access.Config        // nil: whoever reaches the registry API may pull
	Warnings  faults                // what holds, and is likely not meant
	Signers   map[string]signingKey // of the authorities that sign pushes, by name
	HookToken string                // empty: registries can tell nothing
	UploadKey []byte                // nil: a random one

	sum     [32]byte // of everything that was read
	watched watched

	withoutKey map[string]string // see unreachable
	unsure     []string          // what is decided more strictly than by a server that knows more
}

// load reads, decodes and judges a configuration. All that is wrong with it is
// one error of type faults; another error means that it could not be read.
func load(from source, lookup func(string) (string, bool), now time.Time) (*loaded, error) {
	g, err := gather(from, lookup)
	if err != nil {
		return nil, err
	}
	return judge(g, now)
}

// loadToDecide is load for who decides about images and serves nobody, who need not have
// what only a server has to: the keys that sign pushes, the certificate of the listener,
// the users' passwords, and the secrets of hooks and uploads. All else is judged alike.
func loadToDecide(from source, lookup func(string) (string, bool), now time.Time) (*loaded, error) {
	g, err := gather(from, lookup)
	if err != nil {
		return nil, err
	}
	j := newJudgement(g, now)
	j.decides = true
	return j.judge()
}

// judge says what is wrong with g, all at once.
func judge(g gathered, now time.Time) (*loaded, error) { return newJudgement(g, now).judge() }

func newJudgement(g gathered, now time.Time) *judgement {
	return &judgement{
		config: g.config, reader: g.reader, now: now, faults: g.faults,
		modules: make(map[regoModule]*rego.Module),
		out:     &loaded{Config: g.config, ID: g.reader.id(), sum: g.reader.sum(), watched: g.reader.seen()},
	}
}

func (j *judgement) judge() (*loaded, error) {
	serves := !j.decides
	if serves {
		j.tls()
	}
	j.upstreams()
	if serves {
		j.access()
	}
	j.openness()
	j.authorities()
	j.signers()
	j.policies()
	j.pushes()
	if serves {
		j.hooks()
		j.uploadKey()
	}
	j.scopes()
	j.rules()
	if err := j.faults.sorted().err(); err != nil {
		return nil, err
	}
	return j.out, nil
}

// judgement is one judging in progress.
type judgement struct {
	config Config
	reader *reader
	now    time.Time
	faults faults
	out    *loaded

	// decides: nobody is served, see loadToDecide.
	decides bool

	modules map[regoModule]*rego.Module // that were compiled; nil: with faults
	roots   map[string]struct {         // by what they are named
		root *verifier.Root
		what string
	}
}

// content returns what a named file holds; false when it cannot be read, which
// is then reported, or when none is named.
func (j *judgement) content(f file) ([]byte, bool) {
	if f.Name == "" {
		return nil, false
	}
	data, err := j.reader.read(f.Name)
	if err != nil {
		j.fail(f, plainError(err), fileFix(err))
		return nil, false
	}
	return data, true
}

func fileFix(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it, or name another; a relative path begins where the file stands that names it"
	case errors.Is(err, fs.ErrPermission):
		return "let the user of this process read it"
	}
	return "name another file"
}

func (j *judgement) tls() {
	t := j.config.HTTP.TLS
	switch {
	case t.Certificate.Name == "" && t.Key.Name == "":
		if len(t.ClientCAs) > 0 {
			j.fail(t, "has clientCAs without a certificate", "add certificate and key")
		}
		return
	case t.Certificate.Name == "" || t.Key.Name == "":
		j.fail(t, "has one of certificate and key", "write both, or neither")
		return
	}
	certificate, ok := j.content(t.Certificate)
	key, also := j.content(t.Key)
	if !ok || !also {
		return
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		j.fail(t.Certificate, "does not make a pair with the key: "+strings.TrimPrefix(err.Error(), "tls: "), "write PEM files that belong together")
		return
	}
	j.out.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if len(t.ClientCAs) > 0 {
		j.out.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		j.out.TLS.ClientCAs = j.pool(t.ClientCAs)
		// a resumed session would outlive the authority that let it in
		j.out.TLS.SessionTicketsDisabled = true
	}
}

func (j *judgement) pool(files []file) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, f := range files {
		if data, ok := j.content(f); ok && !pool.AppendCertsFromPEM(data) {
			j.fail(f, f.Name+" holds no PEM certificate", "name a file with -----BEGIN CERTIFICATE-----")
		}
	}
	return pool
}

// openness refuses that everybody who reaches the port reads with the robot's
// credentials, unless it is said out loud.
func (j *judgement) openness() {
	host, _, err := net.SplitHostPort(j.config.HTTP.Addr.Value)
	if err != nil || isLoopback(host) || j.config.Auth.AnonymousPull || j.config.knowsCallers() {
		return
	}
	var names []string
	for _, u := range j.config.Upstreams {
		if u.Value.hasCredentials() {
			names = append(names, u.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	fix := "write under auth who may pull, or {anonymousPull: true} to allow that, or listen on loopback"
	if j.config.onCommandLine() {
		fix = "listen on loopback, or write a file for --config that says under auth who may pull, or {anonymousPull: true} to allow that, see vidimus config example"
	}
	j.fail(j.config.HTTP.Addr, fmt.Sprintf("is not a loopback address, and there are credentials for %s: everyone who reaches the port would read with them",
		enumerate(names)), fix)
}
