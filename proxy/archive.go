package proxy

import (
	"bytes"
	"strconv"
)

// The header that begins every tar archive (POSIX.1-1988, and V7 before it): one
// block, with a checksum of itself as octal text.
const (
	tarBlock   = 512
	tarSum     = 148
	tarSumSize = 8
)

// readsAsArchive reports whether content could be taken for a tar archive: the
// checksum of its first header holds. Some clients unpack a layer whatever its
// media type says, and a header can be written in printable text, so that a
// document that parses as evidence may be an archive as well. The other forms
// that layers have (gzip, zstd, ...) begin with bytes that no JSON document
// begins with.
//
// It says yes wherever any reader would: sums are compared signed and unsigned,
// as archives have had both, with each run of octal digits in the field.
func readsAsArchive(content []byte) bool {
	if len(content) < tarBlock {
		return false
	}
	var unsigned, signed int64
	for i, c := range content[:tarBlock] {
		if i >= tarSum && i < tarSum+tarSumSize {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	field := content[tarSum : tarSum+tarSumSize]
	for _, digits := range bytes.FieldsFunc(field, func(r rune) bool { return r < '0' || r > '7' }) {
		if sum, err := strconv.ParseInt(string(digits), 8, 64); err == nil && (sum == unsigned || sum == signed) {
			return true
		}
	}
	return false
}
