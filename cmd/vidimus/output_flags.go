package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/pflag"
)

// namesOutput reports whether a flag names a file that is written.
func namesOutput(flags *pflag.FlagSet, name string) bool {
	switch name {
	case "output-file", "output-certificate", "output-signature", "output-payload":
		return true
	case "bundle", "output", "rfc3161-timestamp":
		return flags.Lookup("tlog-upload") != nil // those that verify read them
	}
	return false
}

// refuseWritingOver returns an error where a file for output is one that the command
// reads, or holds a private key: it would be gone, in part before it was read.
func refuseWritingOver(flags *pflag.FlagSet, args []string) error {
	read := slices.Clone(args)
	var outputs []*pflag.Flag
	flags.Visit(func(f *pflag.Flag) {
		several, ok := f.Value.(pflag.SliceValue)
		switch {
		case namesOutput(flags, f.Name):
			outputs = append(outputs, f)
		case ok:
			read = append(read, several.GetSlice()...)
		default:
			read = append(read, f.Value.String())
		}
	})
	for _, f := range outputs {
		path := f.Value.String()
		there, err := os.Stat(path)
		if err != nil || !there.Mode().IsRegular() {
			continue
		}
		isRead := slices.ContainsFunc(read, func(name string) bool {
			other, err := os.Stat(name)
			return err == nil && os.SameFile(there, other)
		})
		if isRead || holdsPrivateKey(path, there) {
			return fmt.Errorf("--%s %s: it is read, or a private key, and would be written over: name another file", f.Name, path)
		}
	}
	return nil
}

// maxKeyPEM bounds what is looked at: no private key is larger.
const maxKeyPEM = 64 << 10

func holdsPrivateKey(path string, info fs.FileInfo) bool {
	if info.Size() > maxKeyPEM {
		return false
	}
	data, err := os.ReadFile(path)
	return err != nil || bytes.Contains(data, []byte("PRIVATE KEY-----")) // of which nobody can tell, too
}
