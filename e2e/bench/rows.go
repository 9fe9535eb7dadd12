package main

import "time"

// rows are all rows but memory's, in the order in which they are measured.
func (b *bench) rows() []*row {
	everyone := []string{vidimus, distribution, nginx, direct, directNew}
	eight := func(size int64) func(sizes) []int64 {
		return func(s sizes) []int64 { return s.layers(8, size) }
	}
	one := func(s sizes) []int64 { return s.layers(1, 64*mib) }
	return []*row{
		coldManifest("cold-manifest", "cold verified manifest by tag, 20 ms", true, map[string][]bar{
			roundTrips: {{atMost: 2.2}},
			asked:      {{atMost: 3}},
		}),
		coldManifest("cold-unverified", "cold manifest by tag that the policy lets through unverified, 20 ms", false, nil),
		coldPull("cold-pull", "cold verified pull, 8 layers of 1 MiB, 20 ms", pace{Latency: latency},
			everyone, eight(mib), true, []string{direct, directNew, distribution, nginx}, bar{against: direct, atMost: 0.8}),
		coldPull("cold-pull-large", "cold verified pull, 8 layers of 8 MiB, 20 ms, 100 MB/s a stream", pace{latency, streamRate},
			everyone, eight(8*mib), true, []string{direct, directNew, distribution, nginx}, bar{against: direct, atMost: 0.5}),
		coldPull("cold-blob", "cold verified pull, one layer of 64 MiB", pace{},
			everyone, one, true, []string{nginx, distribution, direct}, bar{against: nginx, atMost: 1.1}),
		coldPull("cold-blob-counted", "the same, by a client that does not hash", pace{},
			everyone, one, false, []string{nginx, distribution, direct}, bar{against: nginx, atMost: 1.1}),
		herd("herd", "30 clients on one cold blob of 64 MiB, 100 MB/s a stream", pace{Rate: streamRate}),
		herd("herd-far", "the same, 20 ms", pace{latency, streamRate}),
		push("push", "push of one layer of 1 GiB, 100 MB/s a stream", pace{Rate: streamRate}),
		push("push-free", "the same, as fast as it goes", pace{}),
		warmManifest(),
		warmHead(),
		warmSmallBlob(),
		warmLargeBlob(),
	}
}

// Metrics of memory.
const (
	ownMemory  = "anonymous and shared"
	highMemory = "all that was resident (VmHWM)"
)

// memoryRow is not measured in turns: memory is looked at all the time.
var memoryRow = &row{
	name: "memory", title: "peak memory through all of it", servers: caches,
	metrics: []metric{
		{name: ownMemory, unit: "MiB", bars: []bar{{atMost: 80}}},
		{name: highMemory, unit: "MiB"},
	},
}

// memory returns the lines of the servers' memory.
func (b *bench) memory() []result {
	time.Sleep(memoryStep) // one more look
	samples := map[string][]sample{}
	for _, s := range b.servers {
		if s.caches() {
			peak := b.watch.peak(s.name)
			samples[s.name] = []sample{{ownMemory: float64(peak.Own) / float64(mib), highMemory: float64(peak.High) / float64(mib)}}
		}
	}
	return memoryRow.results(samples)
}
