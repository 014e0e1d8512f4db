//go:build !linux && !darwin

package disk

import "runtime"

// Mappable is false on this system; reason names it.
func Mappable(dir string) (ok bool, reason string) {
	return false, runtime.GOOS + ": mapped counters are not supported on this system"
}
