package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"time"
)

const (
	// manifestTypes is what containerd accepts, in fewer words.
	manifestTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
		"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, */*"

	readSize   = 256 << 10
	answerTime = 2 * time.Minute // one whole answer; a server that hangs is an error
)

// request writes a request of HTTP/1.1 as a client of registries does.
func request(method, addr, path string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: vidimus-bench\r\nAccept: %s\r\n\r\n", method, path, addr, manifestTypes)
}

// connection is one connection of a client that pulls: it takes one answer
// after the other.
type connection struct {
	net.Conn
	addr   string
	buffer []byte
	have   []byte // of buffer: read and not yet used
}

func dial(ctx context.Context, addr string) (*connection, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, addr: addr, buffer: make([]byte, readSize)}, nil
}

// errWrong is what a server is accused of that sent something other than what
// was to come.
var errWrong = errors.New("wrong answer")

// get gets what is at path, which has to be p. With hashed every byte is hashed
// on the way, as whoever pulls does; without only its length is looked at.
func (c *connection) get(ctx context.Context, path string, p part, hashed bool) error {
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if err := c.fetch(path, p, hashed); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("GET http://%s%s: %w", c.addr, path, err)
	}
	return nil
}

func (c *connection) fetch(path string, p part, hashed bool) error {
	if _, err := c.Write(request("GET", c.addr, path)); err != nil {
		return err
	}
	h, err := c.head()
	if err != nil {
		return err
	}
	if h.status != 200 {
		text, _ := io.ReadAll(io.LimitReader(c, min(h.length, 512)))
		return fmt.Errorf("%w: status %d: %s", errWrong, h.status, text)
	}
	if h.length != p.Size {
		return fmt.Errorf("%w: %d bytes, want %d", errWrong, h.length, p.Size)
	}
	var digest hash.Hash
	if hashed {
		digest = sha256.New()
	}
	for left := h.length; left > 0; {
		piece := c.have[:min(left, int64(len(c.have)))]
		if digest != nil {
			digest.Write(piece)
		}
		c.have = c.have[len(piece):]
		if left -= int64(len(piece)); left > 0 {
			if err := c.more(); err != nil {
				return fmt.Errorf("%d of %d bytes are missing: %w", left, p.Size, err)
			}
		}
	}
	if len(c.have) > 0 {
		return fmt.Errorf("%w: bytes come after its end", errWrong)
	}
	if digest != nil {
		if got := digestOf(digest); got != p.Digest {
			return fmt.Errorf("%w: its digest is %s", errWrong, got)
		}
	}
	return nil
}

// head reads up to the end of the head of an answer.
func (c *connection) head() (head, error) {
	held := 0
	for {
		n, err := c.Conn.Read(c.buffer[held:])
		held += n
		h, size, errHead := parseHead(c.buffer[:held])
		if size > 0 || errHead != nil {
			c.have = c.buffer[size:held]
			return h, errHead
		}
		if err != nil {
			return head{}, err
		}
	}
}

// more reads what comes next. Nothing is held when it is called.
func (c *connection) more() error {
	n, err := c.Conn.Read(c.buffer)
	c.have = c.buffer[:n]
	if n > 0 {
		return nil
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read implements io.Reader for the body of an answer.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.have) == 0 {
		if err := c.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.have)
	c.have = c.have[n:]
	return n, nil
}
