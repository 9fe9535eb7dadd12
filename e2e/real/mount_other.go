//go:build !linux

package real

// unmountBelow has nothing to do where no engine runs.
func unmountBelow(string) {}
