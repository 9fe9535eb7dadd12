package proxy

import (
	"archive/tar"
	"bytes"
	"testing"
)

// FuzzReadsAsArchive: whatever archive/tar begins to read counts as an archive.
func FuzzReadsAsArchive(f *testing.F) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: "f", Size: 1, Mode: 0o644, Format: format}); err != nil {
			f.Fatal(err)
		}
		w.Write([]byte("x"))
		w.Close()
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"critical":{}}`))
	f.Add(bytes.Repeat([]byte(" "), tarBlock))
	f.Fuzz(func(t *testing.T, content []byte) {
		header, err := tar.NewReader(bytes.NewReader(content)).Next()
		if err == nil && !readsAsArchive(content) {
			t.Errorf("archive/tar reads %q", header.Name)
		}
	})
}
