package proxy_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever clients, upstreams and tests break off leaves nothing running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
