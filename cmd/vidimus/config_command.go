package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// exampleConfig documents every key. The copy at the root of the repository, where
// people look for it, is the same; a test holds them together.
//
//go:embed config.example.yaml
var exampleConfig string

// defaultConfigs are where a configuration is looked for, in this order.
const (
	configVariable = "VIDIMUS_CONFIG"
	localConfig    = "vidimus.yaml"
	systemConfig   = "/etc/vidimus/vidimus.yaml"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration, or show what one looks like",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(), newConfigSchemaCommand(), newConfigExampleCommand())
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with a configuration",
		Long: `Say everything that is wrong with a configuration, with file, line and what to
do, exactly as serve judges it; nothing is dialled.

Exits with 0 when the configuration holds, with 1 when it does not, and with 2
when there is none to be read.`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := findConfig(name, os.LookupEnv)
			if err != nil {
				return misuse(err)
			}
			l, err := load(fromFile(name), os.LookupEnv, time.Now())
			if err != nil {
				return configExit(err)
			}
			return l.summarize(cmd.OutOrStdout(), name, time.Now())
		},
	}
	addConfigFlag(cmd, &name)
	return cmd
}

// addConfigFlag adds --config; findConfig says what it means when it is not given.
func addConfigFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "config", "", "configuration file (default $"+configVariable+", ./"+localConfig+" or "+systemConfig+")")
}

// findConfig returns the configuration file that counts: the one that was named,
// or the first of the usual ones that exists. It matches fs.ErrNotExist when
// there is none. A file that is named is not looked for: that it is missing is
// for the reading to say.
func findConfig(named string, lookup func(string) (string, bool)) (string, error) {
	if named != "" {
		return named, nil
	}
	if fromEnv, _ := lookup(configVariable); fromEnv != "" {
		return fromEnv, nil
	}
	for _, name := range []string{localConfig, systemConfig} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
	}
	return "", absentError{fmt.Errorf("no configuration: there is no %s and no %s; name one with --config, or print one with vidimus config example",
		localConfig, systemConfig)}
}

func newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration, for editors",
		Args:  takesNothing,
		RunE:  func(cmd *cobra.Command, _ []string) error { return writeSchema(cmd.OutOrStdout()) },
	}
}

func newConfigExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a configuration with every key, explained",
		Args:  takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), exampleConfig)
			return err
		},
	}
}
