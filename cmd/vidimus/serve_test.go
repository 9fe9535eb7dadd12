package main

import "testing"

func TestTheEnvironmentDecidesAboutGarbage(t *testing.T) {
	for name, want := range map[string]int{"": ballastSize, "GOMAXPROCS": ballastSize, "GOGC": 0, "GOMEMLIMIT": 0} {
		got := ballast(func(asked string) (string, bool) { return "100", asked == name })
		if len(got) != want {
			t.Errorf("%q: %d bytes, want %d", name, len(got), want)
		}
	}
}
