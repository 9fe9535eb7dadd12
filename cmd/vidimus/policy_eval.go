package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vidimus/policy/rego"
)

type policyEvalFlags struct {
	registryFlags
	files    []string
	input    string
	output   string
	platform string
	timeout  time.Duration
}

func newPolicyEvalCommand() *cobra.Command {
	var f policyEvalFlags
	cmd := &cobra.Command{
		Use:   "eval [-f FILE.rego]... [-i INPUT.json] QUERY",
		Short: "Evaluate Rego, with functions that look at images and signatures",
		Long: `Evaluate a query in Rego and print its value. Besides what a policy's Rego may
call there are functions that ask registries, with docker's credentials:

  oci.manifest(ref)          the manifest or index of an image, as it is
  oci.file(ref, path)        what a file in the image's layers holds, as text; undefined
                             when there is none. Links are followed within the image.
  cosign.signatures(ref)     the signatures found beside an image, none of them checked:
                             a list of {Base64Signature, Payload, Source}; Payload is
                             base64, too, of a payload or, in a bundle, a statement
  cosign.verify(ref, key)    those by key that hold; undefined when none does. key is
                             what verify --key takes, or a whole PEM block

A function is undefined where there is no such image, and its call ends the command
where nobody can tell. A server's policies have none of these: they see verified
evidence alone.

Exit code 0: the query is defined and not false; 1: it is not; 2: misuse, or a fault
in the Rego; 3: could not tell.`,
		Example: `  vidimus policy eval 'cosign.verify("ghcr.io/acme/web:v1", "cosign.pub")'
  vidimus policy eval -f base.rego -i '{"image": "ghcr.io/acme/web:v1"}' data.base.allow
  vidimus policy eval 'startswith(oci.file("alpine:3", "/etc/os-release"), "NAME=\"Alpine")'`,
		Args: takesOne("one query"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "`FILE` of Rego, of any package; may be repeated")
	flags.StringVarP(&f.input, "input", "i", "", "file of JSON that is the input, - for standard input, or an object itself")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	flags.StringVar(&f.platform, "platform", "linux/amd64", "of an index, the image whose files are read")
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	f.register(cmd)
	cmd.Flag("allow-insecure-registry").Hidden = true // it is refused where there is a certificate
	return cmd
}

func (f *policyEvalFlags) run(cmd *cobra.Command, query string) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	question := rego.Question{Query: query, Modules: make(map[string][]byte), Print: cmd.ErrOrStderr()}
	for _, file := range f.files {
		source, err := readRegular(file, rego.MaxSource)
		if err != nil {
			return misuse(fmt.Errorf("--file: %s", plainError(err)))
		}
		question.Modules[file] = source
	}
	var err error
	if question.Input, err = f.readInput(cmd.InOrStdin()); err != nil {
		return misuse(fmt.Errorf("--input: %w", err))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	asking := askingImages{registryFlags: &f.registryFlags, platform: f.platform}
	defer asking.close()
	question.Functions = asking.functions()
	found, err := rego.Eval(ctx, question)
	if _, ok := errors.AsType[*rego.Fault](err); ok {
		return misuse(err)
	}
	if err != nil {
		return err
	}
	if err := f.print(cmd.OutOrStdout(), found); err != nil {
		return err
	}
	if !found.Holds() {
		return &exitError{code: exitDoesNotHold}
	}
	return nil
}

// maxInput is how many bytes of input are read.
const maxInput = 64 << 20

// readInput returns the input; nil when there is none.
func (f *policyEvalFlags) readInput(stdin io.Reader) ([]byte, error) {
	switch {
	case f.input == "":
		return nil, nil
	case f.input[0] == '{':
		return []byte(f.input), nil
	case f.input != "-":
		data, err := readRegular(f.input, maxInput)
		if err != nil {
			return nil, errors.New(plainError(err))
		}
		return data, nil
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = fmt.Errorf("larger than %d MiB", maxInput>>20)
	}
	return data, err
}

// print shows each solution: its variables when it has any, else its value.
func (f *policyEvalFlags) print(w io.Writer, found rego.Answer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if f.output == "json" {
		return encoder.Encode(struct {
			Holds bool `json:"holds"`
			rego.Answer
		}{found.Holds(), found})
	}
	for _, s := range found.Solutions {
		shown := s.Value
		if len(s.Bindings) > 0 {
			shown = s.Bindings
		}
		if err := encoder.Encode(shown); err != nil {
			return err
		}
	}
	if len(found.Solutions) == 0 {
		_, err := fmt.Fprintln(w, "undefined")
		return err
	}
	return nil
}
