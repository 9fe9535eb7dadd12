package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   spread
	}{
		"one":         {[]float64{3}, spread{3, 3, 3}},
		"odd number":  {[]float64{9, 1, 4}, spread{4, 1, 9}},
		"even number": {[]float64{8, 1, 2, 4}, spread{3, 1, 8}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// A slow second round is slow for both. The ratio of the medians would be 1.5.
	got := ratios([]float64{10, 40, 15}, []float64{10, 40, 5})
	if diff := cmp.Diff([]float64{1, 1, 3}, got); diff != "" {
		t.Error(diff)
	}
	if got := ratios([]float64{1, 2, 3}, []float64{0, 4}); len(got) != 1 || got[0] != 0.5 {
		t.Errorf("with nothing to divide by: %v", got)
	}
}

func TestNumber(t *testing.T) {
	for want, v := range map[string]float64{
		"0.00": 0, "0.13": 0.125001, "9.50": 9.5, "12.3": 12.345, "123": 123.45, "1,235": 1234.5678, "12,345,678": 12345678,
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

// measured is a row with one bar of each kind, and what was measured.
func measured() (*row, map[string][]sample) {
	r := &row{name: "warm", title: "warm things", metrics: []metric{
		{name: "a second", against: []string{distribution, nginx}, bars: []bar{{against: distribution, metric: "by tag", atLeast: 40}}},
		{name: "cost", unit: "µs", against: []string{nginx}, bars: []bar{{against: nginx, atMost: 1.6}, {atMost: 25}}},
		{name: "by tag"},
	}}
	return r, map[string][]sample{
		vidimus:      {{"a second": 4000, "cost": 30}, {"a second": 5000, "cost": 20}, {"a second": 6000, "cost": 26}},
		distribution: {{"a second": 200, "by tag": 100, "cost": 900}, {"a second": 200, "by tag": 100, "cost": 900}, {"a second": 200, "by tag": 100, "cost": 900}},
	}
}

func TestTheTableSaysWhatWasMeasuredAndWhatIsMet(t *testing.T) {
	r, samples := measured()
	var out strings.Builder
	if err := (report{Machine: "a machine", Method: "a method", Notes: []string{"a note"}, Results: r.results(samples)}).print(&out); err != nil {
		t.Fatal(err)
	}
	want := `a machine

a method

a note

| measured | Vidimus | distribution | Vidimus through others | bar | met |
| --- | --- | --- | --- | --- | --- |
| **warm things** |  |  |  |  |  |
| a second | 5,000 (4,000–6,000) | 200 | 25.0 of distribution (20.0–30.0); 50.0 of distribution (by tag) (40.0–60.0) | at least 40 × distribution (by tag) | yes |
| cost, µs | 26.0 (20.0–30.0) | 900 |  | at most 1.6 × nginx; at most 25 | not measured; no |
| by tag |  | 100 |  |  |  |
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestABarIsMetAtItsLimit(t *testing.T) {
	for _, c := range []struct {
		bar   bar
		value float64
		met   bool
	}{
		{bar{atMost: 2.2}, 2.2, true}, {bar{atMost: 2.2}, 2.21, false},
		{bar{atLeast: 40}, 40, true}, {bar{atLeast: 40}, 39.9, false},
	} {
		if got := c.bar.met(c.value); got != c.met {
			t.Errorf("%s at %v: %v", c.bar.text(), c.value, got)
		}
	}
}
