package store

import (
	"io/fs"
	"syscall"
)

func (id *identity) addSystem(info fs.FileInfo) {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		id.dev, id.ino = uint64(sys.Dev), sys.Ino
		id.ctime = sys.Ctim.Nano()
	}
}
