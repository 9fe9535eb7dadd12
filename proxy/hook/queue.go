package hook

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Limits of a Queue.
const (
	MaxQueued = 10_000         // jobs
	MaxKept   = 24 * time.Hour // how long a job is tried
	maxSeen   = 10 * MaxQueued // events that are remembered
	workers   = 4              // jobs that are worked on at once
)

// A job that fails is tried again after firstPause, and then after twice as long each
// time, up to longestPause.
const (
	firstPause   = time.Second
	longestPause = 10 * time.Minute
)

// Job is a tag to act upon while it names a digest.
type Job struct {
	ID         string    `json:"id"`         // in records
	Repository string    `json:"repository"` // canonical
	Tag        string    `json:"tag"`
	Digest     string    `json:"digest"`
	Client     string    `json:"client"` // the address of who told of it
	Told       time.Time `json:"told"`   // when

	// Recorded is for the Worker, which may set it; it lasts until the process ends.
	Recorded bool `json:"-"`
}

// Worker acts upon jobs. Both functions are called by several goroutines at once.
type Worker struct {
	// Do acts upon a job. With a nil error or one that matches ErrDone the job has
	// ended; with any other it is tried again.
	Do func(ctx context.Context, job *Job) error
	// GiveUp is told of a job that was tried for MaxKept, and why it last failed, which
	// may be nil.
	GiveUp func(ctx context.Context, job Job, last error)
}

// ErrDone says that there is nothing more to do about a job.
var ErrDone = errors.New("there is nothing to do")

// ErrEarly says that a job cannot be done yet, and that nothing is wrong with that.
var ErrEarly = errors.New("it was told of early")

// ErrFull says that MaxQueued jobs wait.
var ErrFull = fmt.Errorf("%d pushes wait to be signed", MaxQueued)

// Queue keeps jobs until they have ended. It may be used by many goroutines.
type Queue struct {
	files  files
	logger *slog.Logger
	wake   chan struct{}

	mu   sync.Mutex
	jobs map[string]*queued // by name
	seen map[sum]time.Time
	told []sum // the keys of seen, as they came
}

// sum stands for what others choose the length of.
type sum [sha256.Size]byte

// queued is a job that waits or is worked on. The files of a queue are changed under
// its mutex, so that what is told of a job while it ends is not lost.
type queued struct {
	Job
	due      time.Time
	attempts int
	busy     bool
	again    time.Time // when it was told once more while it was busy; zero: it was not
	last     error
}

// Open returns the queue in a directory, which is made when the first job comes;
// without a name jobs are kept in memory. A file there that holds no job is removed
// and logged. One process at a time may use a directory.
func Open(directory string, logger *slog.Logger) (*Queue, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		files: files(directory), logger: logger, wake: make(chan struct{}, 1),
		jobs: make(map[string]*queued), seen: make(map[sum]time.Time),
	}
	kept, err := q.files.load(logger)
	if err != nil {
		return nil, err
	}
	for _, job := range kept {
		q.jobs[job.name()] = &queued{Job: job}
	}
	return q, nil
}

// Len returns how many jobs have not ended.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

// Add keeps a job that an event asks for. It returns false when the event was seen
// within MaxAge, or the job is there already: that is as if it was told only now, then.
// On return the job is on disk, where the queue has a directory. ErrFull and other errors leave everything as it was.
func (q *Queue) Add(event string, job Job) (added bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.forget(now)
	name := job.name()
	key := sum(sha256.Sum256([]byte(name + event)))
	if _, before := q.seen[key]; before && event != "" {
		return false, nil
	}
	there := q.jobs[name]
	switch {
	case there != nil && there.busy:
		there.again = job.Told // the tag may have been moved away and back meanwhile
	case there != nil:
		told := there.Job
		told.Told = job.Told
		if err := q.files.save(name, told); err != nil {
			return false, err
		}
		there.Job, there.due = told, now
		q.poke()
	case len(q.jobs) >= MaxQueued:
		return false, ErrFull
	default:
		if err := q.files.save(name, job); err != nil {
			return false, err
		}
		q.jobs[name] = &queued{Job: job, due: now}
		q.poke()
	}
	if event != "" {
		q.seen[key] = now
		q.told = append(q.told, key)
	}
	return there == nil, nil
}

// forget forgets the events that would be dropped for their age now, and the oldest
// when there are too many.
func (q *Queue) forget(now time.Time) {
	n := 0
	for n < len(q.told) && (len(q.told)-n >= maxSeen || now.Sub(q.seen[q.told[n]]) > 2*MaxAge) {
		delete(q.seen, q.told[n])
		n++
	}
	q.told = q.told[n:]
}

// poke has Run look at the jobs.
func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run has the jobs done until ctx ends, and returns when nobody works any more. What
// was not done is there for the next Run, of this process or of another.
func (q *Queue) Run(ctx context.Context, worker Worker) {
	var working sync.WaitGroup
	defer working.Wait()
	free := make(chan struct{}, workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
		for {
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return
			}
			job, wait := q.next(time.Now())
			if job == nil {
				<-free
				timer.Reset(wait)
				break
			}
			working.Go(func() {
				defer func() { <-free; q.poke() }()
				q.work(ctx, worker, job)
			})
		}
	}
}

// next returns a job that is due, which is busy then; or how long nothing is.
func (q *Queue) next(now time.Time) (*queued, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first *queued
	for _, job := range q.jobs {
		if !job.busy && (first == nil || job.due.Before(first.due)) {
			first = job
		}
	}
	switch {
	case first == nil:
		return nil, longestPause
	case first.due.After(now):
		return nil, first.due.Sub(now)
	}
	first.busy = true
	return first, 0
}

// work tries a job once. Nobody else touches it meanwhile but Add, and that only
// again.
func (q *Queue) work(ctx context.Context, worker Worker, job *queued) {
	if time.Since(job.Told) > MaxKept {
		worker.GiveUp(ctx, job.Job, job.last)
		q.end(job)
		return
	}
	err := q.try(ctx, worker, &job.Job)
	switch {
	case err == nil, errors.Is(err, ErrDone):
		q.end(job)
	case ctx.Err() != nil: // which is no fault of the job's
		q.later(job, 0, job.last)
	default:
		pause := min(firstPause<<min(job.attempts, 20), longestPause)
		level := slog.LevelWarn
		if errors.Is(err, ErrEarly) {
			level = slog.LevelDebug
		}
		q.logger.Log(ctx, level, "what a registry told could not be acted upon yet", "id", job.ID, "repository", job.Repository, "tag", job.Tag,
			"digest", job.Digest, "again", pause.String(), "err", err)
		job.attempts++
		q.later(job, pause, err)
	}
}

func (q *Queue) try(ctx context.Context, worker Worker, job *Job) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return worker.Do(ctx, job)
}

// later has a job tried again.
func (q *Queue) later(job *queued, pause time.Duration, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	job.busy, job.last, job.due = false, why, time.Now().Add(pause)
	if !job.again.IsZero() {
		q.toldAgain(job)
	}
}

// toldAgain makes of a job that was told once more while it was busy one that was told
// then. It is called with mu held.
func (q *Queue) toldAgain(job *queued) {
	job.Told, job.again = job.again, time.Time{}
	if err := q.files.save(job.name(), job.Job); err != nil {
		q.logger.Warn("that a push was told of once more is not on disk, and it will be given up early after the next start", "id", job.ID, "err", err)
	}
}

// end forgets a job, unless it was told once more.
func (q *Queue) end(job *queued) {
	q.mu.Lock()
	defer q.mu.Unlock()
	name := job.name()
	if !job.again.IsZero() {
		job.busy, job.due, job.attempts = false, time.Now(), 0
		q.toldAgain(job)
		return
	}
	delete(q.jobs, name)
	if err := q.files.remove(name); err != nil {
		q.logger.Warn("a push that was acted upon is still on disk, and will be looked at again after the next start", "id", job.ID, "err", err)
	}
}
