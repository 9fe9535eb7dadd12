package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vidimus/signer"
)

// announcement is the line that the origin prints when it listens.
type announcement struct {
	Registry  string `json:"registry"`  // address
	Control   string `json:"control"`   // address
	PublicKey string `json:"publicKey"` // PEM: who signs the images
}

// runOrigin is the origin's process: it serves until stdin ends, which it does
// when the process that started it does, however that comes about.
func runOrigin(ctx context.Context, largest int64, stdin io.Reader, stdout io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	key, err := signer.GenerateKey()
	if err != nil {
		return err
	}
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		return err
	}
	o := newOrigin(newLibrary(largest))
	said := announcement{PublicKey: string(public)}
	failed := make(chan error, 2)
	serve := func(server *http.Server) (addr string, err error) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		go func() { failed <- server.Serve(listener) }()
		return listener.Addr().String(), nil
	}
	registry, controls := o.server(), &http.Server{Handler: newControl(ctx, o, key)}
	defer registry.Close()
	defer controls.Close()
	if said.Registry, err = serve(registry); err != nil {
		return err
	}
	if said.Control, err = serve(controls); err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(said); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		ended <- err
	}()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// newControl returns the HTTP API by which the origin is told what to do.
func newControl(ctx context.Context, o *origin, key crypto.Signer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /images", func(w http.ResponseWriter, r *http.Request) {
		var specs []spec
		if err := json.NewDecoder(r.Body).Decode(&specs); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		images, err := o.fill(ctx, key, specs)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(images) // who asked has left
	})
	mux.HandleFunc("POST /pace", func(w http.ResponseWriter, r *http.Request) {
		var p pace
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Latency < 0 || p.Rate < 0 {
			http.Error(w, "want a latency and a rate", http.StatusBadRequest)
			return
		}
		o.pace.Store(&p)
		_ = json.NewEncoder(w).Encode(p)
	})
	mux.HandleFunc("GET /counters", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(o.tally.read(r.FormValue("repository")))
	})
	return mux
}

// control tells the origin what to do.
type control struct{ base string }

// images makes images. Their repositories must be new.
func (c control) images(ctx context.Context, specs []spec) (images []image, err error) {
	err = c.call(ctx, http.MethodPost, "/images", specs, &images)
	if err == nil && len(images) != len(specs) {
		err = fmt.Errorf("the origin's control: %d images in answer to a request for %d", len(images), len(specs))
	}
	return images, err
}

func (c control) setPace(ctx context.Context, p pace) error {
	return c.call(ctx, http.MethodPost, "/pace", p, &p)
}

func (c control) counters(ctx context.Context, repository string) (counted counters, err error) {
	err = c.call(ctx, http.MethodGet, "/counters?repository="+url.QueryEscape(repository), nil, &counted)
	return counted, err
}

// How long nothing may be asked of the origin until it counts as left alone,
// and how long that may take.
const (
	quietFor  = 100 * time.Millisecond
	quietStep = 10 * time.Millisecond
	quietAt   = 2 * time.Minute
)

// settled returns the counters of a repository once the origin has been left
// alone for a while, and what was asked for in the background is in them.
func (c control) settled(ctx context.Context, repository string) (counters, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, quietAt, errors.New("the origin is not left alone"))
	defer cancel()
	before, quiet := -1, time.Duration(0)
	for {
		counted, err := c.counters(ctx, repository)
		if err != nil {
			return counters{}, errors.Join(err, context.Cause(ctx))
		}
		quiet += quietStep
		if now := counted.total(); counted.InFlight > 0 || now != before {
			before, quiet = now, 0
		}
		if quiet >= quietFor {
			return counted, nil
		}
		if err := pause(ctx, quietStep); err != nil {
			return counters{}, err
		}
	}
}

func (c control) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(in); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, &body)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("the origin's control: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return fmt.Errorf("the origin's control: %s %s: %s", method, path, strings.TrimSpace(string(text)))
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
