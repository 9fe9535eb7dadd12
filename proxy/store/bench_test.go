package store

import (
	"fmt"
	"io"
	"testing"
)

// shelves are what each benchmark runs on.
var shelves = []string{"memory", "directory"}

func benchStore(b *testing.B, shelf string) *Store {
	b.Helper()
	config := Config{MaxMemory: 1 << 30}
	if shelf == "directory" {
		config.Directory = b.TempDir()
	}
	s, err := Open(config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func drain(b *testing.B, r io.ReadCloser, err error, buf []byte) {
	if err != nil {
		b.Fatal(err)
	}
	for err == nil {
		_, err = r.Read(buf)
	}
	if err != io.EOF {
		b.Fatal(err)
	}
	r.Close()
}

func BenchmarkWarmRead(b *testing.B) {
	for _, shelf := range shelves {
		for _, size := range []int{1 << 10, 64 << 20} {
			b.Run(fmt.Sprintf("%s/%d", shelf, size), func(b *testing.B) {
				s := benchStore(b, shelf)
				data := sample(1, size)
				digest := digestOf(data)
				if err := s.Put(b.Context(), digest, data); err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, chunkSize)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					r, _, err := s.Open(b.Context(), digest)
					drain(b, r, err, buf)
				}
			})
		}
	}
}

func BenchmarkColdFetch(b *testing.B) {
	const size = 64 << 20
	for _, shelf := range shelves {
		b.Run(fmt.Sprintf("%s/%d", shelf, size), func(b *testing.B) {
			s := benchStore(b, shelf)
			data := sample(1, size)
			digest := digestOf(data)
			k, err := parseDigest(digest)
			if err != nil {
				b.Fatal(err)
			}
			from := (&upstream{data: data}).from
			buf := make([]byte, chunkSize)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, _, err := s.Fetch(b.Context(), owner, digest, size, 0, -1, from)
				drain(b, r, err, buf)
				b.StopTimer()
				quiet(s)
				c, err := s.shelf.open(k)
				if err != nil {
					b.Fatal(err)
				}
				s.shelf.drop(k, c)
				c.Close()
				b.StartTimer()
			}
		})
	}
}

func BenchmarkKnown(b *testing.B) {
	for _, shelf := range shelves {
		b.Run(shelf, func(b *testing.B) {
			s := benchStore(b, shelf)
			for i := range 1000 {
				if err := s.Delivered(b.Context(), "docker.io/library/alpine", numbered(i), numbered(i+1)); err != nil {
					b.Fatal(err)
				}
			}
			if h, ok := s.index.hints.(*hintFile); ok {
				if err := h.flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Known(b.Context(), "docker.io/library/alpine", numbered(500)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
