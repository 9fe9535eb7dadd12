package store

import (
	"bufio"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

var contents = flag.Int("contents", 10_000, "how many contents BenchmarkManyContents has in its directory")

// BenchmarkManyContents tells what a store costs that holds a lot, and is to cost as
// much with 1,000,000 contents (-contents 1000000, two minutes and as many inodes) as
// with few: to open it, the memory it takes, and to evict one. A survey, which follows
// an end that was not in order, is in the background and costs in proportion.
//
//	go test ./proxy/store -run xxx -bench ManyContents -benchtime 20x -contents 1000000
func BenchmarkManyContents(b *testing.B) {
	const size = 1000 // of each, which take no room
	dir := b.TempDir()
	fillDirectory(b, dir, *contents, size)
	total := int64(*contents) * size
	open := func(b *testing.B) (*Store, *disk) {
		b.Helper()
		s, err := Open(Config{Directory: dir})
		if err != nil {
			b.Fatal(err)
		}
		return s, s.shelf.(*disk)
	}
	shut := func(b *testing.B, s *Store) {
		b.Helper()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	// survey looks through the directory, and returns a store that has.
	survey := func(b *testing.B) (*Store, *disk) {
		b.Helper()
		s, d := open(b)
		d.stop()
		d.workers.Wait()
		if err := d.survey(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got, _ := d.stats(); got != total {
			b.Fatalf("%d bytes are counted instead of %d", got, total)
		}
		return s, d
	}
	s, _ := survey(b)
	shut(b, s)
	b.Run("survey without a roster", func(b *testing.B) {
		for b.Loop() {
			if err := os.RemoveAll(filepath.Join(dir, rosterFile)); err != nil {
				b.Fatal(err)
			}
			s, _ := survey(b)
			shut(b, s)
		}
	})
	b.Run("survey", func(b *testing.B) {
		before := anonymous(b)
		var most int64
		for b.Loop() {
			s, _ := survey(b)
			b.StopTimer()
			most = max(most, anonymous(b)-before)
			b.StartTimer()
			shut(b, s)
		}
		b.ReportMetric(float64(most)/(1<<20), "MiB-RssAnon")
	})
	b.Run("open", func(b *testing.B) {
		before := anonymous(b)
		var most int64
		for b.Loop() {
			s, d := open(b)
			b.StopTimer()
			most = max(most, anonymous(b)-before)
			if got, _ := d.stats(); got != total {
				b.Fatalf("%d bytes are counted instead of %d", got, total)
			}
			shut(b, s)
			b.StartTimer()
		}
		b.ReportMetric(float64(most)/(1<<20), "MiB-RssAnon")
	})
	b.Run("evict", func(b *testing.B) {
		s, d := open(b)
		d.stop()
		d.workers.Wait()
		defer shut(b, s)
		for b.Loop() {
			held, _ := d.stats()
			d.max = held - 1
			if !d.evictOne() {
				b.Fatal("nothing was evicted")
			}
		}
	})
}

// fillDirectory makes contents that nobody reads, and whose bytes are therefore not
// right.
func fillDirectory(b *testing.B, dir string, count, size int) {
	b.Helper()
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, blobsDir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	for i := range count {
		file, err := os.Create(filepath.Join(dir, key(sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))).path()))
		if err == nil {
			err = file.Truncate(int64(size))
		}
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// anonymous returns how much memory of its own the process has, without what it
// could give back.
func anonymous(b *testing.B) int64 {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	file, err := os.Open("/proc/self/status")
	if err != nil {
		b.Skip("there is no /proc")
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib << 10
		}
	}
	b.Skip("the system does not tell")
	return 0
}
