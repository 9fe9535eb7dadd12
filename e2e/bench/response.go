package main

import (
	"bytes"
	"errors"
	"fmt"
)

// head is what a client needs to know of the head of an answer.
type head struct {
	status int
	length int64 // Content-Length
	closes bool  // the server closes the connection after this answer
}

// maxHead is the size of the largest head that is read.
const maxHead = 16 << 10

// parseHead reads the head of an HTTP/1.1 answer at the beginning of data, and
// returns its size, 0 when it is not complete. An answer whose length the head
// does not tell is an error: every registry tells it of what is pulled here.
func parseHead(data []byte) (h head, size int, err error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		if len(data) > maxHead {
			return head{}, 0, errors.New("the head of an answer is too large")
		}
		return head{}, 0, nil
	}
	line, rest, _ := bytes.Cut(data[:end+2], []byte("\r\n"))
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." {
		return head{}, 0, fmt.Errorf("not an answer of HTTP/1.1: %.40q", line)
	}
	status, ok := decimal(line[9:12])
	if !ok {
		return head{}, 0, fmt.Errorf("an answer without a status: %.40q", line)
	}
	h = head{status: int(status), length: -1, closes: line[7] == '0'}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if err := h.field(line); err != nil {
			return head{}, 0, err
		}
	}
	if h.length < 0 {
		return head{}, 0, fmt.Errorf("an answer (%d) without Content-Length", h.status)
	}
	return h, end + 4, nil
}

// field takes what is needed from one field of a head. The names' lengths are
// compared first, for most fields are of no interest.
func (h *head) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	switch colon {
	case len("Connection"):
		if bytes.EqualFold(line[:colon], []byte("Connection")) {
			h.closes = bytes.EqualFold(bytes.TrimSpace(line[colon+1:]), []byte("close"))
		}
	case len("Content-Length"):
		if !bytes.EqualFold(line[:colon], []byte("Content-Length")) {
			return nil
		}
		length, ok := decimal(bytes.TrimSpace(line[colon+1:]))
		if !ok {
			return fmt.Errorf("not a length: %.40q", line)
		}
		h.length = length
	}
	return nil
}

// decimal reads a number of at most 18 digits.
func decimal(digits []byte) (n int64, ok bool) {
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}
