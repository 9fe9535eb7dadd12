package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strings"

	"vidimus/signer"
	"vidimus/signer/kms"
)

// loadPrivateKey opens the private key that --key names: a file, env://NAME for
// the content of one, or a key in a KMS. A file is checked before anybody is asked
// for its password.
func loadPrivateKey(ctx context.Context, p prompter, key string) (crypto.Signer, error) {
	if kms.IsReference(key) {
		if err := kms.Check(key); err != nil {
			return nil, misuse(fmt.Errorf("--key: %w", err))
		}
		opened, err := kms.Open(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		return opened, nil
	}
	file, err := readPrivateKey(key)
	if err != nil {
		return nil, misuse(err)
	}
	if err := signer.CheckPrivateKey(file.Data); err != nil {
		return nil, misuse(fmt.Errorf("%s: %w", key, err))
	}
	if file.Exposed != 0 {
		fmt.Fprintf(p.out, "warning: others than its owner can open %s, and then only the password protects it: chmod 600 %s\n",
			key, shellQuote(key))
	}
	password, err := p.password(ctx, false)
	if err != nil {
		return nil, err
	}
	parsed, err := signer.ParsePrivateKey(file.Data, password.text)
	switch {
	case errors.Is(err, signer.ErrPassword) && password.piped && len(password.text) == 0:
		return nil, misuse(fmt.Errorf("%s: no password was given: set COSIGN_PASSWORD, or run this on a terminal", key))
	case errors.Is(err, signer.ErrPassword) && password.piped && strings.HasSuffix(string(password.text), "\n"):
		return nil, misuse(fmt.Errorf("%s: %w (the password on standard input ends in a line break, which counts)", key, err))
	case err != nil:
		return nil, misuse(fmt.Errorf("%s: %w", key, err))
	}
	return parsed, nil
}

func readPrivateKey(key string) (signer.KeyFile, error) {
	if key == "" {
		return signer.KeyFile{}, errors.New("say which private key with --key")
	}
	if variable, ok := strings.CutPrefix(key, "env://"); ok {
		value, set := os.LookupEnv(variable)
		if !set {
			return signer.KeyFile{}, fmt.Errorf("--key: the environment variable %s is not set", variable)
		}
		return signer.KeyFile{Data: []byte(value)}, nil
	}
	if scheme, _, ok := strings.Cut(key, "://"); ok {
		return signer.KeyFile{}, fmt.Errorf("--key: keys of %s are not supported; those of awskms, gcpkms, azurekms, hashivault and env are", scheme)
	}
	file, err := signer.ReadKeyFile(key)
	if err != nil {
		return signer.KeyFile{}, fmt.Errorf("--key: %w", err)
	}
	return file, nil
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:@=+,%", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
