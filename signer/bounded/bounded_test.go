package bounded

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errRefused = errors.New("refused")

func TestACallEndsInTimeAndSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		do       func(context.Context) (string, error)
		cancel   time.Duration // when ctx ends; 0 for never
		takes    time.Duration
		want     string
		err      error // nil for none
		late     bool
		deadline bool
	}{
		"what answers":                               {func(context.Context) (string, error) { return "yes", nil }, 0, 0, "yes", nil, false, false},
		"what refuses":                               {func(context.Context) (string, error) { return "", errRefused }, 0, 0, "", errRefused, false, false},
		"what listens to its context":                {listen, 0, time.Minute, "", context.DeadlineExceeded, true, true},
		"what does not answer after its caller went": {listen, time.Second, time.Second, "", context.Canceled, false, false},
		"what does not listen":                       {nil, 0, time.Minute, "", context.DeadlineExceeded, true, true},
		"what does not listen, to nobody":            {nil, time.Second, time.Second, "", context.Canceled, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, cancel)
				}
				do := tt.do
				if do == nil {
					ended := make(chan struct{})
					defer close(ended)
					do = func(context.Context) (string, error) { <-ended; return "too late", nil }
				}
				begun := time.Now()
				got, err := Call(ctx, time.Minute, do)
				if took := time.Since(begun); took != tt.takes {
					t.Errorf("it took %v, want %v", took, tt.takes)
				}
				if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
				}
				if errors.Is(err, ErrLate) != tt.late || errors.Is(err, context.DeadlineExceeded) != tt.deadline {
					t.Errorf("%v: late %t, deadline %t", err, errors.Is(err, ErrLate), errors.Is(err, context.DeadlineExceeded))
				}
			})
		})
	}
}

func listen(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}
