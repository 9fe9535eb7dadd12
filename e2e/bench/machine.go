package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// machine describes where the measurements were made, in one line.
func machine(dir string, servers []*server) string {
	parts := []string{
		fmt.Sprintf("%s, %d cores", field("/proc/cpuinfo", "model name"), runtime.NumCPU()),
		totalMemory(),
		"Linux " + firstLine("/proc/sys/kernel/osrelease"),
		fileSystem(dir),
		runtime.Version(),
	}
	for _, s := range servers {
		if s.version != "" {
			parts = append(parts, s.version)
		}
	}
	return strings.Join(parts, "; ")
}

// field returns the value of the first line "key : value" of a file.
func field(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func totalMemory() string {
	number, _ := strings.CutSuffix(field("/proc/meminfo", "MemTotal"), " kB")
	kib, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// fileSystem returns the type of the file system that dir is in: that of the
// longest mount point above it (proc_pid_mountinfo(5)).
func fileSystem(dir string) string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "file system unknown"
	}
	longest, kind := -1, "file system unknown"
	for line := range strings.Lines(string(data)) {
		mount, rest, ok := strings.Cut(line, " - ")
		fields, of := strings.Fields(mount), strings.Fields(rest)
		if !ok || len(fields) < 5 || len(of) == 0 {
			continue
		}
		if point := strings.TrimSuffix(fields[4], "/"); strings.HasPrefix(dir+"/", point+"/") && len(point) >= longest {
			longest, kind = len(point), of[0]
		}
	}
	return kind
}

// revision says which revision of this module a binary was built from: what
// the binary says, or the working directory when it was built there just now.
func revision(ctx context.Context, binary string, builtHere bool) string {
	at, modified := "", ""
	if info, err := buildinfo.ReadFile(binary); err == nil {
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				at = setting.Value[:min(12, len(setting.Value))]
			case setting.Key == "vcs.modified" && setting.Value == "true":
				modified = " with changes"
			}
		}
	}
	if at == "" && builtHere {
		if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=12", "--dirty= with changes").Output(); err == nil {
			at = strings.TrimSpace(string(out))
		}
	}
	if at == "" {
		at = "of an unknown revision"
	}
	return at + modified
}

// moduleVersion returns the version of the module that a binary is of.
func moduleVersion(binary string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "of an unknown version"
	}
	return info.Main.Version
}

func lastWord(text, after string) string { return text[strings.LastIndex(text, after)+1:] }

// listens returns what waits for somebody to listen at addr.
func listens(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
