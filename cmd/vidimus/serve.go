package main

import (
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	var (
		config string
		quick  quickFlags
		pprof  bool
		drain  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Run the proxy: serve from the upstream registries what the policies allow.

The configuration is a file (--config), or, to begin with, flags: each --require
names what must be signed by which key, --allow-rest lets everything else pass.

SIGHUP reads the configuration again, which happens by itself when its files
change. SIGTERM ends: answers under way may go on for --drain.

Exit code 0: ended as asked; 1: the configuration does not hold; 2: misuse;
3: failed.`,
		Example: `  vidimus serve --config vidimus.yaml
  vidimus serve --require 'ghcr.io/me/**=cosign.pub' --allow-rest`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := chooseSource(config, quick, os.LookupEnv)
			if err != nil {
				return err
			}
			defer runtime.KeepAlive(ballast(os.LookupEnv))
			s, err := newServer(serverConfig{
				From: from, Lookup: os.LookupEnv, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(),
				Pprof: pprof, Drain: drain,
			})
			if err != nil {
				return err
			}
			// net/http tells of some faults of its peers by the standard logger alone
			log.SetOutput(slog.NewLogLogger(s.log.Handler(), slog.LevelDebug).Writer())
			defer reloadOnHangup(s.reloader)()
			return s.run(cmd.Context())
		},
	}
	addConfigFlag(cmd, &config)
	quick.add(cmd.Flags())
	cmd.Flags().BoolVar(&pprof, "pprof", false, "give profiles under /debug/pprof/ on the metrics listener, which must be on loopback")
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long answers may go on after SIGTERM")
	return cmd
}

// ballastSize is what the collector takes for memory in use besides what is.
const ballastSize = 12 << 20

// ballast lets garbage gather. A warm proxy holds a few megabytes, and the
// collector, which runs each time that as much garbage is there as memory in use,
// would run 60 times a second. It takes ballast for memory in use, but as nobody
// writes to it, it is address space alone. Unlike with a higher GOGC, the garbage
// does not grow by a multiple when there is more in use, and unlike with a memory
// limit the collector does not run all the time when there is much more. Whoever
// sets GOGC or GOMEMLIMIT decides.
func ballast(lookup func(string) (string, bool)) []byte {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, ok := lookup(name); ok {
			return nil
		}
	}
	return make([]byte, ballastSize)
}

// reloadOnHangup makes SIGHUP read the configuration until stop is called.
func reloadOnHangup(r *reloader) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangups:
				r.Reload()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(hangups); close(done) }
}
