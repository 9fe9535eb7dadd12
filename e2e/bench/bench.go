package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	rounds    int
	only      *regexp.Regexp // names of rows; nil is all
	seconds   time.Duration  // of each warm sample
	scale     float64        // of all sizes
	peers     []string
	binary    string // of Vidimus; "" builds it
	apart     bool   // servers under test have a core of their own
	profiles  string // directory; "" is none
	accessLog bool
	keep      bool
	progress  io.Writer
}

// bench is everything that runs while it is measured.
type bench struct {
	options
	dir     string
	control control
	servers []*server
	notes   []string // what a reader of the figures has to know
	started []*process
	watch   *watch
	stop    context.CancelFunc // of what runs in the background
	warm    *warmth
}

// newBench starts the origin, Vidimus, and those peers that are installed. The
// caller closes what it returns.
func newBench(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{options: o}
	if b.dir, err = os.MkdirTemp("", "vidimus-bench-"); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(ctx)
	b.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.apart {
		if err := pin(ctx, os.Getpid(), clientCore); err != nil {
			return nil, err
		}
	}
	origin, said, err := startOrigin(ctx, b.dir, b.sizes().largest())
	if err != nil {
		return nil, err
	}
	b.started = append(b.started, origin)
	b.control = control{"http://" + said.Control}
	if err := b.startVidimus(ctx, said); err != nil {
		return nil, err
	}
	for _, p := range peers {
		if err := b.startPeer(ctx, p, said); err != nil {
			return nil, err
		}
	}
	b.watch = newWatch(background, slices.Clone(b.servers))
	r, err := startRelay(ctx, b.dir, said)
	if err != nil {
		return nil, err
	}
	b.add(r)
	if b.apart {
		for _, s := range b.servers {
			if err := pin(ctx, s.cmd.Process.Pid, serverCore); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range []string{direct, directNew} {
		b.servers = append(b.servers, &server{process: origin, name: name, addr: said.Registry})
	}
	return b, nil
}

func (b *bench) startVidimus(ctx context.Context, said announcement) (err error) {
	dir, err := b.subdirectory(vidimus)
	if err != nil {
		return err
	}
	binary := b.binary
	if binary == "" {
		b.say("building Vidimus")
		if binary, err = buildVidimus(ctx, dir); err != nil {
			return err
		}
	}
	s, err := startVidimus(ctx, dir, binary, said, b.accessLog, b.profiles != "")
	if err != nil {
		return err
	}
	s.version = "Vidimus " + revision(ctx, binary, b.binary == "")
	b.add(s)
	return nil
}

// peer is what Vidimus is compared with, when it is installed.
type peer struct {
	name, program string
	start         func(ctx context.Context, dir, binary string, o announcement) (*server, error)
}

var peers = []peer{
	{distribution, "registry", startDistribution},
	{nginx, "nginx", startNginx},
}

func (b *bench) startPeer(ctx context.Context, p peer, said announcement) error {
	if !slices.Contains(b.peers, p.name) {
		return nil
	}
	binary := find(p.program)
	if binary == "" {
		b.notes = append(b.notes, fmt.Sprintf("%s is left out: the program %s is not installed", p.name, p.program))
		return nil
	}
	dir, err := b.subdirectory(p.name)
	if err != nil {
		return err
	}
	s, err := p.start(ctx, dir, binary, said)
	if err != nil {
		return err
	}
	b.add(s)
	return nil
}

func (b *bench) add(s *server) {
	b.servers = append(b.servers, s)
	b.started = append(b.started, s.process)
}

func (b *bench) subdirectory(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, os.Mkdir(dir, 0o755)
}

// close ends what was started, the origin last, and removes what it left.
func (b *bench) close() error {
	b.stop()
	if b.watch != nil {
		<-b.watch.done
	}
	for _, p := range slices.Backward(b.started) {
		p.stop()
	}
	if b.keep {
		b.say("everything is kept in %s", b.dir)
		return nil
	}
	return os.RemoveAll(b.dir)
}

// say tells of progress.
func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// blame adds to err which of the processes have died, for it is that then.
func (b *bench) blame(err error) error {
	time.Sleep(50 * time.Millisecond) // whose connection broke may still be on its way out
	for _, p := range b.started {
		err = errors.Join(err, p.check())
	}
	return err
}

// run measures all rows that were asked for.
func (b *bench) run(ctx context.Context) (*report, error) {
	rows := slices.DeleteFunc(b.rows(), func(r *row) bool { return !b.wanted(r.name) })
	b.say("making images")
	turns, err := b.prepare(ctx, rows)
	if err != nil {
		return nil, err
	}
	var all []result
	for _, r := range rows {
		lines, err := b.measure(ctx, r, turns[r.name])
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	if b.wanted(memoryRow.name) {
		all = append(all, b.memory()...)
	}
	for _, p := range b.started {
		if err := p.check(); err != nil {
			return nil, err
		}
		if n := p.logged(); n > 0 && !b.accessLog {
			b.notes = append(b.notes, fmt.Sprintf("%s logged %d lines, which -keep keeps.", p.name, n))
		}
	}
	return &report{Machine: machine(b.dir, b.servers), Method: b.method(), Notes: b.notes, Results: all}, nil
}

func (b *bench) wanted(name string) bool { return b.only == nil || b.only.MatchString(name) }

// measure runs a row: all servers in turn, round after round.
func (b *bench) measure(ctx context.Context, r *row, turns []turn) ([]result, error) {
	if r.before != nil {
		if err := b.control.setPace(ctx, pace{}); err != nil {
			return nil, b.blame(err)
		}
		if err := r.before(ctx, b); err != nil {
			return nil, b.blame(fmt.Errorf("%s: %w", r.name, err))
		}
	}
	if err := b.control.setPace(ctx, r.pace); err != nil {
		return nil, b.blame(err)
	}
	samples := map[string][]sample{}
	for _, t := range turns {
		b.say("%s: round %d of %d: %s", r.name, t.round+1, b.rounds, t.server.name)
		runtime.GC()
		got, err := r.sample(ctx, b, t)
		if err != nil {
			return nil, b.blame(fmt.Errorf("%s: %s: %w", r.name, t.server.name, err))
		}
		samples[t.server.name] = append(samples[t.server.name], got)
	}
	return r.results(samples), nil
}

// prepare returns the turns of each row in their order, with their images. They
// are made all at once, for that takes a second however many they are.
func (b *bench) prepare(ctx context.Context, rows []*row) (map[string][]turn, error) {
	turns := map[string][]turn{}
	var specs []spec
	var places []*image // of each spec
	for _, r := range rows {
		for round := range b.rounds {
			for _, s := range b.servers {
				if !slices.Contains(r.servers, s.name) {
					continue
				}
				t := turn{row: r, server: s, round: round}
				if r.images != nil {
					wanted := r.images(b.sizes())
					t.images = make([]image, len(wanted))
					for i, w := range wanted {
						w.Repository = repositoryName(w.Signed, fmt.Sprintf("%s/%s/r%d-%d", r.name, strings.ReplaceAll(s.name, " ", "-"), round, i))
						specs, places = append(specs, w), append(places, &t.images[i])
					}
				}
				turns[r.name] = append(turns[r.name], t)
			}
		}
	}
	made, err := b.control.images(ctx, specs)
	if err != nil {
		return nil, b.blame(err)
	}
	for i, place := range places {
		*place = made[i]
	}
	return turns, nil
}

// repositoryName puts what is not signed where the policy lets it through.
func repositoryName(signed bool, name string) string {
	if signed {
		return "bench/" + name
	}
	return "unverified/" + name
}
