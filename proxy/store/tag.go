package store

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

const (
	// chunkSize is the unit in which content arrives, is hashed and written.
	chunkSize = 128 << 10
	// blockSize is the unit in which it is tagged and, at the least, read back.
	blockSize = 32 << 10
)

// tag tells one block of content from what it may have become on the medium: a
// CRC-32C (RFC 3720, section 12.1), which costs a fifteenth of a SHA-256 and
// misses one in four thousand million changes that come about by themselves. It
// is no defence against who can compute one.
type tag uint32

// tagOf returns the tag of data as block number index of the content of k. Where
// a block belongs is part of its tag, so that another one in its place is seen.
func tagOf(k key, index int64, data []byte) tag {
	place := binary.LittleEndian.Uint32(k[:]) ^ uint32(index)
	return tag(crc32.Update(place, castagnoli, data))
}

// appendTags appends the tags of the blocks of data, which follow those that tags
// are of.
func appendTags(tags []tag, k key, data []byte) []tag {
	for block := range slices.Chunk(data, blockSize) {
		tags = append(tags, tagOf(k, int64(len(tags)), block))
	}
	return tags
}

// intact returns how many bytes of data, in whole blocks from number first on,
// have the tags of content of that size.
func intact(k key, tags []tag, size, first int64, data []byte) (good int) {
	for i := first; good < len(data); i++ {
		length := min(blockSize, size-i*blockSize)
		if length <= 0 || i >= int64(len(tags)) || int64(len(data)-good) < length || tagOf(k, i, data[good:good+int(length)]) != tags[i] {
			return good
		}
		good += int(length)
	}
	return good
}

// blocks returns how many blocks hold size bytes.
func blocks(size int64) int64 { return (size + blockSize - 1) / blockSize }

// castagnoli is the table of CRC-32C; it is not changed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
