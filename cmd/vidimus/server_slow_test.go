package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestWhoSendsNoMoreIsNotWaitedForForEver: net/http looks for the end of a body that
// nobody wants before it answers, and has no patience of its own.
func TestWhoSendsNoMoreIsNotWaitedForForEver(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing":                   "",
		"half a header":             "GET /v2/ HTTP/1.1\r\nHost: vidimus\r\n",
		"a body that does not come": "GET /v2/ HTTP/1.1\r\nHost: vidimus\r\nContent-Length: 5\r\n\r\n",
		"half a chunk":              "GET /v2/ HTTP/1.1\r\nHost: vidimus\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"one request":               "GET /v2/ HTTP/1.1\r\nHost: vidimus\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{logs: newLogs(logConfig{Level: "error"}, io.Discard)}
				listener := make(pipes, 1)
				s.add("registry", listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					io.WriteString(w, "{}")
				}), true)
				go s.listeners[0].server.Serve(listener)
				defer close(listener)
				client, end := net.Pipe()
				listener <- end
				go io.WriteString(client, sent)
				begin := time.Now()
				client.SetReadDeadline(begin.Add(time.Hour))
				_, err := io.Copy(io.Discard, client)
				if waited := time.Since(begin); err != nil || waited > 5*time.Minute {
					t.Errorf("the connection stands after %v: %v", waited, err)
				}
				client.Close()
			})
		})
	}
}
