package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// modernSpelling turns the long flags with one dash that the first cosign had, as
// -key cosign.key, into today's. Only what is a long flag of the command to the
// letter is turned: -rf stays what it is, and so does the value of another flag.
func modernSpelling(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root || cmd.DisableFlagParsing {
		return args
	}
	turned := append([]string{}, args[:len(args)-len(rest)]...)
	if !sameWords(args, turned, rest) { // flags stand before the command
		return args
	}
	value := false // what comes is the value of the flag before
	for i, arg := range rest {
		switch {
		case value:
			value = false
		case arg == "--":
			return append(turned, rest[i:]...)
		case strings.HasPrefix(arg, "--"):
			value = takesValue(lookupLong(cmd, arg[2:]), arg)
		case len(arg) == 2 && arg[0] == '-':
			value = takesValue(cmd.Flags().ShorthandLookup(arg[1:]), arg)
		case len(arg) > 3 && arg[0] == '-':
			if flag := lookupLong(cmd, arg[1:]); flag != nil {
				arg = "-" + arg
				value = takesValue(flag, arg)
			}
		}
		turned = append(turned, arg)
	}
	return turned
}

func sameWords(args, words, rest []string) bool {
	for i, word := range words {
		if args[i] != word || strings.HasPrefix(word, "-") {
			return false
		}
	}
	for i, arg := range rest {
		if args[len(words)+i] != arg {
			return false
		}
	}
	return true
}

// lookupLong returns the flag that is called so, or so before "=".
func lookupLong(cmd *cobra.Command, text string) *pflag.Flag {
	called, _, _ := strings.Cut(text, "=")
	return cmd.Flags().Lookup(called)
}

// takesValue reports whether the next argument is the value of flag, as it stands
// in arg.
func takesValue(flag *pflag.Flag, arg string) bool {
	return flag != nil && flag.NoOptDefVal == "" && !strings.Contains(arg, "=")
}
