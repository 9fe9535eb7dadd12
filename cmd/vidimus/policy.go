package main

import (
	"github.com/spf13/cobra"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test policies, or try Rego",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyTestCommand(), newPolicyEvalCommand())
	for _, name := range []string{"suggest", "replay", "import"} {
		cmd.AddCommand(newLaterCommand(name))
	}
	return cmd
}
