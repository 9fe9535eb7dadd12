package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// These make the program the origin, or the relay. They are for the program itself.
const (
	originCommand = "origin"
	relayCommand  = "relay"
)

// Exit codes.
const (
	exitMeasured = 0 // whether the bars are met or not
	exitFailed   = 1 // a wrong byte, a server that died
	exitMisuse   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the program. It returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) == 2 && args[0] == originCommand {
		largest, err := strconv.ParseInt(args[1], 10, 64)
		if err == nil {
			err = runOrigin(ctx, largest, stdin, stdout)
		}
		return ended(err, stderr)
	}
	if len(args) == 2 && args[0] == relayCommand {
		return ended(runRelay(ctx, args[1], stdin, stdout), stderr)
	}
	o, asJSON, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitMeasured // the flag package has printed it
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitMisuse
	}
	return ended(measureAll(ctx, o, asJSON, stdout), stderr)
}

func ended(err error, stderr io.Writer) int {
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	return exitMeasured
}

// parseOptions reads the command line. Its errors are misuse.
func parseOptions(args []string, stderr io.Writer) (o options, asJSON bool, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./e2e/bench [flags]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
	}
	flags.IntVar(&o.rounds, "rounds", 9, "how often each row is measured on each server, in turn")
	only := flags.String("only", "", "measure the rows alone whose `name` has this regular expression")
	seconds := flags.Float64("seconds", 2, "how long each warm sample takes")
	flags.Float64Var(&o.scale, "scale", 1, "multiply all sizes, to try the program out")
	others := flags.String("peers", distribution+","+nginx, "what to measure besides Vidimus, where it is installed")
	flags.StringVar(&o.binary, "vidimus", "", "measure this `binary` instead of one that is built")
	flags.BoolVar(&o.apart, "apart", false, "give what is measured the second core, and clients and the origin the first (taskset)")
	flags.StringVar(&o.profiles, "pprof", "", "write CPU profiles of Vidimus to this `directory`; figures are a little worse then")
	flags.BoolVar(&o.accessLog, "access-log", false, "let Vidimus write its access log, to a file")
	flags.BoolVar(&o.keep, "keep", false, "keep configurations, logs and caches")
	flags.BoolVar(&asJSON, "json", false, "print JSON, with every sample")
	if err := flags.Parse(args); err != nil {
		return o, false, err
	}
	o.progress = stderr
	o.seconds = time.Duration(*seconds * float64(time.Second))
	o.peers = slices.DeleteFunc(strings.Split(*others, ","), func(s string) bool { return s == "" })
	var errOnly error
	if *only != "" {
		o.only, errOnly = regexp.Compile(*only)
	}
	return o, asJSON, errors.Join(errOnly, o.check(flags.Args()))
}

// check returns what is wrong with the options.
func (o options) check(rest []string) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("nothing is done with %q", rest))
	}
	if o.rounds < 1 {
		errs = append(errs, errors.New("-rounds: at least 1"))
	}
	if o.seconds < 50*time.Millisecond || o.seconds > time.Minute {
		errs = append(errs, errors.New("-seconds: between 0.05 and 60"))
	}
	if !(o.scale > 0 && o.scale <= 4) {
		errs = append(errs, errors.New("-scale: above 0, at most 4"))
	}
	for _, name := range o.peers {
		if name != distribution && name != nginx {
			errs = append(errs, fmt.Errorf("-peers: %q is neither %s nor %s", name, distribution, nginx))
		}
	}
	if o.only != nil && !slices.ContainsFunc(rowNames(), o.only.MatchString) {
		errs = append(errs, fmt.Errorf("-only: no row's name has %s; they are %s", o.only, strings.Join(rowNames(), ", ")))
	}
	return errors.Join(errs...)
}

func rowNames() []string {
	var names []string
	for _, r := range append(new(bench).rows(), memoryRow) {
		names = append(names, r.name)
	}
	return names
}

// measureAll starts what is measured, measures, prints, and ends it.
func measureAll(ctx context.Context, o options, asJSON bool, stdout io.Writer) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("what is measured is read from Linux's /proc")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r, err := b.run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if !asJSON {
		return r.print(stdout)
	}
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// method says how it was measured, in one line.
func (o options) method() string {
	text := fmt.Sprintf("Medians of %d interleaved rounds (least–greatest); ratios are medians of the ratios within each round; warm samples of %v.", o.rounds, o.seconds)
	if o.scale != 1 {
		text += fmt.Sprintf(" All sizes are multiplied by %v.", o.scale)
	}
	if o.apart {
		text += " Clients and the origin ran on one core, and what is measured on another."
	}
	if o.accessLog {
		text += " Vidimus wrote its access log."
	}
	if o.profiles != "" {
		text += " Vidimus was profiled meanwhile."
	}
	return text
}
