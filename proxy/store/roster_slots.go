package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// The roster's file: a page that says how many pages follow, and pages of slots.
// A record is in the page that its key and the table's salt say, in any slot of
// that page: who chooses contents, and who lists them in some order, can fill no
// page before the others. Numbers are little-endian.
//
//	header  magic 16, pages 8, generation 8, bytes 8, count 8, salt 16, clean 1, CRC-32C of these 4
//	slot    key 32, size 8, used 8, generation 8, zero 4, CRC-32C of these 4
const (
	pageSize     = 4096
	slotSize     = 64
	slotsPerPage = pageSize / slotSize

	rosterMagic = "vidimus roster1\n"
	saltSize    = 16
	headerSize  = len(rosterMagic) + 4*8 + saltSize + 1

	// minPages is the size of a new table.
	minPages = 16
	// fullAt is how many of a page's slots are taken on the average when the
	// table is doubled; above it single pages begin to overflow.
	fullAt = slotsPerPage / 2
	// allPages is up to what size a table is looked through whole for the
	// record that was used longest ago; above it that of samplePages is taken.
	allPages    = 64
	samplePages = 16
)

// record is what the roster knows of one content.
type record struct {
	key        key
	size       int64
	used       int64  // ns since 1970
	generation uint64 // of the last survey that saw it
}

// slotFile is the roster's file. What a slot holds is checked by its sum; what does
// not hold counts as free. It belongs to one goroutine at a time.
type slotFile struct {
	file       *os.File
	pages      int64
	generation uint64
	bytes      int64 // of all records
	count      int64
	salt       [saltSize]byte
	clean      bool  // the file was closed in order
	damaged    bool  // a slot did not hold: the roster needs a survey
	hand       int64 // the page at which the next sample begins
	page       [pageSize]byte
}

func sumOf(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// openSlotFile opens the table in file, or begins it anew when it is none. It is
// not clean until it is closed.
func openSlotFile(file *os.File) (*slotFile, error) {
	t := &slotFile{file: file}
	if !t.load() {
		*t = slotFile{file: file}
		rand.Read(t.salt[:])
		if err := t.clear(minPages); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// load reads the header and reports whether the file is a table.
func (t *slotFile) load() bool {
	header := t.page[:headerSize+4]
	if n, _ := t.file.ReadAt(header, 0); n < len(header) {
		return false
	}
	if string(header[:len(rosterMagic)]) != rosterMagic || sumOf(header[:headerSize]) != binary.LittleEndian.Uint32(header[headerSize:]) {
		return false
	}
	numbers := header[len(rosterMagic):]
	t.pages = int64(binary.LittleEndian.Uint64(numbers))
	t.generation = binary.LittleEndian.Uint64(numbers[8:])
	t.bytes = int64(binary.LittleEndian.Uint64(numbers[16:]))
	t.count = int64(binary.LittleEndian.Uint64(numbers[24:]))
	copy(t.salt[:], numbers[32:])
	t.clean = numbers[32+saltSize] == 1
	info, err := t.file.Stat()
	return err == nil && t.pages >= minPages && t.pages&(t.pages-1) == 0 &&
		info.Size()%pageSize == 0 && t.pages == info.Size()/pageSize-1 && t.bytes >= 0 && t.count >= 0
}

// save writes the header and makes it durable. One that says that the table is
// clean goes to the medium after the records that it speaks of.
func (t *slotFile) save(clean bool) error {
	if clean {
		if err := t.file.Sync(); err != nil {
			return fmt.Errorf("write the roster: %w", err)
		}
	}
	if err := t.mark(clean); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("write the roster: %w", err)
	}
	return nil
}

// mark writes the header, which is durable when the file is synced.
func (t *slotFile) mark(clean bool) error {
	header := make([]byte, headerSize+4)
	copy(header, rosterMagic)
	numbers := header[len(rosterMagic):]
	binary.LittleEndian.PutUint64(numbers, uint64(t.pages))
	binary.LittleEndian.PutUint64(numbers[8:], t.generation)
	binary.LittleEndian.PutUint64(numbers[16:], uint64(t.bytes))
	binary.LittleEndian.PutUint64(numbers[24:], uint64(t.count))
	copy(numbers[32:], t.salt[:])
	if clean {
		numbers[32+saltSize] = 1
	}
	binary.LittleEndian.PutUint32(header[headerSize:], sumOf(header[:headerSize]))
	if _, err := t.file.WriteAt(header, 0); err != nil {
		return fmt.Errorf("write the roster: %w", err)
	}
	t.clean = clean
	return nil
}

// clear makes the file an empty table, of which nothing says yet that it is clean.
func (t *slotFile) clear(pages int64) error {
	t.pages, t.bytes, t.count = pages, 0, 0
	if err := errors.Join(t.file.Truncate(0), t.file.Truncate((pages+1)*pageSize)); err != nil {
		return fmt.Errorf("make the roster: %w", err)
	}
	return t.mark(false)
}

// home is the page of a key.
func (t *slotFile) home(k key) int64 {
	var salted [saltSize + len(k)]byte
	copy(salted[:], t.salt[:])
	copy(salted[saltSize:], k[:])
	sum := sha256.Sum256(salted[:])
	return int64(binary.LittleEndian.Uint64(sum[:]) & uint64(t.pages-1))
}

// read reads page number n.
func (t *slotFile) read(n int64) error {
	if _, err := t.file.ReadAt(t.page[:], (n+1)*pageSize); err != nil {
		return fmt.Errorf("read the roster: %w", err)
	}
	return nil
}

// slot returns what slot i of the page that was read holds.
func (t *slotFile) slot(i int) (record, bool) {
	raw := t.page[i*slotSize : (i+1)*slotSize]
	sum := binary.LittleEndian.Uint32(raw[slotSize-4:])
	var r record
	copy(r.key[:], raw)
	if sum == 0 && r.key == (key{}) {
		return r, false
	}
	if sumOf(raw[:slotSize-4]) != sum {
		t.damaged = true
		return r, false
	}
	r.size = int64(binary.LittleEndian.Uint64(raw[32:]))
	r.used = int64(binary.LittleEndian.Uint64(raw[40:]))
	r.generation = binary.LittleEndian.Uint64(raw[48:])
	return r, true
}

func (r record) encode(raw []byte) {
	clear(raw)
	copy(raw, r.key[:])
	binary.LittleEndian.PutUint64(raw[32:], uint64(r.size))
	binary.LittleEndian.PutUint64(raw[40:], uint64(r.used))
	binary.LittleEndian.PutUint64(raw[48:], r.generation)
	binary.LittleEndian.PutUint32(raw[slotSize-4:], sumOf(raw[:slotSize-4]))
}

// find reads the page of k and returns where k is in it, or a free slot; -1 for
// neither.
func (t *slotFile) find(k key) (at, free int, r record, err error) {
	at, free = -1, -1
	if err := t.read(t.home(k)); err != nil {
		return at, free, r, err
	}
	for i := range slotsPerPage {
		found, ok := t.slot(i)
		if ok && found.key == k {
			return i, free, found, nil
		}
		if !ok && free < 0 {
			free = i
		}
	}
	return at, free, r, nil
}

// write writes slot i of page n from the page in hand.
func (t *slotFile) write(n int64, i int) error {
	raw := t.page[i*slotSize : (i+1)*slotSize]
	if _, err := t.file.WriteAt(raw, (n+1)*pageSize+int64(i)*slotSize); err != nil {
		return fmt.Errorf("write the roster: %w", err)
	}
	return nil
}

// errOverflow says that a page is full, and the table has to grow.
var errOverflow = errors.New("a page of the roster is full")

// set records r, of this generation. With recall it is only what was found to be
// there: what is known about its use stands.
func (t *slotFile) set(r record, recall bool) error {
	at, free, old, err := t.find(r.key)
	if err != nil {
		return err
	}
	if at < 0 {
		if at = free; at < 0 {
			return errOverflow
		}
		old = record{}
		t.count++
	} else if recall {
		r.used = old.used
	}
	r.generation = t.generation
	t.bytes += r.size - old.size
	r.encode(t.page[at*slotSize : (at+1)*slotSize])
	return t.write(t.home(r.key), at)
}

// remove forgets k, unless it was used after the time from which it is known not
// to be there.
func (t *slotFile) remove(k key, gone int64) error {
	at, _, old, err := t.find(k)
	if err != nil || at < 0 || old.used > gone {
		return err
	}
	return t.free(t.home(k), at, old)
}

// free empties slot i of page n, which is in hand and holds r.
func (t *slotFile) free(n int64, i int, r record) error {
	t.count--
	t.bytes -= r.size
	clear(t.page[i*slotSize : (i+1)*slotSize])
	return t.write(n, i)
}

// each calls yield for the records of page n until it returns false.
func (t *slotFile) each(n int64, yield func(i int, r record) bool) error {
	if err := t.read(n); err != nil {
		return err
	}
	for i := range slotsPerPage {
		if r, ok := t.slot(i); ok && !yield(i, r) {
			break
		}
	}
	return nil
}

// own reports whether page n is that of k. A record elsewhere could never be
// removed, and does not hold.
func (t *slotFile) own(n int64, k key) bool {
	if t.home(k) == n {
		return true
	}
	t.damaged = true
	return false
}

// recount counts what the table holds, and clears what does not hold, which every
// later survey would find damaged again.
func (t *slotFile) recount() error {
	t.bytes, t.count = 0, 0
	for n := range t.pages {
		if err := t.read(n); err != nil {
			return err
		}
		damaged := t.damaged
		t.damaged = false
		for i := range slotsPerPage {
			if r, ok := t.slot(i); ok && t.own(n, r.key) {
				t.bytes += r.size
				t.count++
			} else {
				clear(t.page[i*slotSize : (i+1)*slotSize])
			}
		}
		if !t.damaged {
			t.damaged = damaged
		} else if _, err := t.file.WriteAt(t.page[:], (n+1)*pageSize); err != nil {
			return fmt.Errorf("write the roster: %w", err)
		}
	}
	return nil
}

// sweep forgets the records of page n that the last survey did not see.
func (t *slotFile) sweep(n int64) error {
	var failed error
	err := t.each(n, func(i int, r record) bool {
		if r.generation != t.generation {
			failed = t.free(n, i, r)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// oldest returns the record that was used longest ago among those that are not
// in use: of all in a small table, of a sample in a large one, so that the cost
// does not depend on how much there is.
func (t *slotFile) oldest(inUse func(key) bool) (oldest record, ok bool, err error) {
	look := func(n int64) error {
		return t.each(n, func(_ int, r record) bool {
			if (!ok || r.used < oldest.used) && !inUse(r.key) && t.own(n, r.key) {
				oldest, ok = r, true
			}
			return true
		})
	}
	if t.pages <= allPages {
		for n := range t.pages {
			if err := look(n); err != nil {
				return oldest, ok, err
			}
		}
		return oldest, ok, t.believe(ok)
	}
	// The keys are hashes, so that pages in a row are as good a sample as any;
	// the next one is of other pages. Where nothing is found, it goes on.
	for i := 0; i < samplePages || !ok && int64(i) < t.pages; i++ {
		if err := look(t.hand); err != nil {
			return oldest, ok, err
		}
		t.hand = (t.hand + 1) % t.pages
	}
	return oldest, ok, t.believe(ok)
}

// believe counts anew when all pages were looked at and nothing was found. Records
// that were lost would otherwise count for ever, and whatever comes be evicted at
// once.
func (t *slotFile) believe(found bool) error {
	if found || t.count == 0 {
		return nil
	}
	counted := t.count
	err := t.recount()
	if t.count != counted {
		t.damaged = true
	}
	return err
}

// crowded reports whether the table should grow. That one page is full is no
// reason while most have room.
func (t *slotFile) crowded() bool { return t.count > t.pages*fullAt }

// double writes a table of twice as many pages to file, which takes the place of
// the present one. Each page is divided between two.
func (t *slotFile) double(file *os.File) (*slotFile, error) {
	larger := &slotFile{file: file, generation: t.generation, salt: t.salt}
	if err := larger.clear(2 * t.pages); err != nil {
		return nil, err
	}
	var halves [2][pageSize]byte
	for n := range t.pages {
		clear(halves[0][:])
		clear(halves[1][:])
		var used [2]int
		if err := t.each(n, func(_ int, r record) bool {
			half := 0
			if larger.home(r.key) != n {
				half = 1
			}
			r.encode(halves[half][used[half]*slotSize : (used[half]+1)*slotSize])
			used[half]++
			larger.count++
			larger.bytes += r.size
			return true
		}); err != nil {
			return nil, err
		}
		for half := range int64(2) {
			if _, err := file.WriteAt(halves[half][:], (n+half*t.pages+1)*pageSize); err != nil {
				return nil, fmt.Errorf("write the roster: %w", err)
			}
		}
	}
	return larger, nil
}
