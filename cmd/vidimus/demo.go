package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vidimus/signer"
)

// demoAddr is where the demonstration's proxy listens when it can.
const demoAddr = "127.0.0.1:5080"

func newDemoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show what is served and what is refused, with everything embedded",
		Long: `Start a registry, push signed, unsigned, wrongly signed and tampered images to
it, start the proxy in front of it, and pull each as a client does. Everything
is on loopback and in memory, and gone afterwards. Then the proxy stays up, for
docker pull and a look around; --once ends instead, with 1 when something did
not go as it should.`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return unlessUnread(runDemo(cmd.Context(), cmd.OutOrStdout(), once))
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the table")
	return cmd
}

// unlessUnread says nothing more of it to somebody who has stopped reading.
func unlessUnread(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return &exitError{code: exitUnknown}
	}
	return err
}

func runDemo(ctx context.Context, out io.Writer, once bool) error {
	// Else a reader that leaves (demo | head) would end the process on the spot,
	// and what is in the directory would stay.
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	defer signal.Stop(unread)
	directory, err := os.MkdirTemp("", "vidimus-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	upstream, err := startDemoUpstream(ctx, directory)
	if err != nil {
		return err
	}
	defer upstream.Close()
	config := filepath.Join(directory, "vidimus.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, demoConfig, demoAddr, upstream.Addr), 0o644); err != nil {
		return err
	}
	s, err := newServer(serverConfig{
		From: fromFile(config), Lookup: os.LookupEnv, Stdout: io.Discard, Stderr: io.Discard,
		Drain: time.Second, Listen: listenLoopback,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()

	d := demonstration{out: out, server: s, upstream: upstream.Addr, config: config}
	err = d.show(ctx, once)
	stop()
	return errors.Join(err, <-ended)
}

// show pulls every image, and unless this is to be all invites a person to do so
// until ctx ends.
func (d *demonstration) show(ctx context.Context, once bool) error {
	if err := d.pullAll(ctx); err != nil || once {
		return err
	}
	if err := d.invite(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// startDemoUpstream starts the upstream with its images, and writes the public
// key that signed them to directory.
func startDemoUpstream(ctx context.Context, directory string) (*http.Server, error) {
	key, err := signer.GenerateKey()
	if err != nil {
		return nil, err
	}
	other, err := signer.GenerateKey()
	if err != nil {
		return nil, err
	}
	public, err := signer.EncodePublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(directory, "cosign.pub"), public, 0o644); err != nil {
		return nil, err
	}
	listener, err := listenLoopback("")
	if err != nil {
		return nil, err
	}
	upstream := newDemoUpstream()
	server := &http.Server{Addr: listener.Addr().String(), Handler: upstream, ReadHeaderTimeout: headerPatience}
	go server.Serve(listener) // until Close
	if err := upstream.fill(ctx, server.Addr, key, other); err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

// demoConfig is a whole configuration: what a first real one looks like.
const demoConfig = `version: 1
http: {addr: %q}
metrics: {addr: ""}
admin: {addr: "127.0.0.1:0"}

upstreams:
  demo: {url: "http://%s"}
defaultUpstream: demo

authorities:
  release: {keys: [cosign.pub]}

policies:
  - match: "demo/acme/**"
    name: production
    require: release
    signedAs: repository
    message: "This is the message of the policy: say here how to get an image signed."
`

// demonstration shows what the proxy does with each image.
type demonstration struct {
	out      io.Writer
	server   *server
	upstream string
	config   string
}

// pullAll pulls every image and prints what became of it. Its error says that
// something came out other than it should, or that nobody reads.
func (d *demonstration) pullAll(ctx context.Context) error {
	if _, err := fmt.Fprintf(d.out, "An upstream registry is at %s, and Vidimus in front of it at %s.\nEach image is pulled through Vidimus as docker does:\n\n", d.upstream, d.server.address()); err != nil {
		return err
	}
	client := demoClient{base: "http://" + d.server.address(), http: &http.Client{Timeout: time.Minute}}
	var surprise error
	for _, image := range demoImages {
		result := client.pull(ctx, image.repository, "v1")
		if err := d.print(image, result); err != nil {
			return err
		}
		if (result.err == nil) != image.served {
			surprise = doesNotHold(errDemoSurprise)
		}
	}
	if _, err := fmt.Fprintln(d.out); err != nil {
		return err
	}
	return surprise
}

// demoWidth is the width of the text beside the table's first column.
const demoWidth = 76

func (d *demonstration) print(image demoImage, result pulled) error {
	outcome, text := "SERVED ", fmt.Sprintf("the manifest and %d blobs, every byte hashed", result.blobs)
	if result.err != nil {
		outcome, text = "REFUSED", result.err.Error()
	}
	if result.err != nil && result.manifest {
		text = "the policy allowed it; the upstream's bytes of a layer are not what was signed: " + text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s:v1 — %s\n", outcome, image.repository, image.what)
	for _, line := range wrap(text, demoWidth) {
		fmt.Fprintf(&b, "         %s\n", line)
	}
	_, err := io.WriteString(d.out, b.String())
	return err
}

// invite says what can be tried while the proxy stays up.
func (d *demonstration) invite() error {
	address := d.server.address()
	admin := d.server.listeners[len(d.server.listeners)-1].Addr().String()
	_, err := fmt.Fprintf(d.out, `Vidimus stays up until Ctrl-C. Docker pulls from loopback without further ado:

  docker pull %[1]s/acme/signed:v1
  docker pull %[1]s/acme/unsigned:v1

Ask why, or what was decided (go run ./cmd/vidimus in place of vidimus):

  vidimus explain --config %[2]s demo/acme/wrongkey:v1
  vidimus decisions --server http://%[3]s --reason denied

The configuration is %[2]s.
`, address, d.config, admin)
	return err
}
