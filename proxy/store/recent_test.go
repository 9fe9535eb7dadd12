package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// newTestHints opens an index file of its own, whose hints are written when the
// test says so.
func newTestHints(t *testing.T, change func(*limits)) (*hintFile, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	h := newHintFile(root, slog.New(slog.DiscardHandler), smallLimits(change))
	t.Cleanup(func() { h.close() }) // may have lost its file
	return h, dir
}

// Whatever was set, forgotten, written, used or displaced meanwhile: what is
// said of a hint is what was said last.
func TestAHintIsWhatWasSetLast(t *testing.T) {
	for _, room := range []int64{0, 2000, 1 << 20} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			h, _ := newTestHints(t, func(*limits) {})
			h.recent = newHintMemoryOf(func(table) int64 { return room })
			random := rand.New(rand.NewChaCha8([32]byte{1}))
			said := make(map[hint][]byte)
			for i := range 5000 {
				at := hint{table(random.IntN(int(tableCount))), fmt.Sprint(random.IntN(40))}
				switch random.IntN(8) {
				case 0, 1:
					said[at] = fmt.Append(nil, i)
					h.set(at.table, at.name, said[at])
				case 2:
					said[at] = []byte{}
					h.set(at.table, at.name, said[at])
				case 3:
					said[at] = nil
					h.set(at.table, at.name, nil)
				case 4:
					if i%10 == 0 {
						if err := h.flush(); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range 3 {
					at.name = fmt.Sprint(random.IntN(40))
					got, ok := h.get(at.table, at.name)
					if want := said[at]; ok != (want != nil) || !bytes.Equal(got, want) {
						t.Fatalf("step %d: %v is %q, %v, was said to be %q", i, at, got, ok, want)
					}
				}
			}
			for i := range h.recent.tables {
				if n := h.recent.tables[i].ledger.bytes; n > room {
					t.Errorf("%d bytes are held in table %d", n, i)
				}
			}
		})
	}
}

func TestWhatIsAskedAgainIsNotReadAgain(t *testing.T) {
	h, _ := newTestHints(t, func(*limits) {})
	h.set(tableTags, "known", []byte("x"))
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	h.recent.clear()
	for _, name := range []string{"known", "unknown"} {
		h.get(tableTags, name)
	}
	h.db.file.Close()
	if err := h.db.db.Close(); err == nil {
		t.Fatal("the file closed twice")
	}
	if value, ok := h.get(tableTags, "known"); !ok || string(value) != "x" {
		t.Errorf("known: %q, %v", value, ok)
	}
	if _, ok := h.get(tableTags, "unknown"); ok {
		t.Error("unknown is known")
	}
}

// What was read from a file goes with the file.
func TestADamagedIndexIsForgottenWhole(t *testing.T) {
	h, dir := newTestHints(t, func(*limits) {})
	for i := range 200 {
		h.set(tableDelivered, fmt.Sprint(i), []byte{})
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	h.set(tableDelivered, "waiting", []byte{})
	h.set(tableDelivered, "7", nil)
	if _, ok := h.get(tableDelivered, "3"); !ok {
		t.Fatal("not known")
	}
	if err := os.Truncate(filepath.Join(dir, indexFile), 0); err != nil {
		t.Fatal(err)
	}
	h.get(tableDelivered, "never asked before") // which meets the damage
	for name, want := range map[string]bool{"3": false, "7": false, "waiting": true, "never asked before": false} {
		if _, ok := h.get(tableDelivered, name); ok != want {
			t.Errorf("%s is known: %v", name, ok)
		}
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	h.recent.clear()
	for name, want := range map[string]bool{"3": false, "7": false, "waiting": true} {
		if _, ok := h.get(tableDelivered, name); ok != want {
			t.Errorf("%s is known afterwards: %v", name, ok)
		}
	}
}

// A hint for which there is no room is not known either.
func TestAHintThatIsLostIsNotKnown(t *testing.T) {
	h, _ := newTestHints(t, func(l *limits) { l.pending = 1 })
	h.set(tableTags, "one", []byte("1"))
	h.set(tableTags, "two", []byte("2"))
	if _, ok := h.get(tableTags, "two"); ok {
		t.Error("two is known, though it will not be written")
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	h.set(tableTags, "two", []byte("2"))
	if value, ok := h.get(tableTags, "two"); !ok || string(value) != "2" {
		t.Errorf("two: %q, %v", value, ok)
	}
}

func TestParseDigestTakesOneSpelling(t *testing.T) {
	good := numbered(1)
	if k, err := parseDigest(good); err != nil || k.digest() != good {
		t.Errorf("%v, %v", k, err)
	}
	for _, text := range []string{"", good.Hex[1:], good.Hex + "0", "G" + good.Hex[1:], "A" + good.Hex[1:], " " + good.Hex[1:], "\x00" + good.Hex[1:], good.Hex[:63] + "g"} {
		bad := good
		bad.Hex = text
		if k, err := parseDigest(bad); err == nil || k != (key{}) || errors.Unwrap(err) != nil {
			t.Errorf("%q: %v, %v", text, k, err)
		}
	}
}
