package main

import (
	"crypto/sha256"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// uploads are the blobs that are being pushed to the origin. They are hashed, and not
// kept: nobody pulls them.
type uploads struct {
	mu    sync.Mutex
	begun int
	open  map[string]*upload
}

type upload struct {
	hash hash.Hash
	size int64
}

// uploadPath is where uploads are, below blobs/.
const uploadPath = "uploads/"

func (c call) isUpload() bool { return c.what == "blobs" && strings.HasPrefix(c.reference, uploadPath) }

// upload answers POST, PATCH and PUT.
func (o *origin) upload(w http.ResponseWriter, r *http.Request, c call, now pace) {
	id := strings.TrimPrefix(c.reference, uploadPath)
	o.uploads.mu.Lock()
	if r.Method == http.MethodPost {
		o.uploads.begun++
		id = strconv.Itoa(o.uploads.begun)
		o.uploads.open[id] = &upload{hash: sha256.New()}
	}
	u := o.uploads.open[id]
	if r.Method == http.MethodPut {
		delete(o.uploads.open, id)
	}
	o.uploads.mu.Unlock()
	if u == nil {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	if err := now.receive(r.Body, u); err != nil {
		fail(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
		return
	}
	status := http.StatusAccepted
	header := w.Header()
	header.Set("Location", "/v2/"+c.repository+"/blobs/"+uploadPath+id)
	header.Set("Range", "0-"+strconv.FormatInt(max(u.size-1, 0), 10))
	if r.Method == http.MethodPut {
		digest := digestOf(u.hash)
		if digest != r.URL.Query().Get("digest") {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		header.Set("Location", "/v2/"+c.repository+"/blobs/"+digest)
		status = http.StatusCreated
	}
	header.Set("Content-Length", "0")
	w.WriteHeader(status)
}

// receive reads and hashes a body, no faster than the rate.
func (p pace) receive(body io.Reader, u *upload) error {
	piece := make([]byte, freePiece)
	if p.Rate > 0 {
		piece = piece[:pacedPiece]
	}
	begun, from := time.Now(), u.size
	for {
		n, err := body.Read(piece)
		u.hash.Write(piece[:n])
		u.size += int64(n)
		if p.Rate > 0 {
			due := begun.Add(time.Duration(float64(u.size-from) / float64(p.Rate) * float64(time.Second)))
			if behind := time.Since(due); behind < 0 {
				time.Sleep(-behind)
			} else if behind > maxBehind {
				begun = begun.Add(behind - maxBehind)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
