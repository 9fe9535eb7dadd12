package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vidimus/signer/identity"
)

// publicIssuer is that of Sigstore's public instance, at which people sign in.
const publicIssuer = "https://oauth2.sigstore.dev/auth"

// identityFlags say who signs without a key, with cosign's names.
type identityFlags struct {
	identityToken string
	provider      string
	noAmbient     bool
	flow          string
	issuer        string
	clientID      string
	secretFile    string
	redirect      string
}

func (f *identityFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.identityToken, "identity-token", "", "sign without a key, as whoever this `TOKEN` is of: the token, or a file that holds it (SIGSTORE_ID_TOKEN)")
	flags.StringVar(&f.provider, "oidc-provider", "", "take the token of this `PROVIDER` alone: "+identity.Variable+", "+identity.GitHub+" or "+identity.Filesystem)
	flags.BoolVar(&f.noAmbient, "oidc-disable-ambient-providers", false, "take no token that is there where this runs")
	flags.StringVar(&f.flow, "fulcio-auth-flow", "", "how a person signs in: normal (a browser here), device (any browser), client_credentials or token (default by where this runs)")
	flags.StringVar(&f.issuer, "oidc-issuer", publicIssuer, "the OpenID issuer at which a person signs in")
	flags.StringVar(&f.clientID, "oidc-client-id", "sigstore", "what the issuer knows this program as")
	flags.StringVar(&f.secretFile, "oidc-client-secret-file", "", "`FILE` with the client's secret, where it has one")
	flags.StringVar(&f.redirect, "oidc-redirect-url", "", "where the browser comes back to, on this machine (default http://localhost:0/auth/callback)")
}

// otherProviders are those of cosign's that are not asked, and what gets their tokens.
func otherProviders() map[string]string {
	return map[string]string{
		"spiffe":                   "spire-agent api fetch jwt -audience sigstore",
		"google":                   "gcloud auth print-identity-token --audiences=sigstore",
		"google-workload-identity": "gcloud auth print-identity-token --audiences=sigstore",
		"google-impersonate":       "gcloud auth print-identity-token --audiences=sigstore --include-email --impersonate-service-account=ACCOUNT",
		"buildkite-agent":          "buildkite-agent oidc request-token --audience sigstore",
	}
}

// checkIdentity finds what is wrong with the flags before anybody is asked.
func (f *identityFlags) checkIdentity(key string, given bool) error {
	if key != "" && given {
		return errors.New("--key and --identity-token: one of them signs")
	}
	switch f.flow {
	case "", "normal", "device", "client_credentials":
	case "token":
		if key == "" && !given {
			return errors.New("--fulcio-auth-flow token: give the token with --identity-token")
		}
	default:
		return fmt.Errorf("--fulcio-auth-flow %q: want normal, device, client_credentials or token", f.flow)
	}
	switch f.provider {
	case "", identity.Variable, identity.GitHub, identity.Filesystem:
		if f.provider != "" && f.noAmbient {
			return errors.New("--oidc-provider and --oidc-disable-ambient-providers contradict each other")
		}
		return nil
	}
	if command, ok := otherProviders()[f.provider]; ok {
		return fmt.Errorf("--oidc-provider %s is not supported: give its token with --identity-token or SIGSTORE_ID_TOKEN (%s)", f.provider, command)
	}
	return fmt.Errorf("--oidc-provider %q: want %s, %s or %s", f.provider, identity.Variable, identity.GitHub, identity.Filesystem)
}

// givenToken is the one of --identity-token.
func (f *identityFlags) givenToken() (string, error) {
	if identity.IsToken(f.identityToken) {
		return f.identityToken, nil
	}
	data, err := readBounded(f.identityToken)
	if err != nil {
		return "", fmt.Errorf("--identity-token is neither a token nor a file that can be read: %w", withoutPath(err))
	}
	return strings.TrimSpace(string(data)), nil
}

// withoutPath keeps what may be a damaged token out of a message.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}

// token is that of whoever signs without a key: given, there where this runs, or an
// issuer's, at which a person signs in.
func (f *identityFlags) token(ctx context.Context, cmd *cobra.Command, issuer string) (string, error) {
	if cmd.Flags().Changed("identity-token") {
		token, err := f.givenToken()
		if err != nil {
			return "", misuse(err)
		}
		return token, nil
	}
	if !f.noAmbient {
		ambient := identity.Ambient{Audience: "sigstore"}
		token, err := ambient.Token(ctx, f.provider)
		if err == nil || f.provider != "" || !errors.Is(err, identity.ErrNone) {
			return token, err
		}
		if os.Getenv("BUILDKITE_AGENT_ACCESS_TOKEN") != "" {
			return "", misuse(fmt.Errorf("say who signs with SIGSTORE_ID_TOKEN=$(%s)", otherProviders()["buildkite-agent"]))
		}
	}
	return f.signIn(ctx, cmd, issuer)
}

// signIn has a person sign in. Where there is none at a terminal, any device will do.
func (f *identityFlags) signIn(ctx context.Context, cmd *cobra.Command, issuer string) (string, error) {
	errs := cmd.ErrOrStderr()
	client := identity.Client{
		Issuer: issuer, ID: f.clientID, Redirect: f.redirect,
		Tell: func(text string) { fmt.Fprintln(errs, text) },
	}
	if f.secretFile != "" {
		secret, err := readBounded(f.secretFile)
		if err != nil {
			return "", misuse(fmt.Errorf("--oidc-client-secret-file: %w", err))
		}
		client.Secret = strings.TrimSpace(string(secret))
	}
	person := isTerminal(cmd.InOrStdin()) && isTerminal(errs)
	if person {
		client.Open = openBrowser
	}
	flow := f.flow
	if flow == "" {
		if flow = "normal"; !person {
			fmt.Fprintln(errs, "There is no terminal here: sign in on any device.")
			flow = "device"
		}
	}
	switch flow {
	case "normal":
		return client.Browser(ctx)
	case "client_credentials":
		return client.Credentials(ctx)
	}
	return client.Device(ctx)
}

// isTerminal reports whether a stream of a command is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// openBrowser shows a page in the person's browser.
func openBrowser(address string) error {
	command := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		command = []string{"open"}
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	browser := exec.Command(command[0], append(command[1:], address)...)
	if err := browser.Start(); err != nil {
		return err
	}
	go func() { _ = browser.Wait() }() // how it ends is the person's affair
	return nil
}
