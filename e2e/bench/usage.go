package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tick is the unit of CPU time in /proc (USER_HZ, on every architecture that Go
// supports).
const tick = time.Second / 100

// procStat is what is used of /proc/PID/stat (proc(5)).
type procStat struct {
	parent int
	cpu    time.Duration // user and system, of all threads and of children that it waited for
}

func readStat(pid int) (procStat, error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), "stat")
	data, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, err
	}
	// The second field is the program's name in parentheses, of any characters.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	const ppid, utime, cstime = 4 - 3, 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return procStat{}, fmt.Errorf("%s is not as expected", path)
	}
	var stat procStat
	if stat.parent, err = strconv.Atoi(fields[ppid]); err != nil {
		return procStat{}, fmt.Errorf("%s: %w", path, err)
	}
	for _, field := range fields[utime : cstime+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("%s: %w", path, err)
		}
		stat.cpu += time.Duration(ticks) * tick
	}
	return stat, nil
}

// tree returns a process and all below it.
func tree(root int) (map[int]procStat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	stats, children := map[int]procStat{}, map[int][]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if stat, err := readStat(pid); err == nil { // it may have ended
			stats[pid] = stat
			children[stat.parent] = append(children[stat.parent], pid)
		}
	}
	if _, lives := stats[root]; !lives {
		return nil, fmt.Errorf("process %d: %w", root, os.ErrProcessDone)
	}
	below := map[int]procStat{}
	for next := []int{root}; len(next) > 0; next = next[1:] {
		below[next[0]] = stats[next[0]]
		next = append(next, children[next[0]]...)
	}
	return below, nil
}

// cpuTime returns the CPU time that a process has used, with all that it has
// started.
func cpuTime(root int) (total time.Duration, err error) {
	stats, err := tree(root)
	for _, stat := range stats {
		total += stat.cpu
	}
	return total, err
}

// memory is the resident memory of processes, in bytes.
type memory struct {
	// Own is what no file stands behind, RssAnon and RssShmem, at the moment
	// when it was largest among those that were looked at. The kernel can drop
	// everything else.
	Own int64
	// High is VmHWM, which the kernel keeps, and misses nothing: the most that
	// was ever resident, the program's own file and mapped ones with it. The
	// peaks of several processes are added up, whenever each was.
	High int64
}

// add adds what a process uses now.
func (m *memory) add(pid int) error {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		number, isKiB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !isKiB || !slices.Contains([]string{"RssAnon", "RssShmem", "VmHWM"}, key) {
			continue
		}
		kib, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return fmt.Errorf("%s of process %d: %w", key, pid, err)
		}
		if key == "VmHWM" {
			m.High += kib << 10
		} else {
			m.Own += kib << 10
		}
	}
	return nil
}

// How often memory is looked at, and after how many looks the processes are
// listed anew.
const (
	memoryStep  = 50 * time.Millisecond
	looksPerRun = 20
)

// watch keeps the peaks of several servers' memory until its context ends.
type watch struct {
	mu    sync.Mutex
	peaks map[string]memory
	done  chan struct{}
}

func newWatch(ctx context.Context, servers []*server) *watch {
	w := &watch{peaks: map[string]memory{}, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		trees := map[string]map[int]procStat{}
		for looks := 0; pause(ctx, memoryStep) == nil; looks++ {
			for _, s := range servers {
				if looks%looksPerRun == 0 {
					trees[s.name], _ = tree(s.cmd.Process.Pid) // one that died is found out by who uses it
				}
				w.look(s.name, trees[s.name])
			}
		}
	}()
	return w
}

func (w *watch) look(name string, tree map[int]procStat) {
	var now memory
	for pid := range tree {
		_ = now.add(pid) // it may have ended
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	peak := w.peaks[name]
	w.peaks[name] = memory{max(peak.Own, now.Own), max(peak.High, now.High)}
}

// peak returns the most that a server has used.
func (w *watch) peak(name string) memory {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peaks[name]
}
