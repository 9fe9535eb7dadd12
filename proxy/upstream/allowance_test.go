package upstream

import (
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestScarce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header string
		scarce time.Duration // how long
	}{
		{"nothing said", "", 0},
		{"enough", "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 76;w=21600\r\n", 0},
		{"a little more than a twentieth", "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 6;w=21600\r\n", 0},
		{"a twentieth", "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 5;w=21600\r\n", 10 * time.Minute},
		{"none", "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 0;w=21600\r\n", 10 * time.Minute},
		{"eleven of many", "RateLimit-Limit: 5000;w=86400\r\nRateLimit-Remaining: 11;w=86400\r\n", 0},
		{"ten of many", "RateLimit-Limit: 5000;w=86400\r\nRateLimit-Remaining: 10;w=86400\r\n", 10 * time.Minute},
		{"the last of few", "RateLimit-Limit: 10;w=3600\r\nRateLimit-Remaining: 1;w=3600\r\n", 0},
		{"none of few", "RateLimit-Limit: 10;w=3600\r\nRateLimit-Remaining: 0;w=3600\r\n", 10 * time.Minute},
		{"in a short window", "RateLimit-Limit: 100;w=30\r\nRateLimit-Remaining: 0;w=30\r\n", 30 * time.Second},
		{"without a window", "RateLimit-Limit: 2000\r\nRateLimit-Remaining: 3\r\n", time.Minute},
		{"with other parameters", "RateLimit-Limit: 100\r\nRateLimit-Remaining: 0;burst=1; w=90\r\n", 90 * time.Second},
		{"without a limit", "RateLimit-Remaining: 2;w=21600\r\n", 0},
		{"the last without a limit", "RateLimit-Remaining: 1;w=21600\r\n", 10 * time.Minute},
		{"a window of nothing", "RateLimit-Remaining: 0;w=0\r\n", 0},
		{"an absurd window", "RateLimit-Remaining: 0;w=99999999999999999999\r\n", time.Minute},
		{"less than nothing", "RateLimit-Remaining: -1;w=21600\r\n", 0},
		{"no number", "RateLimit-Remaining: few\r\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) { answer(conn, "200 OK", tt.header, "x") })
				if c.Scarce() {
					t.Error("before anything was said")
				}
				if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
					t.Fatal(err)
				}
				if c.Scarce() != (tt.scarce > 0) {
					t.Fatalf("scarce: %v", c.Scarce())
				}
				if tt.scarce == 0 {
					return
				}
				time.Sleep(tt.scarce - time.Millisecond)
				if !c.Scarce() {
					t.Errorf("no more scarce just before %s", tt.scarce)
				}
				time.Sleep(time.Millisecond)
				if c.Scarce() {
					t.Errorf("still scarce after %s", tt.scarce)
				}
			})
		})
	}

	t.Run("the last word counts, whatever the answer; none changes nothing", func(t *testing.T) {
		script := []struct {
			status, header string
			scarce         bool
		}{
			{"200 OK", "RateLimit-Remaining: 0;w=21600\r\n", true},
			{"404 x", "", true},
			{"304 x", "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 50;w=21600\r\n", false},
			{"403 x", "RateLimit-Remaining: 0;w=21600\r\n", true},
		}
		synctest.Test(t, func(t *testing.T) {
			c, _ := scripted(t, Config{}, func(n int, _ *http.Request, conn net.Conn) {
				answer(conn, script[n-1].status, script[n-1].header, "")
			})
			for _, step := range script {
				_, _, _, _ = c.Manifest(t.Context(), "acme/web", "v1", digestOf(t, "x"))
				if c.Scarce() != step.scarce {
					t.Errorf("after %s %q: %v", step.status, step.header, c.Scarce())
				}
			}
		})
	})

	t.Run("another host has no say", func(t *testing.T) {
		w, registry, _, _ := redirectWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("RateLimit-Remaining", "0;w=21600")
		})
		c := w.client(registry, nil)
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil || c.Scarce() {
			t.Errorf("scarce %v, %v", c.Scarce(), err)
		}
	})
}
