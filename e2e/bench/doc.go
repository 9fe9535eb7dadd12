// Bench measures Vidimus side by side with what else could stand in its place,
// on one machine and in one run:
//
//	go run ./e2e/bench            everything, some twenty minutes
//	go run ./e2e/bench -h         what else there is
//	go run ./e2e/bench -rounds 3 -only 'cold|herd'
//
// It prints one table, with the bars beside what they ask for. It
// needs Linux, some 20 GiB in $TMPDIR, and nothing else; distribution's
// registry and nginx are measured where they are installed. Exit code 0:
// measured, whether the bars are met or not; 1: a wrong byte, a server that died
// or the like; 2: misuse.
//
// # What runs
//
// The origin is a registry in memory, this program in a second process so that
// its CPU time is nobody's. It waits before each answer for as long as the row
// says, once more before the first answer on a connection, and gives each body
// no more than a rate. It signs its images as vidimus sign does, one plain
// signature each, with a key of this run, and has no referrers API.
//
// Every cache is a process of its own with a fresh directory: Vidimus, a plain
// go build, that requires the key (vidimusConfig); distribution as its image is
// configured, as a proxy and without logs (distributionConfig); nginx as a plain
// cache (nginxConfig), which is the fastest configuration of it that was found.
// Access logs are off everywhere, and decisions are recorded, to a file.
//
// # How it is measured
//
// All servers take turns, round after round. Each figure is the median of the
// rounds, with the least and the greatest. Ratios are taken within a round.
//
// Each cold sample has new content in a new repository. Before it, what was
// written before is flushed to the disk, a large file is written and removed,
// so that the memory is not touched for the first time, and an earlier image is
// pulled, so that connections of the server to the origin, and of the client to
// the server, are open. "Direct" is the same client at the origin itself on such
// connections, "direct, new connections" without them. Clients pull as docker
// and containerd do: the manifest by tag, then the config and the layers, three
// at a time, and hash every byte, unless the row says otherwise. Round trips are
// the whole time through the latency, whatever it went by with; upstream
// requests are all that the origin saw until it was left alone, but for blobs
// that were fetched ahead of being asked for.
//
// A herd wants a blob that nothing has been fetched of, though its manifest is
// known: it stands behind as many layers as Vidimus fetches ahead. Its clients
// count bytes, and leave hashing to one pull afterwards, or thirty clients would
// measure this machine's SHA-256.
//
// A push is one blob: POST, one PATCH, PUT, over net/http, of content that was hashed
// before. The origin hashes what comes, as every registry does, and takes no more
// than the rate. "Relay that hashes" is the least that could stand in between: it
// passes on what a connection brings, by one goroutine, hashes it, and knows no HTTP.
// What it costs beyond direct is the machine's, and nobody's who hashes. Memory is looked at while it lasts, and is that of the whole process,
// after the rows before it.
//
// Warm requests come from two threads with an event loop, as wrk's do: 32
// connections, or 4 for large blobs. They look at the status and the length; the
// bytes are hashed before and after. CPU time is the server's, with all its
// processes, from /proc.
//
// Memory is looked at every 50 ms through all of it. The figure for the bar is
// RssAnon and RssShmem, what no file stands behind; VmHWM is shown beside it.
//
// # What it does not show
//
// Clients, servers and the origin share the machine's cores, so that a
// throughput is never the server's alone; the CPU times are. Loopback has no
// packet loss, no slow start and no TLS: more round trips cost more in the field
// than here. CPU times come in units of 10 ms, 1 % of a sample of two seconds
// with half a core.
package main
