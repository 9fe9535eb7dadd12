package main

import (
	"context"
	"fmt"
	"time"
)

const (
	herdSize = 30
	// frontLayers stand before the blob that the herd wants: Vidimus fetches at
	// most 16 blobs of a manifest ahead, and the blob is to be cold.
	frontLayers = 17
)

// Metrics of a herd.
const (
	transfers    = "transfers"
	slowestFirst = "slowest first byte"
	herdTime     = "time until all have it"
	aloneTime    = "time of one client alone"
	herdOverOne  = "herd's time / one client's"
)

// herd measures many clients that want the same cold blob at the same moment,
// beside one client that wants another one.
func herd(name, title string, p pace) *row {
	return &row{
		name: name, title: title, servers: caches, pace: p,
		images: func(size sizes) []spec {
			layers := append(size.layers(frontLayers, kib), size.of(64*mib))
			return []spec{{Layers: size.layers(8, kib), Signed: true}, {Layers: layers, Signed: true}, {Layers: layers, Signed: true}}
		},
		sample: sampleHerd,
		metrics: []metric{
			{name: transfers, bars: []bar{{atMost: 1}}},
			{name: slowestFirst, unit: "ms", against: []string{nginx}, bars: []bar{{atMost: 25}}},
			{name: herdTime, unit: "ms", against: []string{distribution, nginx}},
			{name: aloneTime, unit: "ms", against: []string{nginx}},
			{name: herdOverOne, bars: []bar{{atMost: 1.1}}},
		},
	}
}

func sampleHerd(ctx context.Context, b *bench, t turn) (sample, error) {
	p, err := b.ready(ctx, t)
	if err != nil {
		return nil, err
	}
	defer p.close()
	_, alone, _, err := b.stampede(ctx, p, t, t.images[1], 1)
	if err != nil {
		return nil, fmt.Errorf("one client: %w", err)
	}
	if err := b.touch(); err != nil {
		return nil, err
	}
	first, all, fetched, err := b.stampede(ctx, p, t, t.images[2], herdSize)
	if err != nil {
		return nil, fmt.Errorf("%d clients: %w", herdSize, err)
	}
	return sample{
		transfers:    fetched,
		slowestFirst: milliseconds(first),
		herdTime:     milliseconds(all),
		aloneTime:    milliseconds(alone),
		herdOverOne:  all.Seconds() / alone.Seconds(),
	}, nil
}

// stampede gets the last layer of an image on several connections at once. It
// returns how long the slowest waited for its first byte, how long it took until
// all had it, and how many times the origin sent it.
func (b *bench) stampede(ctx context.Context, p *puller, t turn, i image, clients int) (first, all time.Duration, fetched float64, err error) {
	if err := p.manifest(ctx, i); err != nil {
		return 0, 0, 0, err
	}
	before, err := b.control.settled(ctx, i.Repository)
	if err != nil {
		return 0, 0, 0, err
	}
	wanted := i.Layers[len(i.Layers)-1]
	if n := before.Bytes[wanted.Digest]; n > 0 {
		return 0, 0, 0, fmt.Errorf("%d bytes of the blob were fetched ahead, and it was to be cold: put more layers before it", n)
	}
	path := t.server.blob(i.Repository, wanted.Digest)
	l := load{addr: t.server.addr, request: request("GET", t.server.addr, path), connections: clients, want: wanted.Size}
	profiled, err := b.profile(ctx, t, 2*time.Second)
	if err != nil {
		return 0, 0, 0, err
	}
	timings, err := l.once(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	begun, ended := timings[0].sent, timings[0].end
	for _, c := range timings {
		first = max(first, c.first.Sub(c.sent))
		if c.sent.Before(begun) {
			begun = c.sent
		}
		if c.end.After(ended) {
			ended = c.end
		}
	}
	if err := profiled(); err != nil {
		return 0, 0, 0, err
	}
	after, err := b.control.settled(ctx, i.Repository)
	if err != nil {
		return 0, 0, 0, err
	}
	// The herd only counted, so that it leaves the cores to the servers.
	if err := p.connections[0].get(ctx, path, wanted, true); err != nil {
		return 0, 0, 0, fmt.Errorf("once more: %w", err)
	}
	return first, ended.Sub(begun), float64(after.Bytes[wanted.Digest]) / float64(wanted.Size), nil
}
