package main

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// load is one request, sent on several connections at once.
type load struct {
	addr        string
	request     []byte
	connections int
	want        int64 // Content-Length of each answer
	headOnly    bool  // HEAD: no body comes
}

// timing is when things happened to the last request of a connection.
type timing struct{ sent, first, end time.Time }

// loops opens the connections, spread over as many threads as there are cores.
func (l *load) loops(requests int, stop *atomic.Bool) (loops []*loop, err error) {
	threads := min(l.connections, runtime.NumCPU())
	for i := range threads {
		share := l.connections/threads + min(1, max(0, l.connections%threads-i))
		o, err := newLoop(l, share, requests, stop)
		if err != nil {
			closeAll(loops)
			return nil, err
		}
		loops = append(loops, o)
	}
	return loops, nil
}

func closeAll(loops []*loop) {
	for _, o := range loops {
		o.close()
	}
}

// once sends the request one time on each connection, all of which are open by
// then, and returns what came of each.
func (l *load) once(ctx context.Context) ([]timing, error) {
	loops, err := l.loops(1, new(atomic.Bool))
	if err != nil {
		return nil, err
	}
	defer closeAll(loops)
	group, ctx := errgroup.WithContext(ctx)
	for _, o := range loops {
		group.Go(func() error { return o.run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, l.name(err)
	}
	var timings []timing
	for _, o := range loops {
		for _, f := range o.flows {
			timings = append(timings, f.timing)
		}
	}
	return timings, nil
}

// sustained is what a server did while a load was on it.
type sustained struct {
	requests, bytes int64
	time, cpu       time.Duration
}

// rampUp is how long a load is on before it is measured.
const rampUp = 200 * time.Millisecond

// sustain sends the request again and again and measures for a while, and then
// lets the answers under way end. cpu returns what the server has used.
func (l *load) sustain(ctx context.Context, length time.Duration, cpu func() (time.Duration, error)) (sustained, error) {
	stop := new(atomic.Bool)
	loops, err := l.loops(-1, stop)
	if err != nil {
		return sustained{}, err
	}
	defer closeAll(loops)
	group, ctx := errgroup.WithContext(ctx)
	for _, o := range loops {
		group.Go(func() error { return o.run(ctx) })
	}
	var measured sustained
	group.Go(func() error {
		defer stop.Store(true)
		var points [2]sustained
		var times [2]time.Time
		for i, wait := range []time.Duration{rampUp, length} {
			if pause(ctx, wait) != nil {
				return nil // another one has failed
			}
			used, err := cpu()
			if err != nil {
				return err
			}
			points[i].cpu, times[i] = used, time.Now()
			for _, o := range loops {
				points[i].requests += o.requests.Load()
				points[i].bytes += o.bytes.Load()
			}
		}
		measured = sustained{
			requests: points[1].requests - points[0].requests,
			bytes:    points[1].bytes - points[0].bytes,
			time:     times[1].Sub(times[0]),
			cpu:      points[1].cpu - points[0].cpu,
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return sustained{}, l.name(err)
	}
	if measured.requests == 0 && measured.bytes == 0 {
		return sustained{}, l.name(fmt.Errorf("nothing came within %v", length))
	}
	return measured, nil
}

func (l *load) name(err error) error {
	line, _, _ := bytes.Cut(l.request, []byte(" HTTP/"))
	return fmt.Errorf("%s at %s: %w", line, l.addr, err)
}
