package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// allowance is what a registry said last of the requests that it still grants.
// The zero value knows of none.
type allowance struct {
	mu     sync.Mutex
	scarce time.Time // until when little is left; zero: enough, or not known
}

const (
	// How little is little: a twentieth of the limit, never more than ten requests,
	// and the last one when the limit is not said. It is kept for what is not known.
	scarceShare   = 20
	mostReserved  = 10
	unsaidReserve = 1

	// scarceFor is how long the registry's word counts when it says no more.
	// Windows roll, so that some requests are granted again before one is over.
	scarceFor    = 10 * time.Minute
	windowUnsaid = time.Minute
)

// note takes the rate limit from an answer of the registry, and returns what is
// left of it, or -1 when it says nothing. Docker Hub says "76;w=21600" of
// "100;w=21600": of a hundred GETs of a manifest in six hours 76 are left; a
// HEAD says so as well and counts for none.
// https://docs.docker.com/docker-hub/usage/pulls/
func (a *allowance) note(header http.Header) (remaining int) {
	remaining, window := parseRate(header.Get("Ratelimit-Remaining"))
	if remaining < 0 {
		return -1
	}
	reserve := unsaidReserve
	if limit, _ := parseRate(header.Get("Ratelimit-Limit")); limit >= 0 {
		reserve = min(limit/scarceShare, mostReserved)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scarce = time.Time{}
	if remaining <= reserve {
		a.scarce = time.Now().Add(min(window, scarceFor))
	}
	return remaining
}

// parseRate reads a count, and its window as far as it is said. The count is -1
// when there is none.
func parseRate(field string) (count int, window time.Duration) {
	number, parameters, _ := strings.Cut(field, ";")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return -1, 0
	}
	window = windowUnsaid
	for parameter := range strings.SplitSeq(parameters, ";") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(parameter), "w="); ok {
			if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
				window = time.Duration(seconds) * time.Second
			}
		}
	}
	return int(n), window
}

// Scarce reports whether the registry said in its last answer about it, in the
// last ten minutes or its window when that is shorter, that almost nothing is
// left of its rate limit: at most a twentieth, and at most ten requests. Who can
// do without asking then should.
func (c *Client) Scarce() bool {
	c.allowance.mu.Lock()
	defer c.allowance.mu.Unlock()
	return time.Now().Before(c.allowance.scarce)
}
