package real

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// unmountBelow detaches whatever an engine left mounted below dir, innermost
// first.
func unmountBelow(dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(string(mounts), "\n")
	for _, line := range slices.Backward(lines) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH) // RemoveAll will tell
		}
	}
}
