package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// profile begins a CPU profile of the turn's server, when profiles were asked
// for and it is Vidimus, that covers at least the next length of time. What it
// returns waits for the profile and keeps it.
//
// One row makes several files; go tool pprof adds them up.
func (b *bench) profile(ctx context.Context, t turn, length time.Duration) (wait func() error, err error) {
	if b.profiles == "" || t.server.profile == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(b.profiles, fmt.Sprintf("%s-%d-*.pb.gz", t.row.name, t.round+1))
	if err != nil {
		return nil, err
	}
	seconds := int(max(1, (length+time.Second-1)/time.Second))
	done := make(chan error, 1)
	go func() {
		defer file.Close()
		done <- download(ctx, fmt.Sprintf("%s?seconds=%d", t.server.profile, seconds), file)
	}()
	return func() error { return <-done }, pause(ctx, 50*time.Millisecond) // until it has begun
}

func download(ctx context.Context, url string, to io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	_, err = io.Copy(to, response.Body)
	return err
}
