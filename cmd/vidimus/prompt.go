package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxPassword is how much of standard input is taken for a password.
const maxPassword = 64 << 10

// prompter asks a person, or what stands in for one: COSIGN_PASSWORD, and
// standard input when it is not a terminal, as cosign does.
type prompter struct {
	in        io.Reader
	out       io.Writer
	lookupEnv func(string) (string, bool)

	// readPassword reads a line from the terminal without showing it; nil when
	// standard input is none.
	readPassword func(context.Context) ([]byte, error)
}

// password is one that was given, and where it came from.
type password struct {
	text  []byte
	piped bool // from standard input, as it is: a line break at its end counts
}

func newPrompter(cmd *cobra.Command) prompter {
	p := prompter{in: cmd.InOrStdin(), out: cmd.ErrOrStderr(), lookupEnv: os.LookupEnv}
	if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.readPassword = func(ctx context.Context) ([]byte, error) { return readTerminal(ctx, int(f.Fd())) }
	}
	return p
}

// password returns the password of a private key; confirm asks twice when a
// person types it.
func (p prompter) password(ctx context.Context, confirm bool) (password, error) {
	if value, ok := p.lookupEnv("COSIGN_PASSWORD"); ok {
		return password{text: []byte(value)}, nil
	}
	if p.readPassword == nil {
		data, err := await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(p.in, maxPassword+1)) })
		if err != nil {
			return password{}, fmt.Errorf("read the password from standard input: %w", err)
		}
		if len(data) > maxPassword {
			return password{}, fmt.Errorf("the password on standard input is longer than %d bytes", maxPassword)
		}
		return password{text: data, piped: true}, nil
	}
	first, err := p.ask(ctx, "Enter password for private key: ")
	if err != nil || !confirm {
		return password{text: first}, err
	}
	second, err := p.ask(ctx, "Enter password for private key again: ")
	if err != nil {
		return password{}, err
	}
	if !bytes.Equal(first, second) {
		return password{}, misuse(errors.New("the passwords do not match"))
	}
	return password{text: first}, nil
}

func (p prompter) ask(ctx context.Context, question string) ([]byte, error) {
	fmt.Fprint(p.out, question)
	answer, err := p.readPassword(ctx)
	fmt.Fprintln(p.out)
	if err != nil {
		return nil, fmt.Errorf("read the password from the terminal: %w", err)
	}
	return answer, nil
}

// confirm asks a question whose answer is no unless a person says yes. Where
// nobody can be asked it is no.
func (p prompter) confirm(ctx context.Context, question string) (bool, error) {
	if p.readPassword == nil {
		return false, nil
	}
	fmt.Fprint(p.out, question, " [y/N] ")
	line, err := await(ctx, func() ([]byte, error) {
		return bufio.NewReader(io.LimitReader(p.in, 64)).ReadBytes('\n')
	})
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(p.out)
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(string(line))) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readTerminal reads a line that is not shown. When ctx ends the terminal is
// put back to how it was.
func readTerminal(ctx context.Context, fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	text, err := await(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if ctx.Err() != nil {
		err = errors.Join(err, term.Restore(fd, before))
	}
	return text, err
}

// await returns what read returns, or the context's error when that ends
// first. A read that has begun cannot be taken back: it ends with the process.
func await(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type answer struct {
		text []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := read()
		done <- answer{text, err}
	}()
	select {
	case a := <-done:
		return a.text, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
