package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestErrorsChooseTheirExitCode(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want int
	}{
		{"done", nil, exitHolds},
		{"a refusal", doesNotHold(errors.New("unsigned")), exitDoesNotHold},
		{"a wrapped refusal", fmt.Errorf("acme/web: %w", doesNotHold(errors.New("unsigned"))), exitDoesNotHold},
		{"misuse", misuse(errors.New("no such key file")), exitMisuse},
		{"anything else is no answer", errors.New("connection refused"), exitUnknown},
		{"faults of a configuration", configExit(faults{pos{File: "f"}.fault("what", "fix")}), exitDoesNotHold},
		{"faults of flags", configExit(faults{pos{File: commandLine}.fault("what", "fix"), flagValue("--require", "x").fault("what", "fix")}), exitMisuse},
		{"faults of flags and of what they name", configExit(faults{flagValue("--require", "x").fault("what", "fix"), pos{File: "f"}.fault("what", "fix")}), exitDoesNotHold},
		{"a configuration that is not there", configExit(errors.New("missing")), exitMisuse},
	} {
		cmd := &cobra.Command{
			SilenceErrors: true, SilenceUsage: true,
			RunE: func(*cobra.Command, []string) error { return row.err },
		}
		cmd.SetArgs(nil)
		markRunErrors(cmd)
		err := cmd.Execute()
		got := exitHolds
		if exit, ok := errors.AsType[*exitError](err); ok {
			got = exit.code
		} else if err != nil {
			t.Errorf("%s: the error has no exit code: %v", row.name, err)
		}
		if got != row.want {
			t.Errorf("%s: exit code %d, want %d", row.name, got, row.want)
		}
	}
}

func TestRunPrintsAnErrorOnce(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"config", "check", "--config", "nothere.yaml"}, nil, &stdout, &stderr); code != exitMisuse {
		t.Errorf("exit code %d, want %d", code, exitMisuse)
	}
	if got, want := stderr.String(), "vidimus: configuration: nothere.yaml does not exist\n"; got != want || stdout.Len() > 0 {
		t.Errorf("stdout %q and stderr %q, want %q on stderr", &stdout, got, want)
	}
}

// TestEveryCommandExplainsItself keeps help, and with it completion and manual,
// whole for all commands of the program.
func TestEveryCommandExplainsItself(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short text is %q; write one without a full stop", cmd.CommandPath(), cmd.Short)
		}
		if cmd.Args == nil && !cmd.HasSubCommands() {
			t.Errorf("%s: says nothing of its arguments, so that any are accepted", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand())
}

func TestVersionOfABuildFromATree(t *testing.T) {
	for want, settings := range map[string][]debug.BuildSetting{
		"devel":                nil,
		"0123456789ab":         {{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "false"}},
		"0123456789ab+changes": {{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
	} {
		if got := commit(settings); got != want {
			t.Errorf("version %q, want %q", got, want)
		}
	}
}
