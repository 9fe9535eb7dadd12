package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"vidimus/e2e/lying"
)

// ranges are Range headers, and what of a blob of size n they mean: nil bytes
// are the whole, an empty answer is 416.
func ranges(content []byte) map[string]struct {
	status int
	part   []byte
} {
	n := len(content)
	type want = struct {
		status int
		part   []byte
	}
	last := strconv.Itoa(n - 1)
	return map[string]want{
		"bytes=0-0":                       {206, content[:1]},
		"bytes=0-":                        {206, content},
		"bytes=0-" + last:                 {206, content},
		"bytes=0-" + strconv.Itoa(n):      {206, content},
		"bytes=0-99999999999999999999999": {206, content},
		"bytes=" + last + "-":             {206, content[n-1:]},
		"bytes=" + last + "-" + last:      {206, content[n-1:]},
		"bytes=-1":                        {206, content[n-1:]},
		"bytes=-99999999999999999999999":  {206, content},
		"bytes=-" + strconv.Itoa(n):       {206, content},
		"bytes=10-20":                     {206, content[10:21]},
		"bytes=-20":                       {206, content[n-20:]},
		"bytes= 10-20 ":                   {206, content[10:21]},
		"bytes=-0":                        {416, nil},
		"bytes=" + strconv.Itoa(n) + "-":  {416, nil},
		"bytes=99999999999999999999999-":  {416, nil},
		"bytes=0-0,2-3":                   {200, content},
		"bytes=20-10":                     {200, content},
		"bytes=":                          {200, content},
		"bytes=-":                         {200, content},
		"bytes=a-b":                       {200, content},
		"bytes=+1-2":                      {200, content},
		"bytes=0x1-2":                     {200, content},
		"bytes=--1":                       {200, content},
		"items=0-1":                       {200, content},
		"0-1":                             {200, content},
	}
}

func TestB21Ranges(t *testing.T) {
	for size, n := range map[string]int{"small": 1000, "large": 1300 << 10} {
		for place, where := range places {
			layer := noiseBytes(4, n)
			image := imageOf(layer)
			path := blobPath(web, lying.Digest(layer))
			w := newWorld(t, where)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			check := func(t *testing.T, a answer, header string, status int, part []byte) {
				t.Helper()
				if status == 416 {
					if a.status != 416 || a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) || fault(t, a).Errors[0].Code != "RANGE_INVALID" {
						t.Fatalf("%s: %d %v %s", header, a.status, a.header, a.body)
					}
					return
				}
				if a.broken != nil || a.status != status || !bytes.Equal(a.body, part) {
					t.Fatalf("%s: %d %v, %d bytes instead of %d", header, a.status, a.broken, len(a.body), len(part))
				}
				want := map[string]string{
					"Content-Length": strconv.Itoa(len(part)), "Content-Range": "", "Accept-Ranges": "bytes",
					"Docker-Content-Digest": lying.Digest(layer).String(), "Etag": `"` + lying.Digest(layer).String() + `"`,
					"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization", "Content-Type": "application/octet-stream",
				}
				if status == 206 {
					first := bytes.Index(layer, part)
					want["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", first, first+len(part)-1, n)
				}
				if len(part) > 1 {
					checkHeaders(t, a.header, want)
				}
			}
			for header, want := range ranges(layer) {
				t.Run(size+" "+place+" "+header, func(t *testing.T) {
					check(t, w.get(path, "Range", header), header, want.status, want.part)
					check(t, w.get(path, "Range", header, "If-Range", `"`+lying.Digest(layer).String()+`"`), header, want.status, want.part)
					check(t, w.get(path, "Range", header, "If-Range", `W/"other"`), header, 200, layer)
					check(t, w.get(path, "Range", header, "Range", "bytes=1-2"), header, 200, layer)
				})
			}
		}
	}
	t.Run("each on a miss", func(t *testing.T) {
		layer := noiseBytes(5, 200<<10)
		for header, want := range ranges(layer) {
			w := newWorld(t)
			image := imageOf(layer)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			a := w.get(blobPath(web, lying.Digest(layer)), "Range", header)
			if a.status != want.status || a.broken != nil || want.status != 416 && !bytes.Equal(a.body, want.part) {
				t.Errorf("%s: %d %v %d bytes", header, a.status, a.broken, len(a.body))
			}
		}
	})
	t.Run("of a blob without bytes", func(t *testing.T) {
		w := newWorld(t)
		image := imageOf(nil)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), image)
		path := blobPath(web, lying.Digest(nil))
		for range 2 {
			servedBlob(t, w.get(path), nil)
			for _, header := range []string{"bytes=0-", "bytes=0-0", "bytes=-1"} {
				if a := w.get(path, "Range", header); a.status != 416 {
					t.Errorf("%s: %d", header, a.status)
				}
			}
		}
	})
}

// A Range of a lie: the answer is never complete, whatever part is asked for
// and wherever the lie is.
func TestARangeOfALie(t *testing.T) {
	layer := noiseBytes(6, 1300<<10)
	image := imageOf(layer)
	lies := map[string]lying.Fault{
		"at the first byte": lying.FlipByte(0), "in the middle": lying.FlipByte(700 << 10), "at the last byte": lying.FlipByte(-1),
	}
	headers := []string{"bytes=0-0", "bytes=-1", "bytes=0-", "bytes=1000-2000", "bytes=5000-300000", "bytes=700000-", "bytes=0-99999999", "bytes=1-1,3-3", ""}
	for name, lie := range lies {
		for _, header := range headers {
			t.Run(name+" "+header, func(t *testing.T) {
				w := newWorld(t)
				w.up.PushSigned("acme/web", image, w.key, "v1")
				served(t, w.get(manifestPath(web, "v1")), image)
				w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lie)
				for range 2 {
					a := w.get(blobPath(web, lying.Digest(layer)), "Range", header)
					neverWhole(t, a)
					if a.broken == nil && a.status != http.StatusBadGateway {
						t.Errorf("status %d", a.status)
					}
				}
			})
		}
	}
}

// Of a lie that is found before anything is sent the client is told; later the
// connection breaks.
func TestAMismatchIsToldWhileNothingIsSent(t *testing.T) {
	for name, test := range map[string]struct {
		size   int
		header string
		told   bool
	}{
		"a small blob":                {60 << 10, "", true},
		"a large blob":                {1300 << 10, "", false},
		"the first bytes of a large":  {1300 << 10, "bytes=0-99", true},
		"the last bytes of a large":   {1300 << 10, "bytes=-99", true},
		"the second half of a large":  {3 << 20, "bytes=1500000-", false},
		"everything of one, by range": {1300 << 10, "bytes=0-", false},
	} {
		t.Run(name, func(t *testing.T) {
			layer := noiseBytes(7, test.size)
			image := imageOf(layer)
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lying.FlipByte(-1))
			a := w.get(blobPath(web, lying.Digest(layer)), "Range", test.header)
			if test.told {
				refused(t, a, 502, "UNAVAILABLE", "upstream-mismatch")
				return
			}
			// whether something went out before depends on how the bytes came
			if neverWhole(t, a); a.broken == nil && a.status != http.StatusBadGateway {
				t.Errorf("status %d with %d bytes, and no broken connection", a.status, len(a.body))
			}
		})
	}
}

// What rots is fetched again within the answer when a part of it is asked for
// that can wait for the digest of the whole.
func TestARangeOfARottenBlobHeals(t *testing.T) {
	layer := noiseBytes(9, 500<<10)
	image := imageOf(layer)
	for header, part := range map[string][]byte{
		"bytes=0-999":         layer[:1000],
		"bytes=-1":            layer[len(layer)-1:],
		"bytes=255000-257000": layer[255000:257001], // where it is rotten
	} {
		t.Run(header, func(t *testing.T) {
			w := newWorld(t, onDisk)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			pull(t, w, web, "v1", image)
			w.stop()
			rewrite(t, w.settings.directory, layer, func(b []byte) []byte { b[256000] ^= 1; return b })
			w.start()
			path := blobPath(web, lying.Digest(layer))
			a := w.get(path, "Range", header)
			if a.status != http.StatusPartialContent || a.broken != nil || !bytes.Equal(a.body, part) {
				t.Errorf("status %d, %v, %d bytes\n%.200s", a.status, a.broken, len(a.body), a.body)
			}
			servedBlob(t, w.get(path), layer)
		})
	}
}
