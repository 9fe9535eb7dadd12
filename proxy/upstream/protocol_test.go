package upstream

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestAnUpstreamThatSwitchesProtocols answers 101 to what asked for nothing of the kind,
// and says no more. net/http hands the whole connection over then, which no context ends.
func TestAnUpstreamThatSwitchesProtocols(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
				}
			}()
		}
	}()
	client, err := New(Config{Name: "local", URL: "http://" + listener.Addr().String(), Timeouts: Timeouts{Whole: 200 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	digest := v1.Hash{Algorithm: "sha256", Hex: "a5df3fde7b200c3fa2791144c7e05c5c2bced4c6ad863d3a4cf76c972c1712f9"}
	for name, ask := range map[string]func() error{
		"a manifest": func() error {
			_, _, _, err := client.Manifest(t.Context(), "acme/web", "v1", v1.Hash{})
			return err
		},
		"a blob": func() error {
			_, _, err := client.Blob(t.Context(), "acme/web", digest, 0)
			return err
		},
		"the head of a blob": func() error {
			_, err := client.Exists(t.Context(), "acme/web", digest)
			return err
		},
		"a manifest that is put": func() error {
			_, err := client.PutManifest(t.Context(), "acme/web", "v1", "application/vnd.oci.image.index.v1+json", []byte("{}"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			go func() { done <- ask() }()
			select {
			case err := <-done:
				if e, ok := err.(*Error); !ok || e.Kind() != KindMismatch {
					t.Errorf("got %v, want a mismatch", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it is waited for for ever")
			}
		})
	}
}
