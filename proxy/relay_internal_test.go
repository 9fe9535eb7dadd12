package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// connection is a client that sends a piece of so many bytes each pace, until all is
// sent or the deadline that its reader sets has passed.
type connection struct {
	http.ResponseWriter
	deadline time.Time
	pace     time.Duration
	piece    int
	left     int64
}

func (c *connection) SetReadDeadline(at time.Time) error { c.deadline = at; return nil }

func (c *connection) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	if at := time.Now().Add(c.pace); at.After(c.deadline) {
		time.Sleep(time.Until(c.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(c.pace)
	n := min(len(b), c.piece, int(c.left))
	c.left -= int64(n)
	return n, nil
}

// A client that keeps sending next to nothing is not waited for for ever; one that is
// slow, and pauses, is.
func TestASlowClientKeepsItsPlaceForALimitedTime(t *testing.T) {
	for name, test := range map[string]struct {
		pace  time.Duration
		piece int
		size  int64
		ends  time.Duration // within; zero: it comes to its end
	}{
		"a byte now and then":  {readPatience - time.Second, 1, 1 << 20, 2 * readPatience},
		"a byte a second":      {time.Second, 1, 1 << 20, 2 * readPatience},
		"nothing":              {time.Hour, 1, 1, readPatience},
		"slow":                 {time.Second, slowestPush, 1 << 30, 0},
		"with pauses":          {readPatience - time.Second, 1 << 20, 1 << 30, 0},
		"the largest there is": {time.Second, 1 << 20, maxUploadSize, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &connection{ResponseWriter: httptest.NewRecorder(), pace: test.pace, piece: test.piece, left: test.size}
				began := time.Now()
				body := &patient{source: client, control: http.NewResponseController(client), patience: readPatience}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, body, make([]byte, 1<<20))
				took := time.Since(began)
				switch {
				case test.ends == 0 && (err != nil || n != test.size || !client.deadline.IsZero()):
					t.Errorf("after %s and %d bytes: %v", took, n, err)
				case test.ends > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took > test.ends):
					t.Errorf("it is kept for %s: %v", took, err)
				}
			})
		})
	}
}

// A body that is closed between two reads is not read any further.
func TestNothingIsReadOfABodyThatWasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &connection{ResponseWriter: httptest.NewRecorder(), pace: time.Second, piece: 1, left: 3}
		body := &patient{source: client, control: http.NewResponseController(client), patience: readPatience}
		if _, err := body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := body.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n, err := body.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
	})
}
