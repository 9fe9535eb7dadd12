package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes is a writer that remembers each write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

// messages are those of each write, in the text format.
func (w *writes) messages() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []string
	for _, write := range w.all {
		var messages []string
		for line := range strings.Lines(write) {
			_, message, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "msg=")
			messages = append(messages, message)
		}
		found = append(found, strings.Join(messages, " "))
	}
	return found
}

var plainLog = logConfig{Level: "info", Format: "text"}

func TestAccessLinesAreWrittenTogether(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(l logs)
		want []string
	}{
		"after a while": {func(l logs) {
			l.access.Info("a")
			time.Sleep(gatherTime / 2)
			l.access.Info("b")
			time.Sleep(gatherTime / 2)
			synctest.Wait()
			l.access.Info("c")
			time.Sleep(gatherTime)
			synctest.Wait()
		}, []string{"a b", "c"}},
		"before a warning among them": {func(l logs) {
			l.access.Info("a")
			l.access.Warn("b")
			l.access.Info("c")
		}, []string{"a", "b"}},
		"before every other line": {func(l logs) {
			l.access.Info("a")
			l.log.Info("b")
			l.log.Error("c")
			l.access.Info("d")
		}, []string{"a", "b", "c"}},
		"at the end, and one by one after it": {func(l logs) {
			l.access.Info("a")
			l.access.Info("b")
			l.out.close()
			l.access.Info("c")
			l.log.Info("d")
			l.out.close()
		}, []string{"a b", "c", "d"}},
		"not at all when nothing came": {func(l logs) {
			time.Sleep(time.Minute)
			l.out.close()
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &writes{}
				l := newLogs(plainLog, w)
				test.do(l)
				if got := w.messages(); !slices.Equal(got, test.want) {
					t.Errorf("%q, want %q", got, test.want)
				}
				l.out.close()
			})
		})
	}
}

func TestNoAccessLineIsLost(t *testing.T) {
	w := &writes{}
	l := newLogs(plainLog, w)
	var crowd sync.WaitGroup
	const clients, requests = 8, 500
	for client := range clients {
		crowd.Go(func() {
			for i := range requests {
				if i%100 == 99 {
					l.log.Info(fmt.Sprintf("%d/%d", client, i))
				} else {
					l.access.Info(fmt.Sprintf("%d/%d", client, i), "padding", strings.Repeat("x", 200))
				}
			}
		})
	}
	crowd.Wait()
	l.out.close()
	next := make([]int, clients)
	for _, write := range w.all {
		if len(write) > gatherSize+clients*1024 {
			t.Errorf("%d bytes in one write", len(write))
		}
		for line := range strings.Lines(write) {
			var client, i int
			_, message, _ := strings.Cut(line, "msg=")
			if _, err := fmt.Sscanf(message, "%d/%d", &client, &i); err != nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%q: %v", line, err)
			}
			if next[client] != i {
				t.Fatalf("client %d: line %d comes where %d should", client, i, next[client])
			}
			next[client]++
		}
	}
	for client, n := range next {
		if n != requests {
			t.Errorf("client %d: %d lines", client, n)
		}
	}
}

// An access line looks as every other line does.
func TestAccessLinesLookAsOthersDo(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out, want bytes.Buffer
		l := newLogs(logConfig{Level: "info", Format: format}, &out)
		var plain slog.Handler = slog.NewJSONHandler(&want, nil)
		if format == "text" {
			plain = slog.NewTextHandler(&want, nil)
		}
		record := accessLine(time.Unix(1, 2))
		for _, handler := range []slog.Handler{l.access.With("a", 1).WithGroup("g").Handler(), l.access.Handler()} {
			if err := handler.Handle(t.Context(), record); err != nil {
				t.Fatal(err)
			}
		}
		l.out.close()
		plain.WithAttrs([]slog.Attr{slog.Int("a", 1)}).WithGroup("g").Handle(t.Context(), record)
		plain.Handle(t.Context(), record)
		if out.String() != want.String() || want.Len() == 0 {
			t.Errorf("%s, want %s", out.String(), want.String())
		}
	}
	var out bytes.Buffer
	l := newLogs(logConfig{Level: "warn", Format: "json"}, &out)
	l.access.Info("a")
	l.access.Warn("b")
	if l.out.close(); strings.Count(out.String(), "\n") != 1 {
		t.Errorf("with the level warn: %s", out.String())
	}
}

func accessLine(now time.Time) slog.Record {
	line := slog.NewRecord(now, slog.LevelInfo, "request", 0)
	line.AddAttrs(
		slog.String("id", "9aa1ede359e30b9a"), slog.String("client", "127.0.0.1"), slog.String("method", "GET"),
		slog.String("path", "/v2/local/acme/web/manifests/v1"), slog.String("repository", "local/acme/web"), slog.String("reference", "v1"),
		slog.Int("status", 200), slog.Int64("bytes", 1146), slog.Float64("seconds", 0.000017687), slog.String("userAgent", "containerd/2.3"),
	)
	return line
}

func BenchmarkAccessLine(b *testing.B) {
	for _, format := range []string{"json", "text"} {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			l := newLogs(logConfig{Level: "info", Format: format}, io.Discard)
			defer l.out.close()
			handler, now := l.access.Handler(), time.Now()
			for b.Loop() {
				handler.Handle(context.Background(), accessLine(now))
			}
		})
	}
}
