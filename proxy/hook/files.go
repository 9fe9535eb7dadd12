package hook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// files is the directory of a queue, a file for each job; empty: there is none.
type files string

const (
	suffix     = ".json"
	unfinished = "new-"  // what the name of a file that is being written begins with
	maxJobSize = 4 << 10 // bytes of a file
)

// name is the same for the same tag and digest.
func (j Job) name() string {
	sum := sha256.Sum256([]byte(j.Repository + "\x00" + j.Tag + "\x00" + j.Digest))
	return hex.EncodeToString(sum[:])
}

// load returns the jobs that are kept.
func (f files) load(logger *slog.Logger) ([]Job, error) {
	if f == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	var jobs []Job
	for _, entry := range entries {
		name, isJob := strings.CutSuffix(entry.Name(), suffix)
		if strings.HasPrefix(entry.Name(), unfinished) && entry.Type().IsRegular() {
			os.Remove(filepath.Join(string(f), entry.Name())) // of a process that died
		}
		if !isJob || !entry.Type().IsRegular() {
			continue
		}
		data, err := f.read(name)
		if err != nil {
			return nil, fmt.Errorf("hook: %w", err)
		}
		job, err := parseJob(name, data)
		if err == nil {
			jobs = append(jobs, job)
			continue
		}
		logger.Error("a push that a registry told of cannot be read, and is forgotten", "file", entry.Name(), "err", err)
		if err := f.remove(name); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

func (f files) read(name string) ([]byte, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxJobSize))
}

func parseJob(name string, data []byte) (job Job, err error) {
	if err := json.Unmarshal(data, &job); err != nil {
		return Job{}, err
	}
	if job.name() != name {
		return Job{}, errors.New("it is not the job that its name says")
	}
	return job, nil
}

func (f files) path(name string) string { return filepath.Join(string(f), name+suffix) }

// save keeps a job: once it returns, also when the machine fails.
func (f files) save(name string, job Job) error {
	if f == "" {
		return nil
	}
	data, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	file, err := os.CreateTemp(string(f), unfinished)
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), f.path(name))
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("hook: %w", err)
	}
	if err := errors.Join(syncDirectory(string(f)), syncDirectory(filepath.Dir(string(f)))); err != nil {
		os.Remove(f.path(name)) // its registry is told that it was not taken
		return fmt.Errorf("hook: %w", err)
	}
	return nil
}

func syncDirectory(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f files) remove(name string) error {
	if f == "" {
		return nil
	}
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hook: %w", err)
	}
	return nil
}
