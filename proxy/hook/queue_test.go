package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func jobFor(tag string) Job {
	return Job{
		ID: "id-" + tag, Repository: "local/acme/web", Tag: tag, Digest: "sha256:" + strings.Repeat("0a", 32), Client: "192.0.2.1",
		Told: time.Now(),
	}
}

func mustOpen(t *testing.T, directory string) *Queue {
	t.Helper()
	q, err := Open(directory, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func mustAdd(t *testing.T, q *Queue, event string, job Job) {
	t.Helper()
	if added, err := q.Add(event, job); !added || err != nil {
		t.Fatalf("%s was not added: %v", job.Tag, err)
	}
}

// tried collects when jobs are tried, and answers what fail says.
type tried struct {
	mu    sync.Mutex
	begin time.Time
	log   []string
	gone  []error
	fail  func(job *Job, attempt int) error
}

func (w *tried) worker() Worker {
	return Worker{
		Do: func(_ context.Context, job *Job) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.log = append(w.log, fmt.Sprintf("%s at %v", job.Tag, time.Since(w.begin)))
			if w.fail == nil {
				return nil
			}
			return w.fail(job, len(w.log))
		},
		GiveUp: func(_ context.Context, _ Job, last error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone = append(w.gone, last)
		},
	}
}

// run runs q for so long.
func (w *tried) run(t *testing.T, q *Queue, so time.Duration) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), so)
	defer stop()
	q.Run(ctx, w.worker())
}

func TestWhatFailsIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, "")
		mustAdd(t, q, "1", jobFor("v1"))
		w := &tried{begin: time.Now(), fail: func(_ *Job, attempt int) error {
			if attempt < 5 {
				return errors.New("not yet")
			}
			return nil
		}}
		w.run(t, q, time.Hour)
		if want := []string{"v1 at 0s", "v1 at 1s", "v1 at 3s", "v1 at 7s", "v1 at 15s"}; !slices.Equal(w.log, want) {
			t.Errorf("tried %q, want %q", w.log, want)
		}
		if q.Len() != 0 {
			t.Errorf("%d jobs are left", q.Len())
		}
	})
}

func TestAJobIsGivenUpAfterADayAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, t.TempDir())
		mustAdd(t, q, "1", jobFor("v1"))
		never := errors.New("never")
		w := &tried{begin: time.Now(), fail: func(*Job, int) error { return never }}
		w.run(t, q, 2*MaxKept)
		if len(w.gone) != 1 || !errors.Is(w.gone[0], never) || q.Len() != 0 {
			t.Errorf("given up: %v; %d jobs are left", w.gone, q.Len())
		}
		if most := int(MaxKept/longestPause) + 11; len(w.log) > most || len(w.log) < most-3 {
			t.Errorf("it was tried %d times", len(w.log))
		}
	})
}

func TestADoneJobEndsAndAPanicDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, "")
		mustAdd(t, q, "1", jobFor("v1"))
		w := &tried{begin: time.Now(), fail: func(_ *Job, attempt int) error {
			if attempt == 1 {
				panic("once")
			}
			return fmt.Errorf("moved: %w", ErrDone)
		}}
		w.run(t, q, time.Hour)
		if len(w.log) != 2 || q.Len() != 0 {
			t.Errorf("tried %q, %d jobs are left", w.log, q.Len())
		}
	})
}

func TestTheSameEventIsTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, "")
		mustAdd(t, q, "1", jobFor("v1"))
		new(tried).run(t, q, time.Minute) // it is done
		if added, err := q.Add("1", jobFor("v1")); added || err != nil {
			t.Errorf("the same event was taken again: %v", err)
		}
		mustAdd(t, q, "1", jobFor("v2")) // another tag in it
		mustAdd(t, q, "2", jobFor("v1"))
		if added, _ := q.Add("3", jobFor("v1")); added || q.Len() != 2 {
			t.Errorf("the job is there twice: %d", q.Len())
		}
		time.Sleep(3 * MaxAge)
		new(tried).run(t, q, time.Minute)
		mustAdd(t, q, "1", jobFor("v1"))
		if len(q.seen) != 1 || len(q.told) != 1 {
			t.Errorf("%d events are remembered, %d", len(q.seen), len(q.told))
		}
	})
}

// A tag may be moved away and back while its job is worked on, which may have seen it
// when it was elsewhere.
func TestWhatIsToldDuringTheWorkIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory := t.TempDir()
		q := mustOpen(t, directory)
		mustAdd(t, q, "1", jobFor("v1"))
		w := &tried{begin: time.Now(), fail: func(_ *Job, attempt int) error {
			if attempt == 1 {
				if added, err := q.Add("2", jobFor("v1")); added || err != nil {
					t.Errorf("added %v, %v", added, err)
				}
			}
			return ErrDone
		}}
		w.run(t, q, time.Hour)
		if len(w.log) != 2 || q.Len() != 0 {
			t.Errorf("tried %q, %d jobs are left", w.log, q.Len())
		}
	})
}

// A tag that is told of once more is as one that was told of now: it is tried as long, and
// may as long not be there yet. So it is for the next process, too.
func TestWhatIsToldOnceMoreIsToldNow(t *testing.T) {
	for name, tell := range map[string]struct {
		during bool
		first  error
	}{
		"while it waits": {false, errors.New("not yet")}, "while it fails": {true, errors.New("not yet")}, "while it ends": {true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				directory := t.TempDir()
				q := mustOpen(t, directory)
				mustAdd(t, q, "1", jobFor("v1"))
				time.Sleep(time.Minute)
				var again atomic.Pointer[Job]
				add := func() {
					time.Sleep(time.Minute)
					job := jobFor("v1")
					again.Store(&job)
					if added, err := q.Add("2", job); added || err != nil {
						t.Errorf("added %v, %v", added, err)
					}
				}
				w := &tried{begin: time.Now(), fail: func(job *Job, attempt int) error {
					switch {
					case attempt == 1 && tell.during:
						add()
						return tell.first
					case attempt == 1:
						return tell.first
					case again.Load() != nil && !job.Told.Equal(again.Load().Told):
						t.Errorf("told %v, want %v", job.Told, again.Load().Told)
					}
					return errors.New("not yet")
				}}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { q.Run(ctx, w.worker()); close(done) }()
				time.Sleep(100 * time.Millisecond)
				if !tell.during {
					add()
				}
				time.Sleep(3 * time.Minute)
				stop()
				<-done
				if len(w.log) < 2 {
					t.Errorf("tried %q", w.log)
				}
				next, job := mustOpen(t, directory), again.Load()
				if next.Len() != 1 || !next.jobs[job.name()].Told.Equal(job.Told) {
					t.Errorf("the next process has %d jobs, told %v, want %v", next.Len(), next.jobs[job.name()].Told, job.Told)
				}
			})
		})
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	q := mustOpen(t, "")
	for i := range MaxQueued {
		mustAdd(t, q, "", jobFor(fmt.Sprint("v", i)))
	}
	if added, err := q.Add("full", jobFor("more")); added || !errors.Is(err, ErrFull) {
		t.Errorf("added %v, %v", added, err)
	}
	if len(q.seen) != 0 {
		t.Error("what was refused counts as seen")
	}
	for i := range 2 * maxSeen {
		if _, err := q.Add(fmt.Sprint("event ", i), jobFor("v1")); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.seen) > maxSeen || len(q.told) > maxSeen {
		t.Errorf("%d events are remembered, %d", len(q.seen), len(q.told))
	}
}

func TestJobsOutliveTheProcess(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "hooks")
	q := mustOpen(t, directory)
	want := jobFor("v1")
	mustAdd(t, q, "1", want)
	mustAdd(t, q, "2", jobFor("v2"))
	for name, content := range map[string]string{
		"broken.json": "{", jobFor("v3").name() + ".json": `{"tag":"v4"}`, unfinished + "123": "{}", "README": "not ours",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	again := mustOpen(t, directory)
	if again.Len() != 2 {
		t.Fatalf("%d jobs", again.Len())
	}
	got := again.jobs[want.name()].Job
	if !got.Told.Equal(want.Told) {
		t.Errorf("told %v, want %v", got.Told, want.Told)
	}
	if got.Told = want.Told; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	done, stop := context.WithCancel(t.Context())
	again.Run(done, Worker{Do: func(_ context.Context, job *Job) error {
		if again.Len() == 1 { // the other has ended
			stop()
		}
		return nil
	}})
	stop()
	if left := mustOpen(t, directory).Len(); left > 1 {
		t.Errorf("%d jobs are left on disk", left)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "README" && !strings.HasPrefix(entry.Name(), want.name()) && !strings.HasPrefix(entry.Name(), jobFor("v2").name()) {
			t.Errorf("%s is still there", entry.Name())
		}
	}
}

func TestWhatCannotBeKeptIsNotTaken(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "file")
	q := mustOpen(t, filepath.Join(directory, "hooks"))
	if err := os.WriteFile(directory, nil, 0o600); err != nil { // where a directory should be
		t.Fatal(err)
	}
	if added, err := q.Add("1", jobFor("v1")); added || err == nil {
		t.Errorf("added %v, %v", added, err)
	}
	if err := os.Remove(directory); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, q, "1", jobFor("v1")) // so it was not remembered as seen
}

func TestTheEndOfRunLeavesWhatItInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, t.TempDir())
		mustAdd(t, q, "1", jobFor("v1"))
		ctx, stop := context.WithCancel(t.Context())
		q.Run(ctx, Worker{Do: func(ctx context.Context, _ *Job) error {
			stop()
			return ctx.Err()
		}})
		if q.Len() != 1 {
			t.Fatal("the job is gone")
		}
		w := &tried{begin: time.Now()}
		w.run(t, q, time.Minute)
		if !slices.Equal(w.log, []string{"v1 at 0s"}) || q.Len() != 0 {
			t.Errorf("tried %q, %d jobs are left", w.log, q.Len())
		}
	})
}
