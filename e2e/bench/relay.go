package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
)

// relayPiece is read, hashed and written at once; smaller and larger ones were
// no faster.
const relayPiece = 128 << 10

// runRelay passes connections on to target, with what clients send hashed on the
// way, and says where on stdout, until stdin or ctx ends.
func runRelay(ctx context.Context, target string, stdin io.Reader, stdout io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(listener.Addr().String()); err != nil {
		return errors.Join(err, listener.Close())
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		_ = listener.Close()
	}()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go relayConnection(client, target)
	}
}

// relayConnection passes one connection on. What goes wrong the client sees, whose
// connection ends.
func relayConnection(client net.Conn, target string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer upstream.Close()
	go func() {
		_, _ = io.Copy(client, upstream)
		_ = client.Close()
	}()
	h, piece := sha256.New(), make([]byte, relayPiece)
	for {
		n, err := client.Read(piece)
		h.Write(piece[:n])
		if _, errWrite := upstream.Write(piece[:n]); err != nil || errWrite != nil {
			return
		}
	}
}
