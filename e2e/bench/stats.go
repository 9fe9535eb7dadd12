package main

import "slices"

// spread is a median with what was around it.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of values, of which there is at least one.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	s := spread{Median: sorted[middle], Min: sorted[0], Max: sorted[len(sorted)-1]}
	if len(sorted)%2 == 0 {
		s.Median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return s
}

// ratios divides what was measured in the same round. A ratio of medians would
// hide that a slow round was slow for both. What cannot be divided by is left
// out: CPU time that was too short to be seen.
func ratios(of, by []float64) []float64 {
	var pairs []float64
	for i := range min(len(of), len(by)) {
		if by[i] != 0 {
			pairs = append(pairs, of[i]/by[i])
		}
	}
	return pairs
}
