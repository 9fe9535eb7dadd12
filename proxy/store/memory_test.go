package store

import (
	"io"
	"testing"
)

func TestWhatIsTooLargeForMemoryIsPassedThrough(t *testing.T) {
	s := mustOpen(t, Config{MaxMemory: 1 << 20})
	passesThrough(t, s, sample(1, 256<<10+1), sample(2, 256<<10+1))
	mustStore(t, s, sample(3, 256<<10))
}

func TestMemoryKeepsWhatWasUsedLast(t *testing.T) {
	s := mustOpen(t, Config{MaxMemory: 1 << 20})
	for i := range byte(4) {
		mustStore(t, s, sample(i, 250<<10))
	}
	mustHold(t, s, sample(0, 250<<10))
	mustStore(t, s, sample(9, 250<<10))
	mustMiss(t, s, digestOf(sample(1, 250<<10)))
	for _, i := range []byte{0, 2, 3, 9} {
		mustHold(t, s, sample(i, 250<<10))
	}
}

func TestMemoryThatReadersHoldOnToCounts(t *testing.T) {
	s := mustOpen(t, Config{MaxMemory: 1 << 20})
	m := s.shelf.(*memory)
	var readers []io.ReadCloser
	for i := range byte(4) {
		mustStore(t, s, sample(i, 250<<10))
		r, _, err := s.Open(t.Context(), digestOf(sample(i, 250<<10)))
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	data := sample(9, 250<<10)
	mustFetch(t, s, data, (&upstream{data: data}).from) // passed through: there is no room
	quiet(s)
	mustMiss(t, s, digestOf(data))
	for i, r := range readers {
		mustRead(t, r, -1, sample(byte(i), 250<<10))
	}
	mustStore(t, s, data)
	if m.used > m.max {
		t.Errorf("%d bytes are used of %d", m.used, m.max)
	}
}

func TestMemoryIsGivenBack(t *testing.T) {
	s := mustOpen(t, Config{MaxMemory: 1 << 20})
	m := s.shelf.(*memory)
	for i := range 50 {
		data := sample(byte(i), 100<<10)
		mustStore(t, s, data)
		wrong := &upstream{data: sample(200, 100<<10)}
		if _, err := readFetch(t, s, sample(byte(100+i), 100<<10), -1, wrong.from); err == nil {
			t.Error("wrong content was served")
		}
		quiet(s)
		if m.used > m.max || m.used < s.Stats().Bytes {
			t.Fatalf("%d bytes are used of %d, for %d", m.used, m.max, s.Stats().Bytes)
		}
	}
	for k := range m.held {
		m.mu.Lock()
		m.removeLocked(k)
		m.mu.Unlock()
	}
	if m.used != 0 || m.ledger.bytes != 0 || m.ledger.count != 0 {
		t.Errorf("%d bytes are used by nothing", m.used)
	}
}

func TestManySmallContentsAreBounded(t *testing.T) {
	s := mustOpen(t, Config{MaxMemory: 100 << 10})
	for i := range 1000 {
		data := []byte{byte(i), byte(i >> 8)}
		if err := s.Put(t.Context(), digestOf(data), data); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Contents; n == 0 || n > 100<<10/contentOverhead {
		t.Errorf("%d contents are held", n)
	}
}

func TestAnIndexInMemoryIsBounded(t *testing.T) {
	h := newHintMemory()
	big := make([]byte, 100<<10)
	h.set(tableDelivered, "other", []byte{})
	for i := range 200 {
		h.set(tableTags, numbered(i).Hex, big)
		h.get(tableTags, numbered(0).Hex) // stays in use
	}
	if n := h.tables[tableTags].ledger.bytes; n > tableMemory(tableTags) {
		t.Errorf("%d bytes", n)
	}
	for i, want := range map[int]bool{0: true, 1: false, 199: true} {
		if _, ok := h.get(tableTags, numbered(i).Hex); ok != want {
			t.Errorf("hint %d is there: %v", i, ok)
		}
	}
	if _, ok := h.get(tableDelivered, "other"); !ok {
		t.Error("a flood of tags drowned a delivery")
	}
}
