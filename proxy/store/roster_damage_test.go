package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// directoryOf makes a directory with so many contents of 100 bytes and a roster that
// was closed in order, and returns it with what the roster's file holds.
func directoryOf(t *testing.T, first, count int) (dir string, roster []byte) {
	t.Helper()
	dir = t.TempDir()
	s := mustOpen(t, Config{Directory: dir})
	for i := range count {
		mustStore(t, s, numberedContent(first+i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	roster, err := os.ReadFile(filepath.Join(dir, rosterFile))
	if err != nil {
		t.Fatal(err)
	}
	return dir, roster
}

func numberedContent(i int) []byte { return fmt.Appendf(nil, "%0100d", i) }

// slotsOf returns where the records are in a roster's file.
func slotsOf(t *testing.T, roster []byte) (at []int) {
	t.Helper()
	for i := pageSize; i < len(roster); i += slotSize {
		if !bytes.Equal(roster[i:i+slotSize], make([]byte, slotSize)) {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		t.Fatal("the roster has no record")
	}
	return at
}

// A roster is a hint about what to evict. Whatever has happened to it, the store
// opens, evicts no more than it must of what it knows, and counts right once it has
// looked through the directory; and that lasts.
func TestADamagedRosterIsMended(t *testing.T) {
	const count, most = 20, 600 // contents, and bytes that six of them have
	_, foreign := directoryOf(t, 1000, 30)
	_, overlapping := directoryOf(t, count/2, count)
	edit := func(change func(data []byte)) func(string, []byte) error {
		return func(path string, data []byte) error {
			change(data)
			return os.WriteFile(path, data, 0o600)
		}
	}
	becomes := func(make func(data []byte) []byte) func(string, []byte) error {
		return func(path string, data []byte) error { return os.WriteFile(path, make(data), 0o600) }
	}
	instead := func(plant func(path string) error) func(string, []byte) error {
		return func(path string, _ []byte) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return plant(path)
		}
	}
	rows := map[string]func(path string, data []byte) error{
		"as it was":                      edit(func([]byte) {}),
		"gone":                           instead(func(string) error { return nil }),
		"empty":                          becomes(func([]byte) []byte { return nil }),
		"zeros":                          edit(func(data []byte) { clear(data) }),
		"noise":                          edit(func(data []byte) { copy(data, sample(1, len(data))) }),
		"from a later version":           edit(func(data []byte) { data[len(rosterMagic)-2]++; sign(data) }),
		"a byte too long":                becomes(func(data []byte) []byte { return append(data, 0) }),
		"twice":                          becomes(func(data []byte) []byte { return append(data, data...) }),
		"too many pages":                 edit(func(data []byte) { copy(data, claiming(data, 1<<20)); sign(data) }),
		"no pages":                       edit(func(data []byte) { copy(data, claiming(data, 0)); sign(data) }),
		"pages that exceed all numbers":  becomes(func(data []byte) []byte { data = claiming(data, 1<<62)[:pageSize]; sign(data); return data }),
		"another directory's":            becomes(func([]byte) []byte { return foreign }),
		"an overlapping directory's":     becomes(func([]byte) []byte { return overlapping }),
		"records zeroed":                 edit(func(data []byte) { clear(data[pageSize:]) }),
		"every record damaged":           edit(func(data []byte) { flipAll(t, data) }),
		"pages in each other's place":    edit(swapPages),
		"every page in the place of one": edit(copyPages),
		"a directory":                    instead(func(path string) error { return os.MkdirAll(filepath.Join(path, "below"), 0o700) }),
		"a symbolic link":                instead(func(path string) error { return os.Symlink("lock", path) }),
		"a named pipe":                   instead(func(path string) error { return syscall.Mkfifo(path, 0o600) }),
	}
	for _, n := range []int{1, headerSize, headerSize + 4, pageSize - 1, pageSize, 3*pageSize + 7, (minPages+1)*pageSize - 1} {
		rows[fmt.Sprintf("cut at %d", n)] = becomes(func(data []byte) []byte { return data[:n] })
	}
	for i := 0; i < headerSize+4; i += 3 {
		rows[fmt.Sprintf("byte %d of the header flipped", i)] = edit(func(data []byte) { data[i] ^= 0x40 })
	}
	for i := 0; i < slotSize; i += 7 {
		rows[fmt.Sprintf("byte %d of a record flipped", i)] = edit(func(data []byte) { data[slotsOf(t, data)[3]+i] ^= 0x40 })
	}
	for name, damage := range rows {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, clean %v", name, clean), func(t *testing.T) {
				dir, data := directoryOf(t, 0, count)
				if err := damage(filepath.Join(dir, rosterFile), bytes.Clone(data)); err != nil {
					t.Fatal(err)
				}
				if !clean {
					soil(t, dir)
				}
				mustEvictSanely(t, dir, most)
				mustMend(t, dir)
			})
		}
	}
}

// flipAll changes a bit of every record.
func flipAll(t *testing.T, data []byte) {
	for _, at := range slotsOf(t, data) {
		data[at+40] ^= 1
	}
}

// swapPages exchanges pages two by two.
func swapPages(data []byte) {
	for at := pageSize; at+2*pageSize <= len(data); at += 2 * pageSize {
		one, other := data[at:at+pageSize], data[at+pageSize:at+2*pageSize]
		held := bytes.Clone(one)
		copy(one, other)
		copy(other, held)
	}
}

// copyPages makes all pages what the first is with records in it.
func copyPages(data []byte) {
	for at := pageSize; at < len(data); at += pageSize {
		page := bytes.Clone(data[at : at+pageSize])
		if bytes.Equal(page, make([]byte, pageSize)) {
			continue
		}
		for to := pageSize; to < len(data); to += pageSize {
			copy(data[to:], page)
		}
		return
	}
}

// soil makes a table one that nobody closed, if it is a table.
func soil(t *testing.T, dir string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, rosterFile), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	if table := (&slotFile{file: file}); table.load() {
		if err := table.save(false); err != nil {
			t.Fatal(err)
		}
	}
}

// mustEvictSanely opens the directory with room for a part of what is there, and has
// everything evicted that the store wants to evict, before it has looked through the
// directory and after.
func mustEvictSanely(t *testing.T, dir string, most int64) {
	t.Helper()
	s := mustOpen(t, Config{Directory: dir, MaxSize: most})
	d := scanned(t, s)
	evict := func() {
		t.Helper()
		for range 10 * 20 {
			if !d.evictOne() {
				return
			}
		}
		t.Fatal("eviction comes to no end")
	}
	evict()
	// What comes now is the last to go.
	fresh := [][]byte{numberedContent(5000), numberedContent(5001)}
	for _, data := range fresh {
		mustStore(t, s, data)
	}
	evict()
	for _, data := range fresh {
		mustHold(t, s, data)
	}
	if err := d.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Stats(), whatLies(t, dir); got != want {
		t.Errorf("%+v is counted, %+v is there", got, want)
	}
	evict()
	there := whatLies(t, dir)
	if got := s.Stats(); got != there || there.Bytes > most {
		t.Errorf("%+v is counted, %+v is there, with room for %d", got, there, most)
	}
	for _, data := range fresh {
		mustHold(t, s, data)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// mustMend checks that a roster that has been compared with the directory is whole.
func mustMend(t *testing.T, dir string) {
	t.Helper()
	r := mustRoster(t, dir)
	defer crash(r)
	if r.slots.damaged {
		t.Error("it is damaged")
	}
	bytes, count := r.totals()
	if got, want := (Stats{Bytes: bytes, Contents: int(count)}), whatLies(t, dir); got != want {
		t.Errorf("%+v is counted, %+v is there", got, want)
	}
	if err := r.slots.recount(); err != nil || r.slots.bytes != bytes || r.slots.count != count || r.slots.damaged {
		t.Errorf("the records are %d of %d bytes instead of %d of %d, damaged %v, %v", r.slots.count, r.slots.bytes, count, bytes, r.slots.damaged, err)
	}
}

// A record that does not hold is not found again by every later survey.
func TestASurveyEndsTheDamage(t *testing.T) {
	dir, data := directoryOf(t, 0, 20)
	flipAll(t, data)
	path := filepath.Join(dir, rosterFile)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, blobsDir)); err != nil { // or they would be written over
		t.Fatal(err)
	}
	soil(t, dir)
	for range 2 {
		s := mustOpen(t, Config{Directory: dir})
		d := scanned(t, s)
		if err := d.survey(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if table := (&slotFile{file: file}); !table.load() || !table.clean {
		t.Error("the directory is to be looked through at every start")
	}
}

// Who chooses contents can choose how their digests begin. That must not fill one
// page of the table, which would be doubled again and again.
func TestDigestsThatBeginAlikeDoNotMakeTheRosterLarge(t *testing.T) {
	dir := t.TempDir()
	r := mustRoster(t, dir)
	random := rand.NewChaCha8([32]byte{1})
	const count = 4 * slotsPerPage
	for i := range count {
		var k key
		random.Read(k[:])
		k[0], k[1] = 0, k[1]&0xc0 // 14 bits, which take no time to find
		r.set(record{key: k, size: 1, used: int64(i)}, false)
	}
	info, err := r.slots.file.Stat()
	if err != nil || info.Size() > 2*(minPages+1)*pageSize {
		t.Errorf("%d records take %d bytes, %v", count, info.Size(), err)
	}
	if bytes, n := r.totals(); bytes != count || n != count || r.slots.damaged {
		t.Errorf("%d of %d bytes are counted, damaged %v", n, bytes, r.slots.damaged)
	}
}

// Where a record is, is known to this table alone.
func TestEachRosterHasAnOrderOfItsOwn(t *testing.T) {
	k := key(sha256.Sum256(nil))
	homes := make(map[int64]bool)
	for range 20 {
		homes[mustRoster(t, t.TempDir()).slots.home(k)] = true
	}
	if len(homes) == 1 {
		t.Errorf("a key has the same page in each of 20 tables; its first bytes say %d", binary.LittleEndian.Uint64(k[:]))
	}
}
