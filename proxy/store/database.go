package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

// errDamaged says that the index file contradicts itself.
var errDamaged = errors.New("store: index file is damaged")

// asideFile is where the last damaged index file is left for a person.
const asideFile = indexFile + ".damaged"

// database is the index file. bbolt keeps it whole over a crash. It trusts the
// file's pages, though: they are checked when it is opened. It panics or faults over
// those that are damaged later: that is caught here, and the file given up.
type database struct {
	file *os.File
	db   *bbolt.DB
}

// openDatabase opens the index file, and begins a new one when it is damaged.
// A file system that does not let it be opened is no damage.
func openDatabase(root *os.Root, log *slog.Logger) (*database, error) {
	d, err := tryDatabase(root)
	if err == nil || !damaged(root, err) {
		return d, err
	}
	log.Warn("index is damaged, is put aside and begins empty", "error", err)
	if err := putAside(root); err != nil {
		return nil, err
	}
	return tryDatabase(root)
}

func damaged(root *os.Root, err error) bool {
	if info, err := root.Lstat(indexFile); err == nil && !info.Mode().IsRegular() {
		return true
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return false
	}
	return !errors.Is(err, bberrors.ErrTimeout)
}

// tryDatabase opens the index file as it is.
func tryDatabase(root *os.Root) (*database, error) {
	d := new(database)
	err := guard(func() (err error) {
		d.db, err = bbolt.Open(indexFile, 0o600, &bbolt.Options{
			Timeout:      time.Second,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := root.OpenFile(name, flag, mode)
				d.file = f
				return f, err
			},
		})
		if err != nil {
			return err
		}
		if err := d.vet(); err != nil {
			return err
		}
		return d.makeTables()
	})
	if err != nil {
		d.abandon()
		return nil, err
	}
	return d, nil
}

// makeTables makes the tables that there are not, and writes nothing when
// there are all.
func (d *database) makeTables() error {
	missing := false
	if err := d.db.View(func(tx *bbolt.Tx) error {
		for t := range tableCount {
			missing = missing || tx.Bucket(t.bucket()) == nil
		}
		return nil
	}); err != nil || !missing {
		return err
	}
	return d.db.Update(func(tx *bbolt.Tx) error {
		for t := range tableCount {
			if _, err := tx.CreateBucketIfNotExists(t.bucket()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t table) bucket() []byte { return []byte{'0' + byte(t)} }

// get returns a copy of a value, not nil when there is one.
func (d *database) get(t table, name string) (value []byte, err error) {
	err = guard(func() error {
		return d.db.View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(t.bucket())
			if bucket == nil {
				return errDamaged
			}
			if found := bucket.Get([]byte(name)); found != nil {
				value = append([]byte{}, found...)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// names returns up to n names after last.
func (d *database) names(t table, n int, last string) (names []string, err error) {
	err = guard(func() error {
		return d.db.View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(t.bucket())
			if bucket == nil {
				return errDamaged
			}
			cursor := bucket.Cursor()
			for name, _ := cursor.Seek([]byte(last)); name != nil && len(names) < n; name, _ = cursor.Next() {
				if string(name) > last {
					names = append(names, string(name))
				}
			}
			return nil
		})
	})
	return names, err
}

// write makes changes durable, all or none, and returns the file's size.
func (d *database) write(changes map[hint][]byte) (size int64, err error) {
	err = guard(func() error {
		return d.db.Update(func(tx *bbolt.Tx) error {
			size = tx.Size()
			for at, value := range changes {
				bucket := tx.Bucket(at.table.bucket())
				if bucket == nil {
					return errDamaged
				}
				if value == nil {
					if err := bucket.Delete([]byte(at.name)); err != nil {
						return err
					}
				} else if err := bucket.Put([]byte(at.name), value); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return size, err
}

func (d *database) close() error { return guard(d.db.Close) }

// abandon lets go of the file without asking bbolt, whose locks whatever went
// wrong may have left taken. The mapping stays until the process ends.
func (d *database) abandon() {
	if d.file != nil {
		d.file.Close()
	}
}

// putAside renames the index file, so that a new one may begin.
func putAside(root *os.Root) error {
	if err := root.RemoveAll(asideFile); err != nil {
		return err
	}
	if err := root.Rename(indexFile, asideFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// guard turns a panic, or a fault on mapped memory, into errDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return do()
}
