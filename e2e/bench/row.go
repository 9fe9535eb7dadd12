package main

import (
	"context"
	"strconv"
	"strings"
)

// row is one thing that is measured on several servers in turn.
type row struct {
	name    string   // what -only looks at
	title   string   // says what is measured, and how
	servers []string // in the order in which they take turns
	pace    pace     // of the origin
	metrics []metric

	// images says what one sample needs, all of it new, without repositories;
	// nil for none.
	images func(sizes) []spec
	// before runs once, when the row's turn comes; nil for nothing.
	before func(context.Context, *bench) error
	sample func(context.Context, *bench, turn) (sample, error)
}

// turn is what one sample is given.
type turn struct {
	row    *row
	server *server
	round  int
	images []image
}

// sample is what came out, by the name of the metric.
type sample map[string]float64

// metric is one number of a sample.
type metric struct {
	name string
	unit string
	// against lists the servers that Vidimus is compared with.
	against []string
	bars    []bar
}

// bar is what is asked for. One of atMost and atLeast is set.
type bar struct {
	against string // a server, whose number the limit is a multiple of; "" when it is the number itself
	metric  string // the other server's, when it is another one
	atMost  float64
	atLeast float64
}

// text says what is asked for.
func (b bar) text() string {
	if b.atLeast > 0 {
		return "at least " + strconv.FormatFloat(b.atLeast, 'g', -1, 64) + b.of()
	}
	return "at most " + strconv.FormatFloat(b.atMost, 'g', -1, 64) + b.of()
}

// of names what the limit is a multiple of.
func (b bar) of() string {
	switch {
	case b.against == "":
		return ""
	case b.metric != "":
		return " × " + b.against + " (" + b.metric + ")"
	default:
		return " × " + b.against
	}
}

func (b bar) met(value float64) bool {
	if b.atLeast > 0 {
		return value >= b.atLeast
	}
	return value <= b.atMost
}

// result is one line of the table.
type result struct {
	Row      string               `json:"row"`
	Title    string               `json:"title"`
	Metric   string               `json:"metric"`
	Unit     string               `json:"unit,omitempty"`
	Values   map[string][]float64 `json:"values"` // by server, in the order of the rounds
	Ratios   []ratio              `json:"ratios,omitempty"`
	Verdicts []verdict            `json:"bars,omitempty"`
}

// ratio is Vidimus's number through another's, median of the rounds.
type ratio struct {
	Of string `json:"of"`
	spread
}

// verdict says whether a bar is met. Measured is unset when what it is a
// multiple of was not measured.
type verdict struct {
	Bar      string  `json:"bar"`
	Measured bool    `json:"measured"`
	Value    float64 `json:"value"`
	Met      bool    `json:"met"`
}

// results makes the lines of a row of what was measured: the samples of each
// server, in the order of the rounds.
func (r *row) results(samples map[string][]sample) []result {
	var lines []result
	for _, m := range r.metrics {
		line := result{Row: r.name, Title: r.title, Metric: m.name, Unit: m.unit, Values: map[string][]float64{}}
		for name := range samples {
			if values := pick(samples[name], m.name); len(values) > 0 {
				line.Values[name] = values
			}
		}
		ours := line.Values[vidimus]
		for _, peer := range m.against {
			if pairs := ratios(ours, line.Values[peer]); len(pairs) > 0 {
				line.Ratios = append(line.Ratios, ratio{peer, spreadOf(pairs)})
			}
		}
		for _, b := range m.bars {
			line.Verdicts = append(line.Verdicts, judge(b, m.name, ours, samples))
			// A ratio that only the bar asks for is shown as well.
			if pairs := ratios(ours, pick(samples[b.against], b.metric)); b.metric != "" && len(pairs) > 0 {
				line.Ratios = append(line.Ratios, ratio{strings.TrimPrefix(b.of(), " × "), spreadOf(pairs)})
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func judge(b bar, metric string, ours []float64, samples map[string][]sample) verdict {
	v := verdict{Bar: b.text()}
	if b.against != "" {
		if b.metric != "" {
			metric = b.metric
		}
		ours = ratios(ours, pick(samples[b.against], metric))
	}
	if len(ours) == 0 {
		return v
	}
	v.Measured, v.Value = true, spreadOf(ours).Median
	v.Met = b.met(v.Value)
	return v
}

// pick returns one number of each sample that has it.
func pick(samples []sample, metric string) []float64 {
	var values []float64
	for _, s := range samples {
		if v, ok := s[metric]; ok {
			values = append(values, v)
		}
	}
	return values
}
