package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and what built it",
		Args:  takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printVersion(cmd.OutOrStdout())
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "vidimus %s %s %s/%s\n",
				version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, with cosign's names")
	registerCosignFlags(cmd, "version")
	return cmd
}

// printVersion prints what cosign version --json does.
func printVersion(w io.Writer) error {
	said := struct {
		Version   string `json:"gitVersion"`
		Commit    string `json:"gitCommit"`
		TreeState string `json:"gitTreeState"`
		Date      string `json:"buildDate"`
		Go        string `json:"goVersion"`
		Compiler  string `json:"compiler"`
		Platform  string `json:"platform"`
	}{version(), "unknown", "unknown", "unknown", runtime.Version(), runtime.Compiler, runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				said.Commit = s.Value
			case "vcs.time":
				said.Date = s.Value
			case "vcs.modified":
				said.TreeState = map[string]string{"false": "clean", "true": "dirty"}[s.Value]
			}
		}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(said)
}

// version is what the Go toolchain recorded: the module's version, or the
// commit of a build from a working tree.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return commit(info.Settings)
}

func commit(settings []debug.BuildSetting) string {
	revision, modified := "devel", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision" && s.Value != "":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	return revision + modified
}
