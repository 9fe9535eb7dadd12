package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progressBar shows how far something is, on a terminal and nowhere else. It
// returns what is told of it, nil for nobody, and what takes it away. The counters
// are of bytes, or just numbers.
func progressBar(w io.Writer, what string, counters decor.Decorator) (progress func(done, of int64), end func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	return drawBar(w, what, counters)
}

func drawBar(w io.Writer, what string, counters decor.Decorator, options ...mpb.ContainerOption) (progress func(done, of int64), end func()) {
	bars := mpb.New(append(options, mpb.WithOutput(w), mpb.WithWidth(48))...)
	bar := bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(counters, decor.Name(" "), decor.Percentage()),
	)
	progress = func(done, of int64) {
		bar.SetTotal(of, false)
		bar.SetCurrent(done)
	}
	return progress, func() {
		bar.SetTotal(-1, true) // complete, or over at least
		bars.Wait()
	}
}

func byteCounters() decor.Decorator   { return decor.CountersKibiByte("% .1f / % .1f") }
func numberCounters() decor.Decorator { return decor.CountersNoUnit("%d / %d") }
