package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// mustRoster opens the roster of a directory; the test closes it when it has not
// been closed.
func mustRoster(t *testing.T, dir string) *roster {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.MkdirAll(tempDir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, _ := openRoster(root, slog.New(slog.DiscardHandler))
	if r.slots == nil {
		t.Fatal("there is no roster")
	}
	t.Cleanup(func() {
		if r.slots != nil {
			r.slots.file.Close()
		}
		root.Close()
	})
	return r
}

// crash lets go of a roster without the end that it should have.
func crash(r *roster) {
	r.slots.file.Close()
	r.slots = nil
}

// modelRoster is a roster next to the map that it should be.
type modelRoster struct {
	*roster
	dir   string
	want  map[key]record
	clock int64
}

func (m *modelRoster) set(t *testing.T, k key, size int64) {
	m.clock++
	r := record{key: k, size: size, used: m.clock}
	m.roster.set(r, false)
	m.want[k] = r
}

func (m *modelRoster) recall(t *testing.T, k key, size int64) {
	m.clock++
	r := record{key: k, size: size, used: m.clock}
	m.roster.recall([]record{r})
	if known, ok := m.want[k]; ok {
		r.used = known.used
	}
	m.want[k] = r
}

func (m *modelRoster) remove(t *testing.T, k key) {
	m.do(func() error { return m.slots.remove(k, math.MaxInt64) })
	delete(m.want, k)
}

// oldest compares what would be evicted next.
func (m *modelRoster) oldest(t *testing.T, inUse func(key) bool) {
	t.Helper()
	var want record
	found := false
	for k, r := range m.want {
		if !inUse(k) && (!found || r.used < want.used) {
			want, found = r, true
		}
	}
	got, ok := m.roster.oldest(inUse)
	if ok != found {
		t.Fatalf("the oldest of %d: found %v, want %v", len(m.want), ok, found)
	}
	if !ok {
		return
	}
	known := m.want[got.key]
	if inUse(got.key) || got.size != known.size || got.used != known.used {
		t.Fatalf("the oldest is %+v, in use %v; known is %+v", got, inUse(got.key), known)
	}
	if m.slots.pages <= allPages && got.used != want.used {
		t.Fatalf("the oldest of a small table was used at %d, one that is older at %d", got.used, want.used)
	}
}

// restart closes the roster, in order or not, and opens it again.
func (m *modelRoster) restart(t *testing.T, clean bool) {
	t.Helper()
	if clean {
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
	} else {
		crash(m.roster)
	}
	m.roster = mustRoster(t, m.dir)
	if m.slots.clean {
		t.Fatal("it says that it is clean while it is open")
	}
	if !clean {
		m.beginSurvey() // which counts anew
	}
}

// check compares everything.
func (m *modelRoster) check(t *testing.T) {
	t.Helper()
	var bytes int64
	for k, want := range m.want {
		bytes += want.size
		at, _, got, err := m.slots.find(k)
		if err != nil || at < 0 || got.size != want.size || got.used != want.used {
			t.Fatalf("%s: found %+v at %d, %v; want %+v", k, got, at, err, want)
		}
	}
	if gotBytes, gotCount := m.totals(); gotBytes != bytes || gotCount != int64(len(m.want)) {
		t.Fatalf("%d contents of %d bytes are counted; there are %d of %d", gotCount, gotBytes, len(m.want), bytes)
	}
	if m.slots.damaged {
		t.Fatal("it is damaged")
	}
}

// any returns some key that is there.
func (m *modelRoster) any() key {
	for k := range m.want {
		return k
	}
	return key{}
}

func TestARosterIsTheMapThatItShouldBe(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		m := &modelRoster{roster: mustRoster(t, dir), dir: dir, want: make(map[key]record)}
		newKey := func() key {
			var n [8]byte
			binary.LittleEndian.PutUint64(n[:], random.Uint64())
			return sha256.Sum256(n[:])
		}
		var largest int64
		for i := range 12000 {
			grows := i/3000%2 == 0 // and shrinks, in turns
			switch n := random.IntN(100); {
			case n < 40 && grows:
				m.set(t, newKey(), random.Int64N(1<<40))
			case n < 50 && grows:
				m.recall(t, newKey(), random.Int64N(1<<40))
			case n < 60:
				if k := m.any(); k != (key{}) {
					m.set(t, k, random.Int64N(1<<40))
				}
			case n < 65:
				if k := m.any(); k != (key{}) {
					m.recall(t, k, random.Int64N(1<<40))
				}
			case n < 85:
				m.remove(t, m.any())
			case n < 87:
				m.remove(t, newKey())
			case n < 99:
				bit := byte(1) << random.IntN(8)
				m.oldest(t, func(k key) bool { return k[0]&bit != 0 })
			case random.IntN(4) == 0:
				m.oldest(t, func(key) bool { return true })
				m.restart(t, random.IntN(2) == 0)
			}
			if i%500 == 0 {
				m.check(t)
			}
			largest = max(largest, m.slots.pages)
		}
		m.check(t)
		if largest <= minPages {
			t.Errorf("seed %d: the table did not grow beyond %d pages", seed, largest)
		}
		// Everything goes in about the order of its use, and nothing is left.
		for len(m.want) > 0 {
			got, ok := m.roster.oldest(func(key) bool { return false })
			if !ok {
				t.Fatalf("seed %d: %d are left and cannot be found", seed, len(m.want))
			}
			m.remove(t, got.key)
		}
		m.check(t)
	}
}

// A table that is too large to be looked through whole yields what is among the
// oldest, never what is in use, and what is left however little that is.
func TestALargeRosterEvictsFromASample(t *testing.T) {
	dir := t.TempDir()
	m := &modelRoster{roster: mustRoster(t, dir), dir: dir, want: make(map[key]record)}
	const count = 6000
	for i := range count {
		m.set(t, sha256.Sum256(fmt.Appendf(nil, "%d", i)), 1)
	}
	if m.slots.pages <= allPages {
		t.Fatalf("the table has %d pages only", m.slots.pages)
	}
	m.check(t)
	sum := int64(0)
	for range 500 {
		got, ok := m.roster.oldest(func(key) bool { return false })
		if !ok {
			t.Fatal("nothing was found")
		}
		sum += got.used
	}
	// The oldest of 300 or more is among the first hundredth, on the average.
	if mean := sum / 500; mean > count/100 {
		t.Errorf("what is evicted is number %d of %d on the average", mean, count)
	}
	only := m.any()
	m.oldest(t, func(k key) bool { return k != only })
	if got, ok := m.roster.oldest(func(k key) bool { return k != only }); !ok || got.key != only {
		t.Errorf("the only one that is not in use was not found")
	}
}

// FuzzSlot checks that what is written is read back, that no changed bit is, and
// that what is read at all is what would be written.
func FuzzSlot(f *testing.F) {
	f.Add([]byte("key"), int64(1), int64(2), uint64(3), uint16(0))
	f.Add(bytes.Repeat([]byte{0xff}, 32), int64(math.MaxInt64), int64(-1), uint64(math.MaxUint64), uint16(511))
	f.Fuzz(func(t *testing.T, name []byte, size, used int64, generation uint64, bit uint16) {
		want := record{key: sha256.Sum256(name), size: size, used: used, generation: generation}
		table := &slotFile{pages: minPages}
		i := int(bit) % slotsPerPage
		raw := table.page[i*slotSize : (i+1)*slotSize]
		want.encode(raw)
		if got, ok := table.slot(i); !ok || got != want || table.damaged {
			t.Fatalf("%+v was read as %+v, %v", want, got, ok)
		}
		bit %= slotSize * 8
		raw[bit/8] ^= 1 << (bit % 8)
		if got, ok := table.slot(i); ok || !table.damaged {
			t.Fatalf("%+v was read as %+v though bit %d is another", want, got, bit)
		}
	})
}

// FuzzRosterFile checks that any file is opened as some table, that it can be used
// like every other, and that its size does not depend on what it says.
func FuzzRosterFile(f *testing.F) {
	dir := f.TempDir()
	file, err := os.Create(filepath.Join(dir, rosterFile))
	if err != nil {
		f.Fatal(err)
	}
	table, err := openSlotFile(file)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 5 {
		if err := table.set(record{key: sha256.Sum256([]byte{byte(i)}), size: 1, used: int64(i)}, false); err != nil {
			f.Fatal(err)
		}
	}
	if err := table.save(true); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(file.Name())
	if err != nil {
		f.Fatal(err)
	}
	file.Close()
	f.Add(whole, true)
	f.Add(whole[:len(whole)-1], false)
	f.Add(append(whole, whole...), true)
	f.Add([]byte{}, true)
	f.Add(claiming(whole, 1<<62)[:pageSize], true)
	f.Fuzz(func(t *testing.T, data []byte, signed bool) {
		if len(data) > 4*(minPages+1)*pageSize {
			return // nothing is learned from more
		}
		if signed && len(data) >= headerSize+4 {
			data = bytes.Clone(data)
			sign(data) // or hardly any header would be believed
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, rosterFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r := mustRoster(t, dir)
		r.beginSurvey()
		kept := sha256.Sum256([]byte("kept"))
		r.recall([]record{{key: kept, size: 7, used: 1}})
		for at, more := int64(0), true; more; {
			if at > int64(len(data)) {
				t.Fatalf("a file of %d bytes has more than %d pages", len(data), at)
			}
			at, more = r.endSurvey(at)
		}
		if size, count := r.totals(); size != 7 || count != 1 {
			t.Fatalf("%d contents of %d bytes are counted", count, size)
		}
		if got, ok := r.oldest(func(key) bool { return false }); !ok || got.key != kept {
			t.Fatalf("the oldest is %s, %v", got.key, ok)
		}
		if info, err := r.slots.file.Stat(); err != nil || info.Size() > int64(max(len(data), (minPages+1)*pageSize)) {
			t.Fatalf("%v, %v", info, err)
		}
	})
}

// claiming is the table in data with a header that tells of so many pages.
func claiming(data []byte, pages uint64) []byte {
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint64(data[len(rosterMagic):], pages)
	return data
}

// sign makes the sum of a header right.
func sign(data []byte) {
	binary.LittleEndian.PutUint32(data[headerSize:], sumOf(data[:headerSize]))
}
