package main

import (
	"net/http"
	"time"
)

// pace is how fast the origin answers. The zero value is as fast as it can.
type pace struct {
	// Latency passes before the first byte of each answer, and once more before
	// that of the first answer on a connection, as it takes a handshake of TCP
	// to get there.
	Latency time.Duration `json:"latency"`
	// Rate is how many bytes a second of one body go out; 0 is without a limit.
	// Bodies do not share it.
	Rate int64 `json:"rate"`
}

const (
	// firstPiece is small, so that the first byte of a body is not held back
	// until a large piece would have come.
	firstPiece = 16 << 10
	pacedPiece = 128 << 10
	freePiece  = 1 << 20
	// maxBehind is how much a body that was held up may catch up with: what a
	// line would have kept in its buffers.
	maxBehind = 10 * time.Millisecond
)

// wait lets the latency of one answer pass.
func (p pace) wait(fresh bool) {
	if fresh {
		time.Sleep(2 * p.Latency)
		return
	}
	time.Sleep(p.Latency)
}

// send writes the bytes of b from offset up to end, each when its turn is, and
// tells sent of those that went out.
func (p pace) send(w http.ResponseWriter, b blob, offset, end int64, sent func(int64)) error {
	piece := int64(freePiece)
	if p.Rate > 0 {
		piece = firstPiece
	}
	begun, from := time.Now(), offset
	for offset < end {
		data := b.at(offset, min(piece, end-offset))
		if p.Rate > 0 {
			due := begun.Add(time.Duration(float64(offset+int64(len(data))-from) / float64(p.Rate) * float64(time.Second)))
			if behind := time.Since(due); behind < 0 {
				time.Sleep(-behind)
			} else if behind > maxBehind {
				begun = begun.Add(behind - maxBehind)
			}
			piece = pacedPiece
		}
		n, err := w.Write(data)
		sent(int64(n))
		if err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}
