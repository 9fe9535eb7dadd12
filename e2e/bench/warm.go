package main

import (
	"context"
	"fmt"
	"time"
)

// Metrics of warm requests.
const (
	byTag          = "requests/s by tag"
	cpuByTag       = "CPU for each request by tag"
	byDigest       = "requests/s by digest"
	cpuByDigest    = "CPU for each request by digest"
	perSecond      = "requests/s"
	cpuRequest     = "CPU for each request"
	throughput     = "throughput"
	cpuThroughput  = "CPU"
	manyClients    = 32
	largeClients   = 4
	largeBlob      = 256 * mib
	bytesInGB      = 1e9
	microsInSecond = 1e6
)

// warmth is what every cache has been asked for before anything warm is
// measured.
type warmth struct {
	small image // one layer of 1 KiB
	large image // one layer of 256 MiB
}

// heat pulls the warm images through every cache, once.
func heat(ctx context.Context, b *bench) error {
	if b.warm != nil {
		return nil
	}
	made, err := b.control.images(ctx, []spec{
		{Repository: repositoryName(true, "warm/small"), Layers: b.sizes().layers(1, kib), Signed: true},
		{Repository: repositoryName(true, "warm/large"), Layers: b.sizes().layers(1, largeBlob), Signed: true},
	})
	if err != nil {
		return err
	}
	for _, s := range b.servers {
		if !s.caches() {
			continue
		}
		p, err := newPuller(ctx, s)
		if err != nil {
			return err
		}
		defer p.close()
		for _, i := range made {
			for range 2 { // and once from the cache, to see that it holds
				if _, err := p.pull(ctx, i, true); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
			}
		}
	}
	b.warm = &warmth{small: made[0], large: made[1]}
	return nil
}

func warmManifest() *row {
	return &row{
		name: "warm-manifest", title: fmt.Sprintf("warm manifest, %d connections", manyClients),
		servers: caches, before: heat,
		sample: func(ctx context.Context, b *bench, t turn) (sample, error) {
			i := b.warm.small
			tagged, err := b.sustain(ctx, t, "GET", t.server.manifest(i.Repository, tag), i.Manifest, manyClients)
			if err != nil {
				return nil, err
			}
			digested, err := b.sustain(ctx, t, "GET", t.server.manifest(i.Repository, i.Manifest.Digest), i.Manifest, manyClients)
			return sample{
				byTag: tagged.perSecond(), cpuByTag: tagged.cpuRequest(),
				byDigest: digested.perSecond(), cpuByDigest: digested.cpuRequest(),
			}, err
		},
		metrics: []metric{
			{name: byTag, against: []string{distribution, nginx}, bars: []bar{{against: distribution, atLeast: 40}}},
			{name: cpuByTag, unit: "µs", against: []string{nginx}, bars: []bar{{against: nginx, atMost: 1.6}}},
			{name: byDigest, against: []string{nginx}, bars: []bar{{against: distribution, metric: byTag, atLeast: 40}}},
			{name: cpuByDigest, unit: "µs", against: []string{nginx}, bars: []bar{{against: nginx, atMost: 1.6}}},
		},
	}
}

func warmHead() *row {
	return &row{
		name: "warm-head", title: fmt.Sprintf("warm HEAD of a manifest by tag, %d connections", manyClients),
		servers: caches, before: heat,
		sample: func(ctx context.Context, b *bench, t turn) (sample, error) {
			i := b.warm.small
			done, err := b.sustain(ctx, t, "HEAD", t.server.manifest(i.Repository, tag), i.Manifest, manyClients)
			return sample{perSecond: done.perSecond(), cpuRequest: done.cpuRequest()}, err
		},
		metrics: []metric{
			{name: perSecond, against: []string{distribution, nginx}},
			{name: cpuRequest, unit: "µs", against: []string{nginx}},
		},
	}
}

func warmSmallBlob() *row {
	return &row{
		name: "warm-small-blob", title: fmt.Sprintf("warm blob of 1 KiB, %d connections", manyClients),
		servers: caches, before: heat,
		sample: func(ctx context.Context, b *bench, t turn) (sample, error) {
			i := b.warm.small
			done, err := b.sustain(ctx, t, "GET", t.server.blob(i.Repository, i.Layers[0].Digest), i.Layers[0], manyClients)
			return sample{perSecond: done.perSecond(), cpuRequest: done.cpuRequest()}, err
		},
		metrics: []metric{
			{name: perSecond, against: []string{distribution, nginx}},
			{name: cpuRequest, unit: "µs", against: []string{nginx}, bars: []bar{{against: nginx, atMost: 1.8}}},
		},
	}
}

func warmLargeBlob() *row {
	return &row{
		name: "warm-large-blob", title: fmt.Sprintf("warm blob of 256 MiB, %d clients", largeClients),
		servers: caches, before: heat,
		sample: func(ctx context.Context, b *bench, t turn) (sample, error) {
			i := b.warm.large
			done, err := b.sustain(ctx, t, "GET", t.server.blob(i.Repository, i.Layers[0].Digest), i.Layers[0], largeClients)
			gb := float64(done.bytes) / bytesInGB
			return sample{throughput: gb / done.time.Seconds(), cpuThroughput: done.cpu.Seconds() / gb}, err
		},
		metrics: []metric{
			{name: throughput, unit: "GB/s", against: []string{distribution, nginx}, bars: []bar{{against: nginx, atLeast: 1}}},
			{name: cpuThroughput, unit: "s/GB", against: []string{nginx}, bars: []bar{{against: nginx, atMost: 1.1}}},
		},
	}
}

func (s sustained) perSecond() float64 { return float64(s.requests) / s.time.Seconds() }

func (s sustained) cpuRequest() float64 {
	return s.cpu.Seconds() * microsInSecond / float64(s.requests)
}

// sustain puts a load on a server for a while. What it sends is hashed before
// and after, for the load itself only looks at the lengths.
func (b *bench) sustain(ctx context.Context, t turn, method, path string, p part, clients int) (sustained, error) {
	if err := b.checkOnce(ctx, t.server, path, p); err != nil {
		return sustained{}, err
	}
	profiled, err := b.profile(ctx, t, rampUp+b.seconds)
	if err != nil {
		return sustained{}, err
	}
	l := load{addr: t.server.addr, request: request(method, t.server.addr, path), connections: clients, want: p.Size, headOnly: method == "HEAD"}
	done, err := l.sustain(ctx, b.seconds, func() (time.Duration, error) { return cpuTime(t.server.cmd.Process.Pid) })
	if err != nil {
		return sustained{}, err
	}
	if err := profiled(); err != nil {
		return sustained{}, err
	}
	return done, b.checkOnce(ctx, t.server, path, p)
}

func (b *bench) checkOnce(ctx context.Context, s *server, path string, p part) error {
	c, err := dial(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.get(ctx, path, p, true)
}
