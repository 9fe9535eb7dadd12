package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Metrics of a push.
const (
	pushTime   = "time of a push"
	pushCPU    = "CPU"
	pushMemory = "memory meanwhile, anonymous and shared"
)

// push measures one large layer that nobody has pushed before, against the same push
// to the origin itself, which hashes what comes as every registry does; through
// nginx, which passes it on and looks at nothing; and through a relay, which hashes.
func push(name, title string, p pace) *row {
	return &row{
		name: name, title: title, servers: []string{vidimus, nginx, relay, direct}, pace: p,
		sample: samplePush,
		metrics: []metric{
			{name: pushTime, unit: "ms", against: []string{direct, nginx, relay}, bars: []bar{{against: direct, atMost: 1.1}}},
			{name: pushCPU, unit: "s", against: []string{nginx, relay}},
			{name: pushMemory, unit: "MiB", bars: []bar{{atMost: 64}}},
		},
	}
}

func samplePush(ctx context.Context, b *bench, t turn) (sample, error) {
	layer := newPushed(fmt.Sprintf("%s %s %d", t.row.name, t.server.name, t.round), b.sizes().of(1024*mib))
	p := &pusher{server: t.server, client: &http.Client{Transport: &http.Transport{WriteBufferSize: readSize}}}
	defer p.client.CloseIdleConnections()
	repository := "pushed/" + t.row.name
	// what comes first finds connections open, as in the other rows
	if err := p.push(ctx, repository, newPushed(layer.own+" before", kib)); err != nil {
		return nil, err
	}
	profiled, err := b.profile(ctx, t, 2*time.Second)
	if err != nil {
		return nil, err
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	w := newWatch(watched, []*server{t.server})
	before, err := cpuTime(t.server.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := p.push(ctx, repository, layer); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	after, err := cpuTime(t.server.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	stop()
	<-w.done
	if err := profiled(); err != nil {
		return nil, err
	}
	s := sample{pushTime: milliseconds(took), pushCPU: (after - before).Seconds()}
	if t.server.caches() {
		w.look(t.server.name, map[int]procStat{t.server.cmd.Process.Pid: {}}) // a push may be too short to have been looked at
		s[pushMemory] = float64(w.peak(t.server.name).Own) / float64(mib)
	}
	return s, nil
}

// pushed is a layer: one piece over and over again, and what makes it its own.
type pushed struct {
	piece  []byte
	size   int64
	own    string
	digest string
}

// newPushed makes a layer of size bytes, and hashes it, as a client has before it
// pushes.
func newPushed(own string, size int64) *pushed {
	random := rand.NewChaCha8(sha256.Sum256([]byte(own)))
	p := &pushed{piece: make([]byte, min(size, mib)), size: size, own: own}
	_, _ = random.Read(p.piece) // never fails
	h := sha256.New()
	_, _ = p.reader().WriteTo(h) // a hash takes everything
	p.digest = digestOf(h)
	return p
}

func (p *pushed) reader() *pushedReader { return &pushedReader{p.piece, 0, p.size} }

// pushedReader is the content of a layer.
type pushedReader struct {
	piece []byte
	at    int64
	size  int64
}

// next is what comes next, at most a piece.
func (r *pushedReader) next() []byte {
	data := r.piece[r.at%int64(len(r.piece)):]
	return data[:min(int64(len(data)), r.size-r.at)]
}

// Read implements io.Reader.
func (r *pushedReader) Read(p []byte) (int, error) {
	if r.at == r.size {
		return 0, io.EOF
	}
	n := copy(p, r.next())
	r.at += int64(n)
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *pushedReader) WriteTo(w io.Writer) (written int64, err error) {
	for r.at < r.size {
		n, err := w.Write(r.next())
		r.at, written = r.at+int64(n), written+int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// pusher is a client of one server that pushes.
type pusher struct {
	server *server
	client *http.Client
}

// push pushes a blob as docker and containerd do: POST, one PATCH, PUT.
func (p *pusher) push(ctx context.Context, repository string, content *pushed) error {
	base := "http://" + p.server.addr
	location, err := p.send(ctx, http.MethodPost, base+"/v2/"+p.server.prefix+repository+"/blobs/uploads/", nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	if location, err = p.send(ctx, http.MethodPatch, location, content.reader(), content.size, http.StatusAccepted); err != nil {
		return err
	}
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	_, err = p.send(ctx, http.MethodPut, location+separator+"digest="+url.QueryEscape(content.digest), nil, 0, http.StatusCreated)
	return err
}

// send sends one request and returns where the upload goes on.
func (p *pusher) send(ctx context.Context, method, target string, body io.Reader, size int64, status int) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return "", err
	}
	request.ContentLength = size
	if body != nil {
		request.Header.Set("Content-Type", "application/octet-stream")
	}
	response, err := p.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 512))
	if err != nil {
		return "", err
	}
	if response.StatusCode != status {
		return "", fmt.Errorf("%s %s: %w: %s: %s", method, target, errWrong, response.Status, text)
	}
	location, err := response.Location()
	if err != nil {
		return "", errors.Join(errWrong, err)
	}
	return location.String(), nil
}
