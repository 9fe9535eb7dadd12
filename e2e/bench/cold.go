package main

import (
	"context"
	"fmt"
	"time"
)

// latency is how far the origin is away where that matters.
const latency = 20 * time.Millisecond

// streamRate is the rate of one body where that matters, in bytes a second.
const streamRate = 100_000_000

// Metrics of cold pulls.
const (
	pullTime     = "time"
	roundTrips   = "round trips"
	asked        = "upstream requests"
	fetchedAhead = "blobs fetched ahead"
)

var caches = []string{vidimus, distribution, nginx}

// coldManifest measures one manifest by tag that nobody has asked for before.
func coldManifest(name, title string, signed bool, bars map[string][]bar) *row {
	return &row{
		name: name, title: title, servers: caches, pace: pace{Latency: latency},
		images: func(size sizes) []spec {
			return []spec{{Layers: size.layers(8, kib), Signed: signed}, {Layers: size.layers(1, kib), Signed: signed}}
		},
		sample: sampleManifest,
		metrics: []metric{
			{name: pullTime, unit: "ms", against: []string{distribution, nginx}},
			{name: roundTrips, bars: bars[roundTrips]},
			{name: asked, bars: bars[asked]},
			{name: fetchedAhead},
		},
	}
}

func sampleManifest(ctx context.Context, b *bench, t turn) (sample, error) {
	p, err := b.ready(ctx, t)
	if err != nil {
		return nil, err
	}
	defer p.close()
	wanted := t.images[1]
	before, err := b.control.settled(ctx, wanted.Repository)
	if err != nil {
		return nil, err
	}
	profiled, err := b.profile(ctx, t, time.Second)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := p.manifest(ctx, wanted); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	if err := profiled(); err != nil {
		return nil, err
	}
	after, err := b.control.settled(ctx, wanted.Repository)
	if err != nil {
		return nil, err
	}
	counted := after.since(before)
	return sample{
		pullTime:     milliseconds(took),
		roundTrips:   took.Seconds() / t.row.pace.Latency.Seconds(),
		asked:        float64(counted.total(kindBlob)),
		fetchedAhead: float64(counted.Requests[kindBlob]),
	}, nil
}

// coldPull measures a whole image that nobody has asked for before.
func coldPull(name, title string, p pace, servers []string, layers func(sizes) []int64, hashed bool, against []string, bars ...bar) *row {
	return &row{
		name: name, title: title, servers: servers, pace: p,
		images: func(size sizes) []spec {
			return []spec{{Layers: size.layers(8, kib), Signed: true}, {Layers: layers(size), Signed: true}}
		},
		sample: func(ctx context.Context, b *bench, t turn) (sample, error) {
			return samplePull(ctx, b, t, hashed)
		},
		metrics: []metric{{name: pullTime, unit: "ms", against: against, bars: bars}},
	}
}

func samplePull(ctx context.Context, b *bench, t turn, hashed bool) (sample, error) {
	p, err := b.ready(ctx, t)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if t.server.name == directNew {
		if err := p.connect(ctx); err != nil {
			return nil, err
		}
	}
	profiled, err := b.profile(ctx, t, 2*time.Second)
	if err != nil {
		return nil, err
	}
	took, err := p.pull(ctx, t.images[1], hashed)
	if err != nil {
		return nil, err
	}
	if err := profiled(); err != nil {
		return nil, err
	}
	if !hashed { // what was only counted is looked at outside of the time
		if _, err := p.pull(ctx, t.images[1], true); err != nil {
			return nil, fmt.Errorf("once more: %w", err)
		}
	}
	_, err = b.control.settled(ctx, t.images[1].Repository)
	return sample{pullTime: milliseconds(took)}, err
}

// ready returns a client whose connections were used for an earlier image, the
// first of the turn, as were those of the server to the origin. The machine's
// memory was touched before.
func (b *bench) ready(ctx context.Context, t turn) (*puller, error) {
	if err := b.touch(); err != nil {
		return nil, err
	}
	p, err := newPuller(ctx, t.server)
	if err == nil {
		_, err = p.pull(ctx, t.images[0], true)
	}
	if err == nil {
		_, err = b.control.settled(ctx, t.images[0].Repository)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("an image before the one that is measured: %w", err)
	}
	return p, nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
