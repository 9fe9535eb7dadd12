package store

import (
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"os"
	"testing"
)

func TestTheRosterTakesContentInTheOrderOfItsDirectory(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, dir := range []string{blobsDir, tempDir} {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r, _ := openRoster(root, slog.New(slog.DiscardHandler))
	r.beginSurvey()
	const each = 200
	var found []record
	for i := range 256 * each {
		k := key(sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i))))
		k[0] = byte(i / each) // as a survey comes by them: one directory after the other
		found = append(found, record{key: k, size: 1, used: int64(i)})
	}
	r.recall(found)
	if bytes, count := r.totals(); r.failed() || bytes != 256*each || count != 256*each {
		t.Errorf("of %d contents it knows %d", 256*each, count)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r, survey := openRoster(root, slog.New(slog.DiscardHandler))
	if _, count := r.totals(); survey || count != 256*each {
		t.Errorf("opened again: %d, to be surveyed: %v", count, survey)
	}
	for i, f := range found {
		if at, _, known, err := r.slots.find(f.key); err != nil || at < 0 || known.used != f.used || known.size != 1 {
			t.Fatalf("content %d: %+v, %v", i, known, err)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
