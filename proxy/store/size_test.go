package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"testing"
)

// TestTheLargestSizeIsOneLikeOthers: manifests say how large a blob is, and upstreams
// may say nothing.
func TestTheLargestSizeIsOneLikeOthers(t *testing.T) {
	for name, directory := range map[string]string{"in memory": "", "in a directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := mustOpen(t, Config{Directory: directory, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			data := sample(1, 3*chunkSize)
			_, err := readFetch(t, s, data, math.MaxInt64, func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
				return io.NopCloser(bytes.NewReader(data[offset:])), -1, nil
			})
			if _, ok := errors.AsType[*MismatchError](err); !ok {
				t.Errorf("got %v, want a mismatch", err)
			}
			if bytes.Contains(log.Bytes(), []byte("panic")) {
				t.Errorf("log:\n%s", &log)
			}
		})
	}
}
