package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// report is everything that is said in the end.
type report struct {
	Machine string   `json:"machine"`
	Method  string   `json:"method"`
	Notes   []string `json:"notes,omitempty"`
	Results []result `json:"results"`
}

// headings are the columns of the servers, in their order.
var headings = []struct{ name, text string }{
	{vidimus, "Vidimus"},
	{distribution, "distribution"},
	{nginx, "nginx"},
	{relay, "relay that hashes"},
	{direct, "direct"},
	{directNew, "direct, new connections"},
}

// print writes the report as Markdown. A column without a value is left out.
func (r report) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\n", r.Machine, r.Method)
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "%s\n\n", note)
	}
	columns := slices.DeleteFunc(slices.Clone(headings), func(h struct{ name, text string }) bool {
		return !slices.ContainsFunc(r.Results, func(line result) bool { return len(line.Values[h.name]) > 0 })
	})
	header := []string{"measured"}
	for _, c := range columns {
		header = append(header, c.text)
	}
	header = append(header, "Vidimus through others", "bar", "met")
	writeLine(&b, header)
	writeLine(&b, slices.Repeat([]string{"---"}, len(header)))
	title := ""
	for _, line := range r.Results {
		if line.Title != title {
			title = line.Title
			cells := make([]string, len(header))
			cells[0] = "**" + title + "**"
			writeLine(&b, cells)
		}
		cells := []string{line.name()}
		for _, c := range columns {
			cells = append(cells, values(line.Values[c.name]))
		}
		cells = append(cells, line.ratios())
		writeLine(&b, append(cells, line.verdicts()...))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeLine(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func (r result) name() string {
	if r.Unit == "" {
		return r.Metric
	}
	return r.Metric + ", " + r.Unit
}

func (r result) ratios() string {
	var texts []string
	for _, q := range r.Ratios {
		texts = append(texts, number(q.Median)+" of "+q.Of+q.around())
	}
	return strings.Join(texts, "; ")
}

func (r result) verdicts() []string {
	var bars, met []string
	for _, v := range r.Verdicts {
		bars = append(bars, v.Bar)
		switch {
		case !v.Measured:
			met = append(met, "not measured")
		case v.Met:
			met = append(met, "yes")
		default:
			met = append(met, "no")
		}
	}
	return []string{strings.Join(bars, "; "), strings.Join(met, "; ")}
}

// values returns a median with what was around it.
func values(all []float64) string {
	if len(all) == 0 {
		return ""
	}
	s := spreadOf(all)
	return number(s.Median) + s.around()
}

// around returns the least and the greatest, when they differ.
func (s spread) around() string {
	if s.Min == s.Max {
		return ""
	}
	return " (" + number(s.Min) + "–" + number(s.Max) + ")"
}

// number writes a number with three digits that count.
func number(v float64) string {
	switch {
	case v >= 1000:
		text := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		return text
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
