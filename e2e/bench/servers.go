package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// Names of what is measured.
const (
	vidimus      = "vidimus"
	distribution = "distribution"
	nginx        = "nginx"
	relay        = "relay"      // what does nothing but hash
	direct       = "direct"     // the origin, on connections that were used before
	directNew    = "direct new" // the origin, on new connections
)

// server is something that images are pulled from.
type server struct {
	*process
	name    string
	version string
	addr    string
	prefix  string // of repositories
	profile string // base URL of profiles; "" for none
}

func (s *server) manifest(repository, reference string) string {
	return "/v2/" + s.prefix + repository + "/manifests/" + reference
}

func (s *server) blob(repository, digest string) string {
	return "/v2/" + s.prefix + repository + "/blobs/" + digest
}

// caches reports whether the server is one under test, and not the origin or what
// stands before it.
func (s *server) caches() bool { return slices.Contains(caches, s.name) }

// startOrigin starts this program once more, as the origin.
func startOrigin(ctx context.Context, dir string, largest int64) (*process, announcement, error) {
	var said announcement
	p, err := startSelf(ctx, "origin", dir, &said, originCommand, strconv.FormatInt(largest, 10))
	return p, said, err
}

// startRelay starts this program once more, as the relay in front of the origin.
func startRelay(ctx context.Context, dir string, o announcement) (*server, error) {
	s := &server{name: relay}
	var err error
	s.process, err = startSelf(ctx, relay, dir, &s.addr, relayCommand, o.Registry)
	return s, err
}

// startSelf starts this program once more, until its standard input closes, and
// reads into said what it says first, a line of JSON.
func startSelf(ctx context.Context, name, dir string, said any, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	lines := make(chan []byte, 1)
	go func() {
		line, _ := bufio.NewReader(reader).ReadBytes('\n')
		lines <- line
		_, _ = io.Copy(io.Discard, reader)
	}()
	p, err := start(ctx, name, dir, cmd, func(context.Context) error {
		select {
		case line := <-lines:
			return json.Unmarshal(line, said)
		default:
			return errors.New("it has not said where it listens")
		}
	})
	if err != nil {
		_ = stdin.Close()
		return nil, err
	}
	return p, nil
}

// buildVidimus builds the program of this module into dir, as go build does
// unless it is told otherwise.
func buildVidimus(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "vidimus")
	const program = "vidimus/cmd/vidimus"
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, program).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", program, err, out)
	}
	return path, nil
}

// vidimusConfig requires the signature of everything but two branches. It logs
// what is wrong and nothing else, for the access logs of the others are off.
const vidimusConfig = `version: 1
http: {addr: %q}
metrics: {addr: %q}
cache: {directory: cache}
upstreams:
  origin: {url: "http://%s"}
egress: {proxy: none}
authorities:
  bench: {keys: [bench.pub]}
policies:
  - {match: "origin/unverified/**", allow: unverified}
  - {match: "origin/pushed/**", allow: unverified, push: unsigned}
  - {match: "origin/**", require: bench}
decisions: {path: decisions.jsonl}
log: {level: %s}
`

func startVidimus(ctx context.Context, dir, binary string, o announcement, accessLog, profiles bool) (*server, error) {
	addr, errAddr := freeAddr()
	metrics, errMetrics := freeAddr()
	if err := errors.Join(errAddr, errMetrics); err != nil {
		return nil, err
	}
	level := "warn"
	if accessLog {
		level = "info"
	}
	config := filepath.Join(dir, "vidimus.yaml")
	err := errors.Join(
		os.WriteFile(config, fmt.Appendf(nil, vidimusConfig, addr, metrics, o.Registry, level), 0o644),
		os.WriteFile(filepath.Join(dir, "bench.pub"), []byte(o.PublicKey), 0o644),
	)
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--config", config}
	s := &server{name: vidimus, addr: addr, prefix: upstreamName + "/"}
	if profiles {
		args = append(args, "--pprof")
		s.profile = "http://" + metrics + "/debug/pprof/profile"
	}
	s.process, err = start(ctx, vidimus, dir, exec.Command(binary, args...), answers("http://"+metrics+"/readyz"))
	return s, err
}

// distributionConfig is the configuration that distribution's image comes
// with, as a proxy, and without its logs.
const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: %q}
http: {addr: %q, secret: bench}
proxy: {remoteurl: "http://%s"}
`

func startDistribution(ctx context.Context, dir, binary string, o announcement) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "registry.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, distributionConfig, filepath.Join(dir, "cache"), addr, o.Registry), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s := &server{name: distribution, version: "distribution " + moduleVersion(binary), addr: addr}
	s.process, err = start(ctx, distribution, dir, cmd, answers("http://"+addr+"/v2/"))
	return s, err
}

// nginxConfig is a plain cache as somebody would write it who wants it to be
// fast: answers stay on their connections, one request fills the cache while
// others wait, what was buffered goes out with sendfile, buffers are large
// enough for blobs, no connection is closed after a thousand requests, and what
// is pushed is passed on as it comes.
const nginxConfig = `%sdaemon off;
worker_processes auto;
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  open_file_cache off;
  client_max_body_size 0;
  client_body_buffer_size 128k;
  client_body_temp_path body;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  proxy_temp_path proxy;
  proxy_cache_path cache levels=1:2 keys_zone=bench:16m inactive=1d max_size=100g use_temp_path=off;
  upstream origin {
    server %s;
    keepalive 64;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }
  server {
    listen %s;
    location /v2/ {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffers 16 128k;
      proxy_buffer_size 128k;
      proxy_busy_buffers_size 256k;
      proxy_cache bench;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
      proxy_cache_lock_age 1h;
    }
  }
}
`

func startNginx(ctx context.Context, dir, binary string, o announcement) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // the directory is nobody else's
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, user, o.Registry, addr), 0o644); err != nil {
		return nil, err
	}
	s := &server{name: nginx, version: "nginx " + lastWord(output(ctx, binary, "-v"), "/"), addr: addr}
	s.process, err = start(ctx, nginx, dir, exec.Command(binary, "-p", dir, "-c", config, "-e", "stderr"), listens(addr))
	return s, err
}
