package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"vidimus/signer"
)

// typing is a person at a terminal: the lines typed without being shown, and
// those typed in the open.
func typing(out *bytes.Buffer, hidden []string, shown string) prompter {
	return prompter{
		in: strings.NewReader(shown), out: out,
		lookupEnv: func(string) (string, bool) { return "", false },
		readPassword: func(context.Context) ([]byte, error) {
			if len(hidden) == 0 {
				return nil, errors.New("nobody types")
			}
			next := hidden[0]
			hidden = hidden[1:]
			return []byte(next), nil
		},
	}
}

// piped is standard input that is no terminal, with COSIGN_PASSWORD when it is
// not nil.
func piped(out *bytes.Buffer, stdin string, env *string) prompter {
	return prompter{in: strings.NewReader(stdin), out: out, lookupEnv: func(name string) (string, bool) {
		if env == nil || name != "COSIGN_PASSWORD" {
			return "", false
		}
		return *env, true
	}}
}

func TestPasswords(t *testing.T) {
	secret, none := "hunter2", ""
	var out bytes.Buffer
	for name, tt := range map[string]struct {
		p       prompter
		confirm bool
		want    string
		wrong   bool
	}{
		"from the environment":            {piped(&out, "other", &secret), true, "hunter2", false},
		"from the environment, empty":     {piped(&out, "other", &none), true, "", false},
		"from standard input, as it is":   {piped(&out, "hunter2\n", nil), true, "hunter2\n", false},
		"from standard input, none":       {piped(&out, "", nil), false, "", false},
		"from standard input, endless":    {piped(&out, strings.Repeat("x", maxPassword+1), nil), false, "", true},
		"typed once":                      {typing(&out, []string{"hunter2"}, ""), false, "hunter2", false},
		"typed twice":                     {typing(&out, []string{"hunter2", "hunter2"}, ""), true, "hunter2", false},
		"typed differently":               {typing(&out, []string{"hunter2", "hunter3"}, ""), true, "", true},
		"the terminal goes away":          {typing(&out, nil, ""), false, "", true},
		"the terminal goes away half way": {typing(&out, []string{"hunter2"}, ""), true, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.p.password(t.Context(), tt.confirm)
			if (err != nil) != tt.wrong || string(got.text) != tt.want {
				t.Errorf("%q, %v", got.text, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	if strings.Contains(out.String(), "hunter") {
		t.Error("a password is shown")
	}
}

func TestOnlyYesIsYes(t *testing.T) {
	var out bytes.Buffer
	for answer, want := range map[string]bool{
		"y\n": true, "Y\n": true, "yes\n": true, "y": true,
		"n\n": false, "\n": false, "": false, "yep\n": false, strings.Repeat("y", 100): false,
	} {
		if got, err := typing(&out, nil, answer).confirm(t.Context(), "?"); got != want || err != nil {
			t.Errorf("%q: %t, %v", answer, got, err)
		}
	}
	if got, err := piped(&out, "y\n", nil).confirm(t.Context(), "?"); got || err != nil {
		t.Errorf("nobody was asked and said %t, %v", got, err)
	}
}

func TestQuestionsEndWithTheContext(t *testing.T) {
	in, _ := io.Pipe() // nobody ever writes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	p := piped(&out, "", nil)
	p.in = in
	defer in.Close()
	if _, err := p.password(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("password: %v", err)
	}
	p.readPassword = typing(&out, nil, "").readPassword
	if yes, err := p.confirm(ctx, "?"); yes || !errors.Is(err, context.Canceled) {
		t.Errorf("confirm: %t, %v", yes, err)
	}
}

func TestGenerateKeyPairNeverOverwritesUnasked(t *testing.T) {
	isolate(t)
	secret := "hunter2"
	var out bytes.Buffer
	generate := func(p prompter) (string, error) {
		err := generateKeyPair(t.Context(), p, "k.key", "k.pub")
		key, readErr := os.ReadFile("k.key")
		if readErr != nil {
			t.Fatal(readErr)
		}
		return string(key), err
	}
	first, err := generate(piped(&out, "", &secret))
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{"k.key": 0o600, "k.pub": 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}

	for name, p := range map[string]prompter{
		"nobody to ask":     piped(&out, "y\ny\n", &secret),
		"a person says no":  typing(&out, []string{"a", "a"}, "n\n"),
		"a person says \\n": typing(&out, []string{"a", "a"}, "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := generate(p)
			if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitMisuse || got != first {
				t.Errorf("%v, changed: %t", err, got != first)
			}
		})
	}
	t.Run("not for the public key either", func(t *testing.T) {
		if err := os.Rename("k.key", "old.key"); err != nil {
			t.Fatal(err)
		}
		err := generateKeyPair(t.Context(), piped(&out, "", &secret), "k.key", "k.pub")
		if err == nil || !strings.Contains(err.Error(), "k.pub exists already") {
			t.Errorf("error %v", err)
		}
		if err := os.Rename("old.key", "k.key"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a person says yes", func(t *testing.T) {
		if err := os.Remove("k.pub"); err != nil {
			t.Fatal(err)
		}
		got, err := generate(typing(&out, []string{"", ""}, "y\n"))
		if err != nil || got == first {
			t.Errorf("%v, changed: %t", err, got != first)
		}
		if !strings.Contains(out.String(), "warning: the password is empty") {
			t.Errorf("no warning of an empty password: %s", out.String())
		}
	})
	if strings.Contains(out.String(), secret) {
		t.Error("the password is shown")
	}
}

func TestGenerateKeyPairRefusesOtherPlaces(t *testing.T) {
	isolate(t)
	for want, args := range map[string][]string{
		"kubectl create secret":                     {"k8s://ns/name"},
		"not stored at gitlab":                      {"gitlab://group/project"},
		"with --kms in a KMS":                       {"hashivault://release"},
		"takes no arguments":                        {"release"},
		"--kms: awskms:///alias: kms specification": {"--kms", "awskms:///alias"},
		"--kms: pkcs11:x: not a key":                {"--kms", "pkcs11:x"},
	} {
		var out output
		code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), strings.NewReader(""), args...)
		if code != exitMisuse || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: exit %d, %v", args, code, err)
		}
	}
}

func TestPublicKey(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	key := generateKey(t)
	private, err := signer.EncodePrivateKey(key, []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("k.key", private, 0o644); err != nil {
		t.Fatal(err)
	}

	t.Run("is printed, with a warning of a file that others can read", func(t *testing.T) {
		var out output
		code, err := out.execute(t.Context(), newPublicKeyCommand(), nil, "--key", "k.key")
		if code != exitHolds || !bytes.Equal(out.stdout.Bytes(), public) {
			t.Errorf("exit %d, %v: %s", code, err, out.stdout.String())
		}
		if !strings.Contains(out.stderr.String(), "warning: others than its owner can open k.key") {
			t.Errorf("stderr %s", out.stderr.String())
		}
	})
	t.Run("is written, from a key in the environment", func(t *testing.T) {
		t.Setenv("KEY", string(private))
		var out output
		code, err := out.execute(t.Context(), newPublicKeyCommand(), nil, "--key", "env://KEY", "--outfile", "k.pub")
		if got, readErr := os.ReadFile("k.pub"); code != exitHolds || readErr != nil || !bytes.Equal(got, public) || out.stdout.Len() != 0 {
			t.Errorf("exit %d, %v, %v", code, err, readErr)
		}
	})
	t.Run("never replaces a private key", func(t *testing.T) {
		if err := writePublicKey("k.key", public); err == nil {
			t.Error("no error")
		}
		if got, err := os.ReadFile("k.key"); err != nil || !bytes.Equal(got, private) {
			t.Errorf("%v, %s", err, got)
		}
		if err := writePublicKey("k.pub", public); err != nil {
			t.Errorf("a public key is not replaced: %v", err)
		}
	})
	t.Run("a password that ends in a line break is pointed out", func(t *testing.T) {
		var out bytes.Buffer
		_, err := loadPrivateKey(t.Context(), piped(&out, "hunter2\n", nil), "k.key")
		if !errors.Is(err, signer.ErrPassword) || !strings.Contains(err.Error(), "line break") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	})
	for name, tt := range map[string]struct{ key, want string }{
		"no key":             {"", "--key"},
		"a missing file":     {"missing.key", "no such file"},
		"a missing variable": {"env://MISSING", "not set"},
		"a public key":       {"k.pub", "not an encrypted"},
		"a KMS":              {"gcpkms://x", "gcpkms://x: kms specification"},
	} {
		t.Run(name+" is an error before anybody is asked", func(t *testing.T) {
			var out bytes.Buffer
			_, err := loadPrivateKey(t.Context(), typing(&out, nil, ""), tt.key)
			if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitMisuse || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
			if strings.Contains(out.String(), "password") {
				t.Errorf("asked: %s", out.String())
			}
		})
	}
}

func TestShellQuote(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "''",
		"cosign.pub":           "cosign.pub",
		"a b":                  "'a b'",
		"it's":                 `'it'\''s'`,
		"$(rm)":                "'$(rm)'",
		"env=prod":             "env=prod",
		"k$x.y":                "'k$x.y'",
		"r.test/a@sha256:0a":   "r.test/a@sha256:0a",
		"~/x":                  "'~/x'",
		"line\nbreak":          "'line\nbreak'",
		"registry.test:5000/a": "registry.test:5000/a",
	} {
		if got := shellQuote(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
