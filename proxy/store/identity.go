package store

import "io/fs"

// identity tells one state of a file from another without reading it. Whoever
// writes to a file in an ordinary way changes it; rot on the medium does not, and
// neither does a write within the resolution of the file system's clock. It says
// that a file must be hashed anew, never that it need not be read with care.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // ns since 1970
}

// identify returns the identity of the file that info is about.
func identify(info fs.FileInfo) identity {
	id := identity{size: info.Size(), mtime: info.ModTime().UnixNano()}
	id.addSystem(info)
	return id
}
