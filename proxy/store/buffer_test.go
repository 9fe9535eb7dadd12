package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

func TestSlowClientsHoldLittleMemory(t *testing.T) {
	const clients = 500
	data := sample(1, 4*chunkSize)
	for name, begin := range map[string]func(t *testing.T) (s *Store, joined func()){
		"of what is known": func(t *testing.T) (*Store, func()) {
			s := mustOpen(t, Config{Directory: t.TempDir()})
			mustStore(t, s, data)
			return s, func() {}
		},
		"of what they look at together": func(t *testing.T) (*Store, func()) {
			release := make(chan struct{})
			s := mustOpen(t, Config{Directory: unseen(t, data), files: func(under files) files {
				return &faulty{files: under, fault: func(op, _ string) (bool, error) {
					if op == "read" {
						<-release
					}
					return true, nil
				}}
			}})
			return s, func() { close(release) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, joined := begin(t)
			var slow []io.ReadCloser
			for range clients {
				r, _, err := s.Fetch(t.Context(), owner, digestOf(data), int64(len(data)), 0, -1, forbidden(t))
				if err != nil {
					t.Fatal(err)
				}
				slow = append(slow, r)
			}
			joined()
			quiet(s)
			for _, r := range slow {
				if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			// As much as may be lent before it is lent sparingly, what the last of
			// those was lent, and a block for each.
			if lent := s.buffers.lent.Load(); lent == 0 || lent > maxLent+2*chunkSize+clients*blockSize {
				t.Errorf("%d clients hold %d bytes", clients, lent)
			}
			mustRead(t, slow[0], -1, data[1:])
			mustRead(t, slow[clients-1], -1, data[1:])
			for _, r := range slow {
				r.Close()
			}
			if lent := s.buffers.lent.Load(); lent != 0 {
				t.Errorf("%d bytes are still lent", lent)
			}
		})
	}
}

func TestWhatIsLentIsGivenBackHoweverAReaderEnds(t *testing.T) {
	data := sample(1, 10*chunkSize+1000)
	size := int64(len(data))
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	onDisk := func(t *testing.T) Config { return Config{Directory: t.TempDir()} }
	inMemory := func(*testing.T) Config { return Config{} }
	tooSmall := func(t *testing.T) Config { return Config{Directory: t.TempDir(), MaxSize: 1000} }
	full := func(t *testing.T) Config { return Config{Directory: t.TempDir(), files: broken("write")} }
	looked := func(t *testing.T) Config { return Config{Directory: unseen(t, data)} }
	rotten := func(t *testing.T) Config {
		dir := unseen(t, data)
		spoil(t, dir, data, len(data)-1)
		return Config{Directory: dir}
	}
	right, lie := (&upstream{data: data}).from, (&upstream{data: wrong}).from
	breaks := func(context.Context, int64) (io.ReadCloser, int64, error) {
		return brokenAfter(nil, io.ErrUnexpectedEOF), -1, nil
	}
	nothing := func(context.Context, int64) (io.ReadCloser, int64, error) { return nil, 0, errors.New("gone") }
	const all = -1
	for name, row := range map[string]struct {
		config func(t *testing.T) Config
		known  bool // it is stored before
		decays bool // and rots then
		read   int  // bytes, or all
		from   origin
		fails  bool
	}{
		"arriving, read":                     {config: onDisk, read: all, from: right},
		"arriving, left":                     {config: onDisk, read: 3*chunkSize + 10, from: right},
		"arriving in memory, left":           {config: inMemory, read: 3*chunkSize + 10, from: right},
		"arriving, of a lie":                 {config: onDisk, read: all, from: lie, fails: true},
		"arriving, broken":                   {config: onDisk, read: all, from: breaks, fails: true},
		"known, read":                        {config: onDisk, known: true, read: all},
		"known, left":                        {config: onDisk, known: true, read: 10},
		"known in memory, left":              {config: inMemory, known: true, read: chunkSize + 10},
		"known, rotten, healed":              {config: onDisk, known: true, decays: true, read: all, from: right},
		"known, rotten, healed and left":     {config: onDisk, known: true, decays: true, read: 4 * chunkSize, from: right},
		"known, rotten, and a lie":           {config: onDisk, known: true, decays: true, read: all, from: lie, fails: true},
		"known, rotten, broken":              {config: onDisk, known: true, decays: true, read: all, from: breaks, fails: true},
		"looked at, read":                    {config: looked, read: all},
		"looked at, left":                    {config: looked, read: 10},
		"looked at, rotten, healed":          {config: rotten, read: all, from: right},
		"looked at, rotten, healed and left": {config: rotten, read: int(size) - 10, from: right},
		"looked at, rotten, and a lie":       {config: rotten, read: all, from: lie, fails: true},
		"looked at, rotten, broken":          {config: rotten, read: all, from: breaks, fails: true},
		"passed through, read":               {config: tooSmall, read: all, from: right},
		"passed through, left":               {config: tooSmall, read: 10, from: right},
		"passed through, of a lie":           {config: tooSmall, read: all, from: lie, fails: true},
		"passed through, broken":             {config: tooSmall, read: all, from: breaks, fails: true},
		"passed through, of nothing":         {config: tooSmall, read: all, from: nothing, fails: true},
		"on a full disk, read":               {config: full, read: all, from: right},
		"on a full disk, left":               {config: full, read: 10, from: right},
		"on a full disk, of a lie":           {config: full, read: all, from: lie, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config, rot := row.config(t), newRotting()
				if row.decays {
					config.files = rot.wrap
				}
				s := mustOpen(t, config)
				if row.known {
					mustStore(t, s, data)
				}
				if row.decays {
					rot.at.Store(chunkSize)
				}
				from := row.from
				if from == nil {
					from = forbidden(t)
				}
				r, _, err := s.Fetch(t.Context(), owner, digestOf(data), size, 0, -1, from)
				var got []byte
				if err == nil && row.read == all {
					got, err = io.ReadAll(r)
				} else if err == nil {
					got = make([]byte, row.read)
					_, err = io.ReadFull(r, got)
					if lent := s.buffers.lent.Load(); lent == 0 {
						t.Error("nothing is lent to begin with")
					}
				}
				if (err != nil) != row.fails || err == nil && !bytes.HasPrefix(data, got) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if r != nil {
					r.Close()
				}
				synctest.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if lent := s.buffers.lent.Load(); lent != 0 {
					t.Errorf("%d bytes are still lent", lent)
				}
				if n := s.deferred.Load(); n != 0 {
					t.Errorf("%d chunks still wait to be written", n)
				}
			})
		})
	}
}
