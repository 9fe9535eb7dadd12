package store

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// chunkSize is the unit in which content is tagged, read back and passed on.
const chunkSize = 128 << 10

// tag tells one chunk of content from what it may have become on the medium: a
// CRC-32C (RFC 3720, section 12.1), which costs a fifteenth of a SHA-256 and
// misses one in four thousand million changes that come about by themselves. It
// is no defence against who can compute one.
type tag uint32

// tagOf returns the tag of data as chunk number index of the content of k. Where
// a chunk belongs is part of its tag, so that another one in its place is seen.
func tagOf(k key, index int64, data []byte) tag {
	place := binary.LittleEndian.Uint32(k[:]) ^ uint32(index)
	return tag(crc32.Update(place, castagnoli, data))
}

// tagsOf returns the tags of the chunks of data.
func tagsOf(k key, data []byte) []tag {
	tags := make([]tag, 0, len(data)/chunkSize+1)
	for chunk := range slices.Chunk(data, chunkSize) {
		tags = append(tags, tagOf(k, int64(len(tags)), chunk))
	}
	return tags
}

// castagnoli is the table of CRC-32C; it is not changed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
