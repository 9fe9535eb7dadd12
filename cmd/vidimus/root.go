// Command vidimus is the registry proxy that verifies on pull, and the command
// line that signs, verifies and explains with the same engine.
//
// It is the only place that knows every part: it turns a configuration into
// policies, upstream clients, a store and a proxy, and joins them. A command is
// one file; nothing here is imported by anybody.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	exitHolds       = 0 // what was asked holds, or was done
	exitDoesNotHold = 1 // it does not: not verified, denied, a bad configuration
	exitMisuse      = 2 // the command line is wrong, or names what is not there
	exitUnknown     = 3 // could not tell: no answer, an interrupted or failed operation
)

// exitError is an error that chooses the exit code. An error of a command that
// is none of these leaves with exitUnknown: "does not hold" is never said by
// accident.
type exitError struct {
	code int
	err  error // nil when everything has been said already
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// misuse makes err one of the person who typed the command.
func misuse(err error) error { return &exitError{exitMisuse, err} }

// doesNotHold makes err the answer "no".
func doesNotHold(err error) error { return &exitError{exitDoesNotHold, err} }

// commands lists every subcommand; a new command is one more line here.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newServeCommand(),
		newDemoCommand(),
		newExplainCommand(),
		newPolicyCommand(),
		newDecisionsCommand(),
		newVerifyCommand(),
		newVerifyAttestationCommand(),
		newSignCommand(),
		newTriangulateCommand(),
		newGenerateCommand(),
		newAttachCommand(),
		newUploadCommand(),
		newDownloadCommand(),
		newTreeCommand(),
		newCopyCommand(),
		newSaveCommand(),
		newLoadCommand(),
		newCleanCommand(),
		newResignCommand(),
		newGenerateKeyPairCommand(),
		newImportKeyPairCommand(),
		newPublicKeyCommand(),
		newAttestCommand(),
		newSignBlobCommand(),
		newVerifyBlobCommand(),
		newConfigCommand(),
		newCacheCommand(),
		newVersionCommand(),
	}
}

// laterCommands are known, so that who types one is told that it will come
// instead of that there is no such thing.
func laterCommands() []string {
	return []string{
		"client-config", "doctor",
	}
}

func newLaterCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Not supported yet",
		Hidden:             true,
		Args:               cobra.ArbitraryArgs,
		DisableFlagParsing: true, // its flags are not known either
		RunE: func(*cobra.Command, []string) error {
			return misuse(fmt.Errorf("%s is not supported yet", name))
		},
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "vidimus",
		Short:         "A registry proxy that serves only what is signed as your policy says",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetVersionTemplate("vidimus {{.Version}}\n")
	root.AddCommand(commands()...)
	for _, name := range laterCommands() {
		root.AddCommand(newLaterCommand(name))
	}
	refuseUnknownTopics(root)
	markRunErrors(root)
	return root
}

// refuseUnknownTopics makes cobra's own commands refuse what they do not know,
// where they would print their help and leave with 0.
func refuseUnknownTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fmt.Errorf("unknown shell %q: want bash, fish, powershell or zsh", args[0])
				}
				return nil
			}
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if found, _, err := root.Find(args); err != nil || found == root && len(args) > 0 {
					return fmt.Errorf("no help about %q: there is no such command", strings.Join(args, " "))
				}
				return nil
			}
		}
	}
}

// takesNothing is the Args of a command without arguments.
func takesNothing(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, and %q is one", cmd.Name(), args[0])
	}
	return nil
}

// takesOne is the Args of a command with one argument, which is what.
func takesOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes %s, and was given %d arguments", cmd.Name(), what, len(args))
		}
		return nil
	}
}

// takesTwo is the Args of a command with two arguments, which are what.
func takesTwo(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("%s takes %s, and was given %d arguments", cmd.Name(), what, len(args))
		}
		return nil
	}
}

// markRunErrors gives every error of a command's own work an exit code, so that
// what is left without one came from the parsing of the command line.
func markRunErrors(cmd *cobra.Command) {
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			err := work(cmd, args)
			if _, ok := errors.AsType[*exitError](err); err == nil || ok {
				return err
			}
			return &exitError{exitUnknown, err}
		}
	}
	for _, sub := range cmd.Commands() {
		markRunErrors(sub)
	}
}

// run is the whole program: it never exits by itself and prints an error once.
// The first SIGINT or SIGTERM ends the context of the command, the second the
// process.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	root.SetArgs(modernSpelling(root, args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitHolds
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err != nil {
			fmt.Fprintf(stderr, "vidimus: %v\n", err)
		}
		return exit.code
	}
	fmt.Fprintf(stderr, "vidimus: %v\nTry '%s --help'.\n", err, cmd.CommandPath())
	return exitMisuse
}
