package upstream

import (
	"context"
	"io"
	"net/http"
	"time"
)

// readAll returns the whole body of an answer, of at most limit bytes.
func readAll(ctx context.Context, response *http.Response, limit int64, what string) ([]byte, error) {
	tooLarge := fault(KindMismatch, "%s is larger than %d bytes", what, limit)
	if response.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, transportFault(ctx, err)
	}
	if int64(len(body)) > limit {
		return nil, tooLarge
	}
	return body, nil
}

// transfer is a blob's body. It ends with io.EOF only when all of it has come
// that the header announced, and gives up when too little comes while a Read
// waits; a reader that takes its time costs nothing. It belongs to one
// goroutine.
type transfer struct {
	source io.ReadCloser
	cancel context.CancelCauseFunc // of the request
	why    func(error) error       // turns what a Read returned into an Error
	whole  func()                  // called when all has come

	skip int64 // bytes before the offset that was asked for
	left int64 // bytes still to come after skip; -1: not announced

	idle   time.Duration
	rate   int64
	timer  *time.Timer
	waited time.Duration // in Read, since the last look at the rate
	got    int64         // bytes in that time

	err error
}

func newTransfer(cancel context.CancelCauseFunc, source io.ReadCloser, timeouts Timeouts, limits Limits, why func(error) error) *transfer {
	t := &transfer{cancel: cancel, source: source, idle: timeouts.Idle, rate: limits.Rate, why: why}
	t.timer = time.AfterFunc(t.idle, func() {
		cancel(fault(KindUnavailable, "the transfer stalled: nothing came for %s", t.idle))
	})
	t.timer.Stop()
	return t
}

// Read returns the bytes from the offset on.
func (t *transfer) Read(p []byte) (int, error) {
	t.skipped()
	if t.err != nil {
		return 0, t.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if t.left == 0 {
		t.end()
		return 0, t.err
	}
	if t.left > 0 {
		p = p[:min(t.left, int64(len(p)))]
	}
	n, err := t.read(p)
	if t.left > 0 {
		t.left -= int64(n)
	}
	t.fail(err)
	if n > 0 {
		return n, nil // an error is there at the next Read
	}
	return 0, t.err
}

// skipped reads up to the offset.
func (t *transfer) skipped() {
	if t.skip == 0 {
		return
	}
	scratch := make([]byte, min(t.skip, maxDiscarded))
	for t.err == nil && t.skip > 0 {
		n, err := t.read(scratch[:min(t.skip, int64(len(scratch)))])
		t.skip -= int64(n)
		t.fail(err)
	}
}

// end looks whether nothing follows what was announced.
func (t *transfer) end() {
	var beyond [1]byte
	n, err := t.read(beyond[:])
	switch {
	case n > 0:
		t.err = t.why(fault(KindMismatch, "the blob is longer than its header says"))
	case err == io.EOF:
		t.finish()
	default:
		t.fail(err)
	}
}

// finish notes that all has come.
func (t *transfer) finish() {
	t.err = io.EOF
	t.whole()
}

// fail keeps the first error. An end that comes too early is one.
func (t *transfer) fail(err error) {
	switch {
	case err == nil || t.err != nil:
	case err == io.EOF && t.skip == 0 && t.left <= 0:
		if t.left < 0 {
			t.finish()
		}
	case err == io.EOF:
		t.err = t.why(io.ErrUnexpectedEOF)
	default:
		t.err = t.why(err)
	}
}

// read is one Read of the source that does not wait for ever.
func (t *transfer) read(p []byte) (int, error) {
	t.timer.Reset(t.idle)
	start := time.Now()
	n, err := t.source.Read(p)
	t.waited += time.Since(start)
	t.timer.Stop()
	t.got += int64(n)
	if t.waited >= t.idle {
		if float64(t.got) < float64(t.rate)*t.waited.Seconds() && err == nil {
			err = fault(KindUnavailable, "the transfer stalled: %d bytes in %s", t.got, t.waited.Round(time.Second))
			t.cancel(err)
		}
		t.waited, t.got = 0, 0
	}
	return n, err
}

// Close ends the transfer, whether it is over or not.
func (t *transfer) Close() error {
	t.timer.Stop()
	t.cancel(context.Canceled)
	return t.source.Close()
}
