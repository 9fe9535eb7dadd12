package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// How long, and up to what size, lines of the access log wait for each other. A
// write for each would cost half as much as the answer.
const (
	gatherTime = 100 * time.Millisecond
	gatherSize = 64 << 10
)

// logs are the log and its access lines, one stream in the order in which the
// lines came. Lines about requests that went well are gathered and written
// together; every other line is written at once, after those that wait.
type logs struct {
	log, access *slog.Logger
	out         *gatherer
}

func newLogs(c logConfig, w io.Writer) logs {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration has been checked
	}
	handler := func(w io.Writer) slog.Handler {
		options := &slog.HandlerOptions{Level: level}
		if c.Format == "text" {
			return slog.NewTextHandler(w, options)
		}
		return slog.NewJSONHandler(w, options)
	}
	out := newGatherer(w)
	now := handler(writeFunc(out.write))
	return logs{log: slog.New(now), access: slog.New(&accessHandler{now: now, later: handler(writeFunc(out.gather))}), out: out}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// accessHandler sends what can wait to one handler and what cannot to another.
type accessHandler struct {
	now, later slog.Handler
}

// Enabled implements slog.Handler.
func (h *accessHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.now.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *accessHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level > slog.LevelInfo {
		return h.now.Handle(ctx, r)
	}
	return h.later.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *accessHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &accessHandler{h.now.WithAttrs(attrs), h.later.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h *accessHandler) WithGroup(name string) slog.Handler {
	return &accessHandler{h.now.WithGroup(name), h.later.WithGroup(name)}
}

// gatherer writes lines in the order in which they come, at once or, those that
// can wait, together with others. It is safe for concurrent use.
type gatherer struct {
	writing sync.Mutex // held over writes; taken before mu
	out     io.Writer
	spare   []byte // of writing: what the next lines are gathered in

	mu      sync.Mutex
	waiting []byte
	closed  bool
	timer   *time.Timer // writes what waits
}

func newGatherer(out io.Writer) *gatherer {
	g := &gatherer{out: out}
	g.timer = time.AfterFunc(gatherTime, g.flush)
	g.timer.Stop()
	return g
}

// gather writes p within gatherTime.
func (g *gatherer) gather(p []byte) (int, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return g.write(p)
	}
	if len(g.waiting) == 0 {
		g.timer.Reset(gatherTime)
	}
	g.waiting = append(g.waiting, p...)
	full := len(g.waiting) >= gatherSize
	g.mu.Unlock()
	if full {
		g.flush()
	}
	return len(p), nil
}

// write writes p now, after what waits.
func (g *gatherer) write(p []byte) (int, error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.writeWaiting()
	return g.out.Write(p)
}

// flush writes what waits.
func (g *gatherer) flush() {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.writeWaiting()
}

func (g *gatherer) writeWaiting() {
	g.mu.Lock()
	lines := g.waiting
	g.waiting = g.spare[:0]
	g.mu.Unlock()
	if len(lines) > 0 {
		g.out.Write(lines) // an error has nowhere to go
	}
	g.spare = lines
}

// close writes what waits; what comes later is written at once.
func (g *gatherer) close() {
	g.mu.Lock()
	g.closed = true
	g.timer.Stop()
	g.mu.Unlock()
	g.flush()
}
