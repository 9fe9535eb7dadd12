package proxy_test

import (
	"io"
	"log"
	"testing"

	"go.uber.org/goleak"
)

// Whatever clients, upstreams and tests break off leaves nothing running.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells there of answers that nobody asked for
	goleak.VerifyTestMain(m)
}
