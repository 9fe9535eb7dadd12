package main

import (
	"io/fs"
	"syscall"
)

func (f *fingerprint) identify(info fs.FileInfo) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.device, f.inode, f.ctime = s.Dev, s.Ino, s.Ctim.Nano()
	}
}
